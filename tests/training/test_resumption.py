"""A stage that is killed resumes, and ends exactly as if it had never been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ftlib import progress
from ftlib.training import watch as watching
from tests.training import run_stage

ROOT = Path(__file__).parents[2]


def kill_after(steps: int, start: Path, scratch: Path, out: Path) -> None:
    """Train in a process of its own, wait for a step, kill it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.run_stage", str(start), str(scratch), str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FTLIB_TEST_PAUSE": "0.3"},
    )
    deadline = time.monotonic() + 240
    seen = scratch / "progress.txt"
    while not (seen.exists() and int(seen.read_text() or 0) >= steps):
        assert process.poll() is None, "the stage ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def finish(start: Path, scratch: Path, out: Path, strategy: str = "full") -> dict[str, bytes]:
    run_stage.main(start, scratch, out, strategy)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


class BrokenOffError(Exception):
    pass


@contextmanager
def broken_off_after(steps: int) -> Iterator[None]:
    """Break the training in the context off after a step."""

    def watch(event: progress.Progress) -> None:
        if event.step == "train-test" and event.done >= steps:
            raise BrokenOffError

    with pytest.MonkeyPatch.context() as patch, progress.listen(watch):
        patch.setattr(watching, "EMIT_SECONDS", 0.0)  # every step is told, so that it breaks off at the right one
        with pytest.raises(BrokenOffError):
            yield


def interrupt_after(steps: int, start: Path, scratch: Path, out: Path, strategy: str = "full") -> None:
    """Train in this process with a checkpoint at each step, and break off after a step."""
    with broken_off_after(steps):
        run_stage.main(start, scratch, out, strategy, pause=1e-9)


@pytest.fixture(scope="module")
def unbroken(tiny_model, tmp_path_factory) -> dict[str, bytes]:
    """The files of an unbroken run."""
    folder = tmp_path_factory.mktemp("unbroken")
    return finish(tiny_model("bert", 0.1), folder / "scratch", folder / "out")


def newest(scratch: Path) -> Path:
    return max(scratch.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))


def differing(files: dict[str, bytes], others: dict[str, bytes]) -> list[str]:
    return sorted(n for n in files.keys() | others.keys() if files.get(n) != others.get(n))


def test_a_stage_killed_twice_ends_with_the_same_bytes_as_an_unbroken_one(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    kill_after(4, start, scratch, out)
    first = newest(scratch)
    kill_after(9, start, scratch, out)
    assert newest(scratch) != first
    assert differing(finish(start, scratch, out), unbroken) == []


def test_a_run_broken_off_in_the_middle_of_an_epoch_goes_on_from_its_checkpoint(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    interrupt_after(13, start, scratch, out)
    assert newest(scratch).name == "checkpoint-12"
    assert differing(finish(start, scratch, out), unbroken) == []


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    interrupt_after(6, start, scratch, out)
    weights = newest(scratch) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (scratch / ".writing-999").mkdir()
    assert differing(finish(start, scratch, out), unbroken) == []
    assert not (scratch / ".writing-999").exists()


def test_checkpoints_of_other_parameters_are_not_used(unbroken, tiny_model, tmp_path):
    start, scratch, out = tiny_model("bert", 0.1), tmp_path / "scratch", tmp_path / "out"
    interrupt_after(4, start, scratch, out, "lora")
    assert differing(finish(start, scratch, out), unbroken) == []


@pytest.mark.parametrize("strategy", ["lora", "prefix", "prompt_tuning", "adaptive_hierarchical", "few_shot"])
def test_every_kind_of_strategy_resumes_as_well(strategy, tiny_model, tmp_path):
    start = tiny_model("bert", 0.1)
    whole = finish(start, tmp_path / "scratch-a", tmp_path / "a", strategy)
    interrupt_after(7, start, tmp_path / "scratch-b", tmp_path / "b", strategy)
    assert differing(finish(start, tmp_path / "scratch-b", tmp_path / "b", strategy), whole) == []
