from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftlib.tracking.journal import Journal


def start(home: Path) -> Journal:
    return Journal.start(home, experiment="sst2", run_name="sst2 run", params={"seed": 1}, tags={"a": "b"})


def lines(journal: Journal) -> list[dict]:
    return [json.loads(line) for line in journal.path.read_text().splitlines()]


def test_recording_never_imports_mlflow(run_python):
    code = """
        import sys
        from ftlib import state, tracking
        journal = tracking.Journal.start(state.home(), experiment="x", run_name="x")
        journal.metrics(journal.child("a", kind="stage"), 1, {"loss": 1})
        journal.finish()
        assert not {"mlflow", "torch", "pandas", "codecarbon"} & set(sys.modules)
    """
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_every_event_is_a_line_of_its_own(home: Path):
    journal = start(home)
    child = journal.child("train-full", kind="stage", params={"r": 4}, metrics={"loss": 0.5}, artifact="ab")
    journal.metrics(child, 3, {"loss": 0.25})
    journal.finish(child)
    assert [(e["event"], e["run"]) for e in lines(journal)] == [
        ("started", "run"), ("started", "1"), ("metrics", "1"), ("metrics", "1"), ("finished", "1"),
    ]  # fmt: skip


def test_figures_that_are_no_finite_numbers_are_left_out(home: Path):
    import numpy as np

    journal = start(home)
    values = {"a": float("nan"), "b": float("inf"), "c": "text", "d": None, "e": np.float32(0.5), "f": True}
    journal.metrics(None, 1, values)
    journal.metrics(None, 1, {"only": float("nan")})
    assert [e["rows"] for e in lines(journal)[1:]] == [[[1, {"e": 0.5, "f": 1.0}]]]


def test_a_learning_curve_is_one_line(home: Path):
    journal = start(home)
    child = journal.child("train-full", kind="stage")
    journal.history(child, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation_accuracy": None}])
    assert lines(journal)[-1]["rows"] == [[1, {"loss": 2.0}], [2, {"loss": 1.0}]]


def test_parameters_of_any_kind_can_be_recorded(home: Path):
    journal = start(home)
    journal.params(None, {"path": Path("x"), "set": {"b", "a"}})
    assert lines(journal)[-1]["values"] == {"path": "x", "set": ["a", "b"]}


def test_the_journal_of_a_living_run_is_left_alone(home: Path):
    journal = start(home)
    assert Journal.reopen(journal.path) is None
    journal.close()
    assert Journal.reopen(journal.path) is not None


def test_a_killed_run_is_recognised_and_said_to_be_killed(killed_run: Path):
    journal = Journal.reopen(killed_run)
    events, _ = journal.read(0)
    assert [e["event"] for e in events] == ["started", "started", "metrics", "finished"]
    assert events[-1]["status"] == "KILLED"
    assert events[-1]["run"] == "run"


def test_a_run_that_said_how_it_ended_is_believed(home: Path):
    journal = start(home)
    journal.finish(None, "FAILED")
    journal.close()
    events, _ = Journal.reopen(journal.path).read(0)
    assert [e.get("status") for e in events] == [None, "FAILED"]


def test_a_full_disk_costs_one_warning_and_nothing_else(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    journal = start(home)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    for step in range(3):
        journal.metrics(None, step, {"loss": 1.0})
    assert [r.getMessage() for r in caplog.records] == [
        f"{journal.path}: No space left on device. The rest of this run is not recorded."
    ]


def test_a_state_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    journal = start(tmp_path / "file")
    journal.finish(journal.child("a", kind="stage"))
    assert len(caplog.records) == 1
