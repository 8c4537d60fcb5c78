from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from ftlib import tracking
from ftlib.tracking import Journal
from ftlib.tracking.journal import ATTEMPTS, journals


def record(home: Path, *, sources: list[str | None] | None = None, num_children: int = 3) -> Journal:
    """Return the finished record of a run with a few children; cached ones where `sources` are given."""
    tags = {"prefect.flow_run_id": "42", "prefect.flow_run_url": "http://localhost/flow-run/42"}
    params = {"seed": 1, "stages": [{"name": "full", "strategy": {"name": "lora", "r": 4}}], "labels": ["a", "b"]}
    journal = Journal.start(home, experiment="sst2", run_name="sst2 run", params=params, tags=tags)
    for i in range(num_children):
        source = sources[i] if sources else None
        child = journal.child(
            f"train-{i}",
            kind="stage",
            params={"r": i},
            artifact="ab" * 32,
            cached=source is not None,
            source_run=source,
        )
        journal.metrics(child, None, {"test_accuracy": i / 10})
        journal.history(child, [{"step": s, "loss": 1 / s} for s in range(1, 6)])
        journal.finish(child)
    journal.metrics(None, None, {"test_accuracy": 0.9})
    journal.finish()
    return journal


def runs_of(client, name: str = "sst2") -> list:
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("ftlib")]


def test_a_run_and_its_children_arrive_whole(home: Path, client):
    journal = record(home)
    sent = tracking.send(journal)
    parent = client.get_run(sent.run_id)
    assert parent.info.run_name == "sst2 run"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"test_accuracy": 0.9}
    assert parent.data.params == {
        "seed": "1", "labels": '["a", "b"]',
        "stages.0.name": "full", "stages.0.strategy.name": "lora", "stages.0.strategy.r": "4",
    }  # fmt: skip
    assert parent.data.tags["prefect.flow_run_id"] == "42"
    assert "http://localhost/flow-run/42" in parent.data.tags["mlflow.note.content"]
    child = client.get_run(sent.run_ids["2"])
    assert child.data.tags["mlflow.parentRunId"] == sent.run_id
    assert child.data.tags["kind"] == "stage"
    assert child.data.tags["artifact"] == "ab" * 32
    assert child.data.metrics == {"test_accuracy": 0.1, "loss": 0.2}
    history = client.get_metric_history(child.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 6)]
    assert len(runs_of(client)) == 4


def test_runs_link_to_the_page_that_shows_them(home: Path, client):
    sent = tracking.send(record(home), ui="http://localhost:5000/")
    page = f"http://localhost:5000/#/experiments/{sent.experiment_id}/runs/{sent.run_ids['1']}"
    assert sent.urls["1"] == f"{page}?workflowType=machine_learning"


def test_sending_twice_adds_nothing(home: Path, client):
    journal = record(home)
    assert tracking.send(journal) == tracking.send(journal)
    assert tracking.send_pending(home) == 0
    assert len(runs_of(client)) == 4
    assert journals(home) == []
    assert [p.suffix for p in (home / "journal").iterdir() if p.is_file()] == []


def test_a_run_can_be_sent_in_pieces_while_it_goes(home: Path, client):
    journal = Journal.start(home, experiment="sst2", run_name="live")
    child = journal.child("train-full", kind="stage", metrics={"loss": 2.0})
    sent = tracking.send(journal)
    assert client.get_run(sent.run_ids[child]).info.status == "RUNNING"
    journal.metrics(child, 1, {"loss": 1.0})
    journal.tags(child, {"artifact": "cd"})
    journal.params(child, {"late": 1})
    journal.finish()
    assert tracking.send(journal).run_ids == sent.run_ids
    run = client.get_run(sent.run_ids[child])
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 1.0)
    assert (run.data.tags["artifact"], run.data.params["late"]) == ("cd", "1")


def test_sending_goes_on_where_a_crash_stopped_it(home: Path, client, monkeypatch, caplog):
    from mlflow import MlflowClient

    journal = record(home)
    whole = MlflowClient.log_batch
    calls = []

    def breaks(self, run_id, **batch):
        calls.append(run_id)
        if len(calls) == 3:
            raise ConnectionError("gone")
        return whole(self, run_id, **batch)

    monkeypatch.setattr(MlflowClient, "log_batch", breaks)
    assert tracking.send(journal) is None
    assert len(warnings_of(caplog)) == 1
    journal.close()  # the process dies: what it knew is forgotten
    assert tracking.send_pending(home) == 1
    runs = runs_of(client)
    assert sorted(r.info.run_name for r in runs) == ["sst2 run", "train-0", "train-1", "train-2"]
    assert {r.info.status for r in runs} == {"FINISHED"}
    curve = client.get_metric_history(next(r.info.run_id for r in runs if r.info.run_name == "train-1"), "loss")
    assert len(curve) == 5


def test_a_killed_run_is_ended_by_the_next_one(home: Path, client, killed_run: Path):
    assert tracking.send_pending(home) == 1
    ended = {r.info.run_name: r.info.status for r in runs_of(client)}
    assert ended == {"killed": "KILLED", "train-full": "KILLED"}


def test_a_cached_step_shows_with_its_figures_and_a_link_to_the_run_that_computed_it(home: Path, client):
    first = record(home)
    computed = tracking.send(first)
    again = record(home, sources=[first.reference("1"), computed.run_ids["2"], "20200101-000000-gone/1"])
    sent = tracking.send(again)
    tags = [client.get_run(sent.run_ids[c]).data.tags for c in "123"]
    assert [t["cached"] for t in tags] == ["true"] * 3
    assert f"/runs/{computed.run_ids['1']}?workflowType=machine_learning)" in tags[0]["mlflow.note.content"]
    assert [t.get("source_run_id") for t in tags] == [computed.run_ids["1"], computed.run_ids["2"], None]
    assert tags[2]["source_run"] == "20200101-000000-gone/1"
    assert client.get_run(sent.run_ids["3"]).data.metrics["test_accuracy"] == 0.2


def test_a_cached_run_of_ten_children_takes_less_than_two_seconds(home: Path, client):
    first = record(home, num_children=10)
    tracking.send(first)
    again = record(home, sources=[first.reference(str(i + 1)) for i in range(10)], num_children=10)
    started = time.process_time()
    assert tracking.send(again) is not None
    assert time.process_time() - started < 2


def test_a_server_that_is_gone_costs_no_time_and_loses_nothing(home: Path, mlflow_store, monkeypatch, caplog):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    journal = record(home)
    started = time.perf_counter()
    assert tracking.send(journal) is None
    assert time.perf_counter() - started < 2
    [warning] = warnings_of(caplog)
    assert f"http://127.0.0.1:{port} cannot be reached" in warning
    assert str(journal.path) in warning
    journal.close()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.send_pending(home) == 1


def test_a_server_that_never_answers_costs_seconds_however_much_waits(home: Path, monkeypatch, caplog):
    monkeypatch.setattr("ftlib.tracking.store.PATIENCE_SECONDS", 0.5)
    for journal in [record(home) for _ in range(3)]:
        journal.close()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.perf_counter()
        assert tracking.send_pending(home) == 0
        assert time.perf_counter() - started < 3
    assert len(warnings_of(caplog)) == 1
    assert len(journals(home)) == 3


def test_a_run_that_goes_on_does_not_ask_a_dead_server_again_and_again(home: Path, monkeypatch, caplog):
    asked = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    def gone(uri: str) -> None:
        asked.append(uri)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("ftlib.tracking.store._ask_http", gone)
    journal = Journal.start(home, experiment="sst2", run_name="long")
    for _ in range(3):
        assert tracking.send(journal) is None
    assert len(asked) == 1
    journal.finish()
    assert tracking.send(journal) is None
    assert len(asked) == 2


def test_a_locked_database_is_waited_for_shortly(home: Path, mlflow_store: Path, client, monkeypatch, caplog):
    monkeypatch.setattr("ftlib.tracking.store.PATIENCE_SECONDS", 0.3)
    journal = record(home)
    with closing(sqlite3.connect(mlflow_store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.perf_counter()
        assert tracking.send(journal) is None
        assert time.perf_counter() - started < 3
    assert "database is locked" in warnings_of(caplog)[0]
    assert tracking.send(journal) is not None


def test_what_is_no_database_is_one_clear_line(home: Path, mlflow_store: Path, caplog):
    mlflow_store.write_text("no database" * 100)
    assert tracking.send(record(home)) is None
    assert "file is not a database" in warnings_of(caplog)[0]


def test_long_parameters_and_odd_names_are_taken(home: Path, client):
    journal = Journal.start(home, experiment="sst2", run_name="odd", params={"labels": ["é" * 100] * 100})
    journal.metrics(None, 1, {"f1@(micro)[x]": 1.0, "per label/précision": 0.5, "../up": 2.0})
    journal.params(None, {f"p{i}": i for i in range(250)})
    journal.finish()
    run = client.get_run(tracking.send(journal).run_id)
    assert run.data.metrics == {"f1__micro__x_": 1.0, "per label/précision": 0.5, "up": 2.0}
    assert len(run.data.params) == 251
    assert run.data.params["labels"].endswith("the whole is in params/)")
    assert len(run.data.params["labels"]) <= 6000
    assert [f.path for f in client.list_artifacts(run.info.run_id, "params")] == ["params/labels.txt"]


def test_files_and_data_lie_with_the_run(home: Path, client, tmp_path: Path, caplog):
    journal = Journal.start(home, experiment="sst2", run_name="files")
    (tmp_path / "report.html").write_text("<p>")
    journal.log_file(None, tmp_path / "report.html", "report")
    journal.log_file(None, tmp_path / "gone.html")
    for _ in range(2):
        journal.log_data(None, "sst2/train", "ab" * 32, context="training", rows=10)
    journal.finish()
    run = client.get_run(tracking.send(journal).run_id)
    assert [f.path for f in client.list_artifacts(run.info.run_id, "report")] == ["report/report.html"]
    assert run.info.artifact_uri.startswith((home / "mlflow" / "artifacts").as_uri())
    [data] = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("sst2/train", ("ab" * 32)[:36])
    assert warnings_of(caplog) == [f"MLflow: {tmp_path / 'gone.html'} is gone; its run goes without it."]


def test_a_value_that_mlflow_refuses_does_not_hold_up_the_rest(home: Path, client, caplog):
    journal = Journal.start(home, experiment="sst2", run_name="twice", params={"seed": 1})
    tracking.send(journal)
    journal.params(None, {"seed": 2})  # MLflow takes no second value
    journal.finish()
    sent = tracking.send(journal)
    assert client.get_run(sent.run_id).info.status == "FINISHED"
    assert "refused values" in warnings_of(caplog)[0]


def test_a_journal_that_mlflow_never_takes_is_set_aside(home: Path, client, monkeypatch, caplog):
    from mlflow import MlflowClient

    def refuses(*args, **kwargs):
        raise ValueError("no")

    monkeypatch.setattr(MlflowClient, "create_run", refuses)
    record(home).close()
    for _ in range(ATTEMPTS):
        assert tracking.send_pending(home) == 0
    assert journals(home) == []
    assert len(list((home / "journal" / "refused").iterdir())) == 1
    assert "set aside" in warnings_of(caplog)[-1]


def test_a_deleted_experiment_comes_back(home: Path, client):
    sent = tracking.send(record(home))
    client.delete_experiment(sent.experiment_id)
    assert tracking.send(record(home)).experiment_id == sent.experiment_id
    assert client.get_experiment(sent.experiment_id).lifecycle_stage == "active"


def test_a_lost_database_gets_the_whole_run(home: Path, mlflow_store: Path, made_database: Path):
    journal = Journal.start(home, experiment="sst2", run_name="lost")
    tracking.send(journal)
    journal.close()
    shutil.copyfile(made_database, mlflow_store)  # as made: without the run
    assert tracking.send_pending(home) == 1


def test_nothing_is_written_outside_the_state_folder(home: Path, client, tmp_path: Path):
    tracking.send(record(home))
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@pytest.mark.slow
def test_three_processes_may_open_a_cold_database_at_once(home: Path, tmp_path: Path, start_three):
    processes = start_three("""
        from ftlib import state, tracking
        journal = tracking.Journal.start(state.home(), experiment="sst2", run_name="at once")
        journal.finish(journal.child("train-full", kind="stage", metrics={"loss": 1}))
        journal.finish()
        assert tracking.send(journal) is not None
    """)
    outputs = [p.communicate(timeout=240)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], outputs
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (6,)
        assert database.execute("SELECT count(*) FROM experiments WHERE name = 'sst2'").fetchone() == (1,)
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
