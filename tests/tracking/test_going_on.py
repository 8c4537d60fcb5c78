"""A run that is stopped and goes on in another process stays one run in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib import tracking
from ftlib.tracking import Journal


def begun(home: Path) -> Journal:
    return Journal.go_on(home, "search-1", experiment="sst2", run_name="a search", params={"seed": 1})


def told(journal: Journal, number: int, status: str | None = "FINISHED") -> None:
    child = journal.child(f"trial {number}", kind="trial", run=f"trial-{number}")
    journal.metrics(child, None, {"score": number / 10})
    if status:
        journal.finish(child, status)


def runs_of(client) -> dict[str, tuple[str, bool]]:
    experiment = client.get_experiment_by_name("sst2")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: (run.info.status, "mlflow.parentRunId" in run.data.tags) for run in found}


@pytest.mark.parametrize("sent_between", [True, False])
def test_it_is_one_run_whether_it_was_sent_meanwhile_or_not(home: Path, client, sent_between: bool):
    first = begun(home)
    told(first, 0)
    told(first, 1, status=None)
    first.close()  # as a process that is killed lets go of it
    if sent_between:
        assert tracking.send_pending(home) == 1
        assert runs_of(client)["a search"] == ("KILLED", False)
    again = begun(home)
    again.finish("trial-1", "KILLED")
    told(again, 2)
    again.finish(None)
    assert tracking.send(again) is not None
    assert runs_of(client) == {
        "a search": ("FINISHED", False),
        "trial 0": ("FINISHED", True),
        "trial 1": ("KILLED", True),
        "trial 2": ("FINISHED", True),
    }


def test_killed_again_after_it_went_on_it_is_told_so(home: Path, client):
    first = begun(home)
    told(first, 0)
    first.finish(None)
    assert tracking.send(first) is not None
    again = begun(home)
    told(again, 1)
    again.close()
    assert tracking.send_pending(home) == 1
    assert runs_of(client)["a search"] == ("KILLED", False)
    assert runs_of(client)["trial 1"] == ("FINISHED", True)
