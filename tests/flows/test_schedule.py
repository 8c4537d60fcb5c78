"""Schedules: refused in a line when wrong, and fired by themselves when right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import schedule, servers
from ftlib.errors import FtlibError, ParamsError

PARAMS = """
name: tiny_requests
base_model: {model}
problem: {{name: text_classification, max_length: 32}}
data: {{sources: {{all: {{name: support_requests, num_rows: 300}}}}}}
training: {{batch_size: 64, num_train_epochs: 1}}
evaluation: {{bootstrap_samples: 100}}
tracking: {{energy: false}}
stages:
  - {{name: full, strategy: full}}
  - {{name: lora, strategy: lora}}
fusions: [averaging]
"""


@pytest.fixture
def params(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    """Return the file of an experiment that runs in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(PARAMS.format(model=tiny_model()))
    return path


@pytest.mark.parametrize("cron", ["nightly", "0 2 * *", "61 2 * * *"])
def test_a_wrong_cron_line_is_told_with_a_right_one(cron: str) -> None:
    with pytest.raises(ParamsError, match="is no cron line; expected five fields"):
        schedule.cron_schedule(cron, "UTC")


def test_an_unknown_time_zone_is_told() -> None:
    with pytest.raises(ParamsError, match="unknown time zone 'Mars/Crater'; expected one such as"):
        schedule.cron_schedule("0 2 * * *", "Mars/Crater")


def test_the_machine_s_time_zone_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Europe/Berlin")
    assert schedule.local_timezone() == "Europe/Berlin"
    monkeypatch.setenv("TZ", "nonsense")
    assert "/" in schedule.local_timezone() or schedule.local_timezone() == "UTC"


def test_without_a_server_the_remedy_is_told(home: Path, params: Path) -> None:
    with pytest.raises(FtlibError, match="Start one with `ftlib up`"):
        schedule.schedule(params, "0 2 * * *")


def test_a_wrong_params_file_is_told_before_anything_else(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"none\.yaml"):
        schedule.schedule(tmp_path / "none.yaml", "0 2 * * *")


def test_a_server_without_a_worker_s_pool_is_told(prefect: str, params: Path) -> None:
    with pytest.raises(FtlibError, match="no work pool 'ftlib'"):
        schedule.schedule(params, "0 2 * * *")


@pytest.fixture
def running_servers(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start Prefect, MLflow and a worker on free ports, and stop them."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    try:
        servers.up(prefect_port=0, mlflow_port=0)
        api = servers.prefect_api()
        assert api is not None
        yield api
    finally:
        servers.down()


@pytest.mark.slow
def test_a_scheduled_run_fires_by_itself_and_is_all_cached(
    running_servers: str, params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.schemas.schedules import IntervalSchedule

    from flows.hybrid_finetune import settings
    from flows.running import run_experiment
    from ftlib.params.loading import load_experiment

    assert [s.state for s in servers.status()] == ["running"] * 3
    assert [s.pid for s in servers.up()] == [s.pid for s in servers.status()]  # nothing is started twice
    computed = run_experiment(load_experiment(params), source=params)
    nightly = schedule.schedule(params, "0 2 * * *", timezone="UTC")
    assert nightly.name == "hybrid_finetune/tiny_requests"
    assert nightly.next_run is not None
    assert nightly.next_run.hour == 2
    with settings(running_servers):
        often = schedule.deploy(
            params, IntervalSchedule(interval=timedelta(seconds=15)), name="often", api=running_servers
        )
        run, tasks = first_finished(often.deployment_id)
    assert run.state.name == "Completed", run.state.message
    assert run.auto_scheduled
    assert run.name.startswith("tiny_requests ")
    assert {task.name: task.state_name for task in tasks} == {s["name"]: "Cached" for s in computed["steps"]}


@pytest.mark.slow
def test_a_scheduled_run_that_is_stopped_with_the_servers_does_not_go_on_for_prefect(
    running_servers: str, params: Path
) -> None:
    from prefect.client.schemas.schedules import IntervalSchedule

    from flows.hybrid_finetune import settings

    every = IntervalSchedule(interval=timedelta(seconds=15))
    long = ["stages.full.training.num_train_epochs=5000"]
    with settings(running_servers):
        often = schedule.deploy(params, every, name="long", overrides=long, api=running_servers)
        run, _ = first_run(often.deployment_id, lambda run, tasks: "train-full" in running(tasks))
    assert servers.num_jobs() == 1
    servers.down()
    with servers.TemporaryServer() as server, settings(server.wait()):
        stopped, tasks = first_run(often.deployment_id, lambda other, _: other.id == run.id)
    assert stopped.state.name == "Cancelled"
    assert "Stopped by `ftlib down`" in stopped.state.message
    assert running(tasks) == set()


def running(tasks: list[Any]) -> set[str]:
    return {task.name for task in tasks if task.state_name == "Running"}


def first_finished(deployment_id: str) -> tuple[Any, list[Any]]:
    """Return the deployment's first run that ended, and its task runs."""
    run, _ = first_run(deployment_id, lambda run, _: run.state and run.state.is_final())
    time.sleep(3)  # task runs reach the server behind their flow run
    return first_run(deployment_id, lambda other, _: other.id == run.id)


def first_run(
    deployment_id: str, is_wanted: Callable[[Any, list[Any]], Any], seconds: float = 240
) -> tuple[Any, list[Any]]:
    """Wait for a run of the deployment that is as wanted; return it and its task runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
    )

    deadline = time.monotonic() + seconds
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_flow_runs(deployment_filter=wanted)
            for run in runs:
                only = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
                tasks = client.read_task_runs(flow_run_filter=only, task_run_filter=TaskRunFilter())
                if is_wanted(run, tasks):
                    return run, tasks
            time.sleep(0.5)
    raise AssertionError(f"no such run in {seconds:.0f} s; states: {[run.state_name for run in runs][:5]}")
