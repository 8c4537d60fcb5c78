"""The flow: one experiment, from raw rows to a registered model, each step a cached Prefect task.

Order is in `flows.graph`, work in `tasks`, and what is shown and recorded in `flows.board`, `flows.recording` and
`flows.summary`; this module walks the one and calls the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from ftlib import state

state.prepare_environment()  # Prefect reads it when it is imported, in a worker too

import httpx  # noqa: E402
from prefect import flow  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.filters import (  # noqa: E402
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType  # noqa: E402
from prefect.context import FlowRunContext  # noqa: E402
from prefect.events.clients import PrefectEventsClient  # noqa: E402
from prefect.events.worker import EventsWorker  # noqa: E402
from prefect.logging.handlers import APILogWorker  # noqa: E402
from prefect.settings import (  # noqa: E402
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)
from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler  # noqa: E402
from pydantic_core import CoreSchema  # noqa: E402

from flows import graph, servers, summary  # noqa: E402
from flows.board import Board  # noqa: E402
from flows.recording import Recording  # noqa: E402
from flows.running import Handed, Silent, handed, no_garbage_collection, run_experiment  # noqa: E402
from ftlib import tracking  # noqa: E402
from ftlib.artifacts import Artifact  # noqa: E402
from ftlib.errors import FtlibError  # noqa: E402
from ftlib.files import read_json  # noqa: E402
from ftlib.params.experiment import Experiment  # noqa: E402
from ftlib.params.loading import load_experiment  # noqa: E402
from ftlib.steps import Step, step_key  # noqa: E402
from ftlib.tracking import Sent  # noqa: E402
from tasks.base import Done, run_step  # noqa: E402

__all__ = ["hybrid_finetune", "run_experiment"]

RECORD_SECONDS = 15.0
"""How long a temporary server may take to write down the last task runs before it is stopped."""

GONE_SECONDS = 3.0
"""How long to wait until Prefect has given up what it was sending to a server that is gone."""

RETRIES = 3
"""How often an event that the server did not take is tried again."""

logger = logging.getLogger(__name__)


class _ExperimentSchema:
    """Shows the experiment's own schema in the UI's form, and leaves validation, with its better errors, to ftlib."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        file = {"type": "string", "title": "A params file", "description": "Its absolute path on the worker's machine."}
        return {"anyOf": [file, handler(Experiment.__pydantic_core_schema__)]}


Params = Annotated[
    str | dict[str, Any],
    _ExperimentSchema,
    Field(title="Params", description="A params file's absolute path, or an experiment written out."),
]
Overrides = Annotated[
    list[str],
    Field(title="Overrides", description="Changes on top, as --set takes them: stages.0.strategy.r=16"),
]


def _flow_run_name() -> str:
    given, context = handed.get(), FlowRunContext.get()
    parameters = (context.parameters if context else None) or {}
    name = given.experiment.name if given else _name_in(parameters.get("params", ""), parameters.get("overrides", []))
    return f"{name} {datetime.now():%Y-%m-%d %H:%M:%S}"


def _name_in(params: str | dict[str, Any], overrides: list[str]) -> str:
    try:
        return load_experiment(params, overrides).name
    except FtlibError:  # the flow itself tells what is wrong
        return "experiment" if isinstance(params, dict) else Path(params).stem


@flow(name="hybrid_finetune", flow_run_name=_flow_run_name, persist_result=False)
def hybrid_finetune(params: Params, overrides: Overrides = []) -> dict[str, Any]:  # noqa: B006  Prefect's form shows it
    """Turn raw rows into a fused, evaluated and registered model; compute only what no earlier run has computed.

    Args:
        params: A params file's absolute path, or an experiment written out.
        overrides: Changes on top, as `--set` takes them: `stages.0.strategy.r=16`.

    Returns:
        The run's summary: steps, members, fusions, the best one, and where report and model are.
    """
    given = handed.get() or Handed(load_experiment(params, overrides), Silent(), has_pages=True)
    run = _Run(given, source=params if isinstance(params, str) else None, overrides=overrides)
    tracking.send_pending(state.home())
    with _ended_quickly(given), run.recorded():
        for step in graph.steps(given.experiment):
            run.perform(step)
        return run.conclude()


@contextmanager
def _ended_quickly(given: Handed) -> Iterator[None]:
    """Keep what the flow fails by, and where the server has gone meanwhile, let Prefect not try its calls again.

    It tells the server how a flow ended after the flow's function has: three calls, each tried for 14 s.
    """
    try:
        yield
    except Exception as error:
        given.errors.append(error)
        raise
    finally:
        if handed.get() is given and not servers.answers(PREFECT_API_URL.value() or ""):
            given.ending.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))


class _Run:
    """One pass through the steps, and all that is told of it."""

    def __init__(self, given: Handed, *, source: str | None, overrides: list[str]) -> None:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            raise RuntimeError("a run begins within its flow")
        self.experiment = given.experiment
        self.given = given
        self.source = source
        self.overrides = overrides
        self.started = time.perf_counter()
        self.store = state.store()
        self.done: dict[str, Done] = {}
        self.told: list[dict[str, Any]] = []
        self.flow_run_id = context.flow_run.id
        self.name = context.flow_run.name
        self.page = _page(self.flow_run_id) if given.has_pages else None
        tags = {"prefect.flow_run_id": str(self.flow_run_id), "prefect.flow_run_name": self.name}
        self.recording = Recording(
            self.experiment,
            run_name=self.name,
            tags={**tags, **({"prefect.flow_run_url": self.page} if self.page else {})},
        )
        self.board = Board(context.client, self.flow_run_id, self.experiment.name)  # type: ignore[arg-type]

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Show progress while the context is open; where it fails, tell MLflow."""
        try:
            with self.board.watching():
                yield
        except Exception:
            self.recording.finish("FAILED")
            raise
        except BaseException:
            self.recording.stop()
            raise

    def perform(self, step: Step) -> None:
        """Run one step, and tell of it."""
        listener, name = self.given.listener, step.step_name
        listener.begin(name)
        began = time.perf_counter()
        try:
            inputs = {argument: self.done[before].artifact for argument, before in step.inputs.items()}
            key = step_key(step, inputs)
            with self.recording.watching(step, self.store.lookup(key)) as watched:
                self.given.started.append(name)
                done = run_step(step, inputs, key=key, scope=self.experiment.name)
        except BaseException:
            listener.failed(name)
            raise
        took = time.perf_counter() - began
        record = self.recording.end(watched, done, self.store)
        self.done[name] = Done(done.artifact, done.cached, record, done.task_run_id)
        cached = "cached" if done.cached else "computed"
        self.told.append({"name": name, "state": cached, "seconds": round(took, 3), "artifact": record.digest})
        listener.done(name, cached=done.cached, took=took)

    def conclude(self) -> dict[str, Any]:
        """Record the results, register the model, write summary and report, show them; return the summary."""
        artifacts = {name: done.artifact for name, done in self.done.items()}
        evaluated = self.store.open(artifacts["evaluate"])
        evaluation = read_json(evaluated / "evaluation.json")
        report = self.store.open(artifacts["report"]) / "report.html"
        told = self.store.open(artifacts["transfer"]) / "transfer.json" if "transfer" in artifacts else None
        transfer = read_json(told) if told else None
        self.recording.transfer(transfer)
        sent = self._record(artifacts, (report, evaluated / "evaluation.json", *([told] if told else [])), evaluation)
        records = {name: done.record for name, done in self.done.items()}
        found = summary.build(
            self.experiment,
            steps=self.told,
            records=records,
            evaluation=evaluation,
            transfer=transfer,
            base_model=summary.base_choice(self.store, artifacts, records),
            rejected=summary.rejected_rows(self.store, artifacts),
            facts={**self._facts(), **self._mlflow_facts(sent)},
        )
        html = report.read_text(encoding="utf8")
        page = sent.urls.get(tracking.RUN) if sent else None
        facts = summary.report_facts(found, run_name=self.name, flow_run_url=self.page, mlflow_run_url=page)
        summary.write_report(self.experiment.name, html, facts)
        summary.write(found)
        self.given.results.append(found)
        self._show(found, html, sent)
        return found

    def _record(
        self, artifacts: dict[str, Artifact], files: tuple[Path, ...], evaluation: dict[str, Any]
    ) -> Sent | None:
        """Tell MLflow the results, and send all."""
        self.recording.results(evaluation)
        self.recording.files(*files)
        if "split" in artifacts:
            rows = read_json(self.store.open(artifacts["split"]) / "splits.json")["rows"]
            self.recording.data(self.experiment.name, artifacts["split"].digest, rows)
        if "register" in artifacts:
            packed = artifacts["register"]
            self.recording.register(self.experiment, self.store.open(packed), packed.digest, evaluation)
        states = [step["state"] for step in self.told]
        counts = {f"steps_{state}": states.count(state) for state in ("computed", "cached")}
        with no_garbage_collection():  # imports MLflow
            return self.recording.finish("FINISHED", {**counts, **self._used()})

    def _used(self) -> dict[str, float]:
        """Return what this run took: its seconds, and the energy and carbon of what it computed."""
        figures = {"seconds": time.perf_counter() - self.started}
        for name in ("energy_kwh", "carbon_kg"):
            spent = [
                done.record.metrics[name]
                for done in self.done.values()
                if not done.cached and name in done.record.metrics
            ]
            figures |= {name: sum(spent)} if spent else {}
        return figures

    def _facts(self) -> dict[str, Any]:
        return {
            "flow_run_id": str(self.flow_run_id),
            "report": str(summary.report_path(self.experiment.name)),
            "source": self.source,
            "overrides": self.overrides,
            **self._used(),
        }

    def _mlflow_facts(self, sent: Sent | None) -> dict[str, Any]:
        return {
            "mlflow_run_id": sent.run_id if sent else None,
            "mlflow_run_ids": self.recording.run_ids(sent),
            "model_uri": sent.model_uri if sent else None,
        }

    def _show(self, found: dict[str, Any], html: str, sent: Sent | None) -> None:
        with self.board.trying():
            self.board.leaderboard(found)
            self.board.report(found, html)
            if sent and sent.urls:
                self.board.link("mlflow", sent.urls[tracking.RUN], "The run in MLflow")
            for step, url in self.recording.urls(sent).items():
                self.board.link(f"mlflow-{step}", url, f"{step} in MLflow", task_run_id=self.done[step].task_run_id)


# -- calling it --------------------------------------------------------------------------------------------


@contextmanager
def settings(api: str) -> Iterator[None]:
    """Let Prefect use this API while the context is open.

    No heartbeat: joining its thread costs every flow most of a second. And few tries for each event: by default
    a server that is gone costs 8 s an event, at the end of the process too.
    """
    EventsWorker.set_client_override(PrefectEventsClient, api_url=api, reconnection_attempts=RETRIES)
    try:
        with temporary_settings({PREFECT_API_URL: api, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield
    finally:
        EventsWorker.set_client_override(None)


def call(params: str | dict[str, Any], overrides: list[str], given: Handed) -> dict[str, Any]:
    """Call the flow; return its summary, or raise what it raised.

    Args:
        params: As the flow takes it.
        overrides: Likewise.
        given: What goes beside them; its server is about to be stopped, unless it has pages.

    Raises:
        FtlibError: As a step raised it; or if the Prefect server went away before the run was done.
    """
    token = handed.set(given)
    try:
        final = hybrid_finetune(params, overrides, return_state=True)
        if not given.has_pages and final.state_details.flow_run_id is not None:
            _wait_for_records(final.state_details.flow_run_id, len(given.started))
        is_here = final.is_completed() and given.results  # a server that answers late gives the state without it
        result: dict[str, Any] = given.results[-1] if is_here else final.result()
    except httpx.TransportError as error:
        if given.results:
            logger.warning("The Prefect server is gone (%s). The run is complete all the same.", error)
        _forget_unsent()
        _drain(GONE_SECONDS)
        if given.results:
            return given.results[-1]
        if given.errors:
            raise given.errors[-1] from None
        raise FtlibError(f"the Prefect server is gone ({error}); finished steps are kept. Run again.") from error
    finally:
        given.ending.close()
        handed.reset(token)
        if not given.has_pages:  # what is still to be sent would be tried at the end of the process, in vain
            _drain(RECORD_SECONDS)
    return result


def _drain(patience: float) -> None:
    """Let what Prefect has not sent yet be sent, or be given up where the server is gone."""
    EventsWorker.drain_all(timeout=patience)
    APILogWorker.drain_all(timeout=patience)


def _forget_unsent() -> None:
    """Drop what waits for a server that is gone: at its end the process would offer it all, 14 s an item."""
    services: tuple[Any, ...] = (EventsWorker, APILogWorker)
    for service in services:
        for instance in tuple(service._instances.values()):
            with instance._queue.mutex:
                instance._queue.queue.clear()


def _wait_for_records(flow_run_id: Any, expected: int) -> None:
    """Wait until the server has the final state of every task run; they reach it as events, behind the flow."""
    EventsWorker.drain_all(timeout=RECORD_SECONDS)
    final = TaskRunFilterStateType(any_=[StateType.COMPLETED, StateType.FAILED, StateType.CRASHED])
    deadline = time.monotonic() + RECORD_SECONDS
    recorded = 0
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=final)),
            )
            recorded = len(runs)
            if recorded >= expected:
                return
            time.sleep(0.1)
    logger.warning("Prefect has recorded %d of %d task runs; the store has them all.", recorded, expected)


def _page(flow_run_id: Any) -> str | None:
    api = get_current_settings().api.url
    return f"{servers.prefect_ui(api)}/runs/flow-run/{flow_run_id}" if api else None
