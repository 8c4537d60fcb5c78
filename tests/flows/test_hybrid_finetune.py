"""The flow: what it computes, records, shows and raises."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.errors import DataError, FtlibError
from ftlib.params.experiment import Experiment

Pipeline = Callable[..., None]


class Heard:
    """Remembers what a run tells."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def begin(self, step: str) -> None:
        self.events.append((step, "begins"))

    def progress(self, event: Any) -> None:
        self.events.append((event.step, "goes on"))

    def done(self, step: str, *, cached: bool, took: float | None = None) -> None:
        self.events.append((step, "cached" if cached else "computed"))

    def failed(self, step: str) -> None:
        self.events.append((step, "failed"))

    def ends(self) -> dict[str, str]:
        return {step: what for step, what in self.events if what not in ("begins", "goes on")}


def run(experiment: Experiment, listener: Any = None, **settings: Any) -> dict[str, Any]:
    from flows.running import run_experiment

    return run_experiment(experiment, listener=listener, **settings)


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in summary["steps"]}


def test_a_run_gives_its_summary(prefect: str, pipeline: Pipeline, experiment: Experiment, home: Path) -> None:
    found = run(experiment, source="params/sample.yaml", overrides=["seed=42"])
    assert found["name"] == "sample_run"
    assert [m["name"] for m in found["members"]] == ["first", "second"]
    first = found["members"][0]
    assert (first["strategy"], first["num_trainable_parameters"], first["train_seconds"]) == ("full", 20.0, 0.5)
    assert found["best"]["name"] == found["best_fusion"] == "averaging"
    assert found["best_member"] == "second"
    assert found["rejected"] == {"empty text": 2, "train in test": 1}
    assert found["params"]["overrides"] == ["seed=42"]
    assert all(len(step["artifact"]) == 64 for step in found["steps"])
    assert Path(found["report"]).read_text().startswith("<!doctype html>")
    assert json.loads(json.dumps(found)) == found


def test_a_state_without_the_result_costs_nothing(
    prefect: str, pipeline: Pipeline, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers late gives the flow's final state as it has it, which is without the result."""
    from flows import hybrid_finetune

    real = hybrid_finetune.hybrid_finetune
    late = lambda *given, **named: real(*given, **named).model_copy(update={"data": None})  # noqa: E731
    monkeypatch.setattr(hybrid_finetune, "hybrid_finetune", late)
    assert run(experiment)["best"]["name"] == "averaging"


def test_a_second_run_computes_nothing_and_a_change_only_what_follows(
    prefect: str, pipeline: Pipeline, experiment: Experiment
) -> None:
    run(experiment)
    assert set(states(run(experiment)).values()) == {"cached"}
    pipeline(learning_rate=0.2)
    changed = {name for name, state in states(run(experiment)).items() if state == "computed"}
    assert changed == {"train-second", "fuse-averaging", "evaluate", "report"}


def test_listeners_hear_each_step_begin_go_on_and_end(prefect: str, pipeline: Pipeline, experiment: Experiment) -> None:
    heard = Heard()
    run(experiment, heard)
    assert heard.events[0] == ("collect", "begins")
    assert ("train-first", "goes on") in heard.events
    assert heard.ends()["train-first"] == "computed"
    again = Heard()
    run(experiment, again)
    assert set(again.ends().values()) == {"cached"}


@pytest.mark.parametrize(("text", "step"), [("bad rows", "clean"), ("no key", "collect")])
def test_an_error_of_the_user_s_reaches_the_user_as_it_is(
    prefect: str, pipeline: Pipeline, experiment: Experiment, text: str, step: str
) -> None:
    pipeline(text=text)
    heard = Heard()
    with pytest.raises(DataError, match=r"^rows.csv: .*\.$"):
        run(experiment, heard)
    assert heard.ends()[step] == "failed"
    assert newest_flow_run()["state_name"] == "Failed"


def test_mlflow_has_a_parent_and_a_child_for_each_stage_fusion_and_evaluation_cached_or_not(
    prefect: str, pipeline: Pipeline, experiment: Experiment
) -> None:
    first, second = run(experiment), run(experiment)
    children = ["evaluate", "fuse-averaging", "train-first", "train-second"]
    for summary, cached in ((first, None), (second, "true")):
        runs = mlflow_runs(summary["mlflow_run_id"])
        assert sorted(runs) == children
        assert {r.data.tags.get("cached") for r in runs.values()} >= {cached}
        assert runs["train-first"].data.metrics["test_accuracy"] == 0.79
        assert runs["train-first"].data.metrics["num_trainable_parameters"] == 20.0
        assert runs["fuse-averaging"].data.metrics["gain"] == 0.03
        assert runs["train-first"].info.run_id == summary["members"][0]["mlflow_run_id"]
    assert mlflow_runs(second["mlflow_run_id"])["train-second"].data.tags["source_run_id"] in {
        r.info.run_id for r in mlflow_runs(first["mlflow_run_id"]).values()
    }


def test_the_learning_curve_is_in_mlflow_step_by_step(prefect: str, pipeline: Pipeline, experiment: Experiment) -> None:
    found = run(experiment)
    curve = mlflow_client().get_metric_history(found["members"][0]["mlflow_run_id"], "loss")
    assert [(m.step, round(m.value, 4)) for m in curve] == [(1, 0.1), (2, 0.05), (3, 0.0333), (4, 0.025)]


def test_the_run_s_page_has_leaderboard_and_report(prefect: str, pipeline: Pipeline, experiment: Experiment) -> None:
    found = run(experiment)
    shown = {a["key"]: a for a in artifacts_of(found["flow_run_id"])}
    assert {"sample-run-leaderboard", "sample-run-report"} <= set(shown)
    rows = json.loads(shown["sample-run-leaderboard"]["data"])
    assert [row["name"] for row in rows] == ["★ averaging", "second", "first"]
    assert rows[0]["kind"] == "fusion: averaging"
    assert "data:image/svg+xml;base64," in shown["sample-run-report"]["data"]


def test_a_long_step_shows_its_progress(
    prefect: str, pipeline: Pipeline, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.board.PROGRESS_SECONDS", 0.05)
    pipeline(seconds=0.6)
    found = run(experiment)
    [bar] = [a for a in artifacts_of(found["flow_run_id"]) if a["type"] == "progress"]
    assert bar["key"] == "sample-run-train-first-progress"
    assert bar["data"] == 100.0
    assert "loss 0.25" in bar["description"]
    assert bar["task_run_id"]


def test_the_newest_summary_is_found_by_name_and_by_flow_run(
    prefect: str, pipeline: Pipeline, experiment: Experiment
) -> None:
    from flows import summary

    first = run(experiment)
    pipeline(learning_rate=0.3)
    second = run(experiment)
    assert summary.latest("sample_run") == summary.load("sample_run") == second
    assert summary.load(first["flow_run_id"]) == first
    with pytest.raises(FtlibError, match="Did you mean 'sample_run'"):
        summary.load("sample_ran")


def test_nothing_is_to_do_only_after_an_equal_run_whose_report_is_there(
    prefect: str, pipeline: Pipeline, experiment: Experiment
) -> None:
    from flows import summary

    assert summary.of_finished(experiment) is None
    found = run(experiment)
    again = summary.of_finished(experiment)
    assert again is not None
    assert set(states(again).values()) == {"cached"}
    elsewhere = experiment.model_copy(update={"registration": type(experiment.registration)(alias="candidate")})
    assert summary.of_finished(elsewhere) is None
    pipeline(learning_rate=0.4)
    assert summary.of_finished(experiment) is None
    pipeline()
    Path(found["report"]).unlink()
    assert summary.of_finished(experiment) is None


def test_a_server_that_does_not_answer_is_told_at_once(
    home: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(FtlibError, match=r"does not answer\. Start that server"):
        run(experiment)


def test_the_flow_s_form_describes_the_experiment(prefect: str) -> None:
    from flows.hybrid_finetune import hybrid_finetune

    schema = hybrid_finetune.parameters.model_dump_for_openapi()
    file, inline = schema["properties"]["params"]["anyOf"]
    assert file["type"] == "string"
    assert "stages" in json.dumps(schema["definitions"]) or "stages" in inline["properties"]
    assert schema["properties"]["overrides"]["type"] == "array"


@pytest.mark.slow
def test_a_run_without_servers_records_every_task_run_and_leaves_no_server_behind(
    home: Path, pipeline: Pipeline, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    import psutil

    from flows.servers import TemporaryServer

    servers: list[TemporaryServer] = []
    start = TemporaryServer.__enter__
    monkeypatch.setattr(TemporaryServer, "__enter__", lambda self: servers.append(self) or start(self))
    found = run(experiment)
    assert not [p for p in psutil.Process().children() if str(servers[0].port) in p.cmdline()]
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        rows = database.execute("select name, state_name from task_run").fetchall()
    names = {"computed": "Completed", "cached": "Cached"}
    assert sorted(rows) == sorted((step["name"], names[step["state"]]) for step in found["steps"])
    assert servers[0].log.read_text() == ""


class Killing(Heard):
    """Kills the run's server when a step begins, and remembers when the last step ended."""

    def __init__(self, servers: list[Any], step: str) -> None:
        super().__init__()
        self.servers, self.step, self.ended = servers, step, 0.0

    def begin(self, step: str) -> None:
        super().begin(step)
        if step == self.step:
            self.servers[0]._process.kill()

    def done(self, step: str, *, cached: bool, took: float | None = None) -> None:
        super().done(step, cached=cached, took=took)
        self.ended = time.monotonic()

    def failed(self, step: str) -> None:
        super().failed(step)
        self.ended = time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["rows", "bad rows"])
def test_a_server_that_is_killed_costs_seconds_and_neither_results_nor_the_reason_of_a_failure(
    text: str, home: Path, pipeline: Pipeline, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.servers import TemporaryServer

    servers: list[TemporaryServer] = []
    start = TemporaryServer.__enter__
    monkeypatch.setattr(TemporaryServer, "__enter__", lambda self: servers.append(self) or start(self))
    pipeline(text=text)
    heard = Killing(servers, "clean")
    if text == "bad rows":
        with pytest.raises(DataError, match="7 of 12 rows rejected"):
            run(experiment, heard)
    else:
        found = run(experiment, heard)
        assert found["best"]["name"] == "averaging"
        assert list((home / "runs").glob("*.json"))
    assert time.monotonic() - heard.ended < 25  # tries of Prefect's for each of its last calls take twice as long


def newest_flow_run() -> dict[str, Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0].model_dump()


def artifacts_of(flow_run_id: str) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        wanted = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
        found: list[dict[str, Any]] = client.request("POST", "/artifacts/filter", json=wanted).json()
        return found


def mlflow_runs(parent: str) -> dict[str, Any]:
    client = mlflow_client()
    experiment = client.get_run(parent).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.info.run_name: run for run in children}


def mlflow_client() -> Any:
    from mlflow import MlflowClient

    from ftlib import state

    return MlflowClient(state.tracking_uri())
