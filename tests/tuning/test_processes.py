"""Searches in processes of their own: killed in the middle, and several trials side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ftlib.files import read_json

ROOT = Path(__file__).parents[2]
TUNE = "import sys; from flows.cli import main; raise SystemExit(main(['tune', 'p.yaml', *sys.argv[1:]]))"
SHARED = ("collect", "clean", "split", "fetch", "encode")


def started(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "FTLIB_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TUNE, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(found: Any, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def told(home: Path) -> list[dict[str, Any]]:
    """Return the lines of the search's journal."""
    return [json.loads(line) for path in home.glob("journal/tuning-*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_killed_in_mid_trial_it_goes_on_and_computes_nothing_twice(ftlib, params: Path, home: Path):
    def is_in_second_trial() -> bool:
        second = [event for event in told(home) if event["run"] == "trial-1"]
        return bool(second) and len(list((home / "store" / "scratch").glob("*/best-*"))) > 0

    process = started(home, "--trials", "3", "--set", "training.num_train_epochs=6")
    until(is_in_second_trial)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path.name: path.read_text() for path in (home / "store" / "keys").iterdir()}

    code, _, err = ftlib(
        "tune", "p.yaml", "--trials", "3", "--set", "training.num_train_epochs=6", "--json", "found.json"
    )
    found = read_json(Path("found.json"))
    assert code == 0
    assert "Going on after 1 of 3 trials; trial 1 was broken off and is tried again." in err
    assert sorted(entry["number"] for entry in found["trials"]) == [0, 2, 3]
    assert {
        path.name: path.read_text() for path in (home / "store" / "keys").iterdir() if path.name in before
    } == before
    steps = [read_json(path)["step"] for path in (home / "store" / "keys").iterdir()]
    assert sorted(step for step in steps if step in SHARED) == sorted(SHARED)
    assert steps.count("train-full") == 3
    broken, again = (
        next(e for e in told(home) if e["run"] == f"trial-{n}" and e["event"] == "started") for n in (1, 2)
    )
    assert broken["params"] == again["params"]
    events = [event["event"] for event in told(home) if event["run"] == "run"]
    assert (events.count("started"), events.count("resumed"), events[-1]) == (1, 1, "finished")


@pytest.mark.slow
def test_side_by_side_comes_to_the_same_as_one_after_the_other(ftlib, params: Path, home: Path, tmp_path: Path):
    process = started(tmp_path / "other", "--jobs", "2", "--json", "two.json")
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert ftlib("tune", "p.yaml", "--json", "one.json")[0] == 0
    one, two = (
        {entry["number"]: (entry["values"], entry["score"], entry["chosen"]) for entry in read_json(path)["trials"]}
        for path in (Path("one.json"), Path("two.json"))
    )
    assert one == two
    steps = [read_json(path)["step"] for path in (tmp_path / "other" / "store" / "keys").iterdir()]
    assert sorted(step for step in steps if step in SHARED) == sorted(SHARED)
