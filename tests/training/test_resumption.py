"""A stage that is killed resumes, and ends exactly as if it had never been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(start: Path, scratch: Path, out: Path, strategy: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.run_stage", str(start), str(scratch), str(out), strategy]


def environment(pause: float = 0.0) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **({"FTLIB_TEST_PAUSE": str(pause)} if pause else {})}


def kill_after(steps: int, start: Path, scratch: Path, out: Path, strategy: str) -> None:
    """Start the stage, wait for a step, kill it."""
    process = subprocess.Popen(command(start, scratch, out, strategy), cwd=ROOT, env=environment(pause=0.3))
    deadline = time.monotonic() + 240
    seen = scratch / "progress.txt"
    while not (seen.exists() and int(seen.read_text() or 0) >= steps):
        assert process.poll() is None and time.monotonic() < deadline, "the stage ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def finish(start: Path, scratch: Path, out: Path, strategy: str) -> dict[str, bytes]:
    subprocess.run(command(start, scratch, out, strategy), cwd=ROOT, env=environment(), check=True, timeout=240)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def unbroken(tiny_model, tmp_path_factory):
    """Return a function that gives the files of an unbroken run of a strategy."""
    runs: dict[str, dict[str, bytes]] = {}

    def files(strategy: str) -> dict[str, bytes]:
        if strategy not in runs:
            folder = tmp_path_factory.mktemp(strategy)
            runs[strategy] = finish(tiny_model("bert", 0.1), folder / "scratch", folder / "out", strategy)
        return runs[strategy]

    return files


def test_a_stage_killed_twice_ends_with_the_same_bytes_as_an_unbroken_one(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    kill_after(4, start, scratch, out, "full")
    kill_after(9, start, scratch, out, "full")
    assert list(scratch.glob("checkpoint-*"))
    resumed = finish(start, scratch, out, "full")
    assert sorted(resumed) == sorted(unbroken("full"))
    assert [name for name in resumed if resumed[name] != unbroken("full")[name]] == []


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    kill_after(6, start, scratch, out, "full")
    newest = max(scratch.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (scratch / ".writing-999").mkdir()
    resumed = finish(start, scratch, out, "full")
    assert [name for name in resumed if resumed[name] != unbroken("full")[name]] == []
    assert not (scratch / ".writing-999").exists()


def test_checkpoints_of_other_parameters_are_not_used(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    kill_after(4, start, scratch, out, "prompt_tuning")
    files = finish(start, scratch, out, "full")
    assert [name for name in files if files[name] != unbroken("full")[name]] == []
