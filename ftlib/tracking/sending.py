"""Sending: what a journal holds and MLflow has not, in as few calls as it takes."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import TrackingError
from ftlib.tracking.journal import RUN, Event, Journal, journals
from ftlib.tracking.registry import Registered, carry_out
from ftlib.tracking.store import MAX_PARAM, connected, cut, experiment_id, flat, metric_name, run_page, texts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

BUDGET_SECONDS = 60.0
"""How long one `send` may take; what is left is sent by the next."""

PAUSE_SECONDS = 300.0
"""After a failure, how long a run that goes on is not sent: what a dead server costs has a bound."""

PENDING_SECONDS = 20.0
"""How long sending older runs may hold up a new one."""

METRICS_A_CALL, PARAMS_A_CALL = 800, 100
"""MLflow takes 1,000 values in one call, and 100 of them parameters, or tags."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """What MLflow knows of a run.

    Attributes:
        experiment_id: MLflow's id of the experiment.
        run_ids: Local id ("run" is the parent) -> MLflow run id.
        urls: Local id -> the run's page; empty where no MLflow server is known.
        model_uri: The registered model, ``models:/name@alias``, where one was.
        model_version: Its version.
    """

    experiment_id: str
    run_ids: dict[str, str]
    urls: dict[str, str] = field(default_factory=dict)
    model_uri: str | None = None
    model_version: str | None = None

    @property
    def run_id(self) -> str:
        """The parent run's MLflow id."""
        return self.run_ids[RUN]


def send(journal: Journal, *, ui: str | None = None, budget_seconds: float = BUDGET_SECONDS) -> Sent | None:
    """Send what MLflow has not got yet. On any trouble: one warning, and the record is kept for later.

    Args:
        journal: The run's record, finished or not.
        ui: Address of an MLflow page that shows the store, where the tracking URI is not itself one.
        budget_seconds: What a slow server may cost. After a failure a run that goes on is left alone for
            `PAUSE_SECONDS`; a finished one is tried at once.
    """
    return _tolerant(journal, ui, budget_seconds)[0]


def send_pending(home: Path, *, budget_seconds: float = PENDING_SECONDS) -> int:
    """Send what earlier runs could not, and end those that were killed. Return how many were sent.

    Stops at the first one for which MLflow does not answer: it would not for the others.
    """
    deadline = time.monotonic() + budget_seconds
    done = 0
    for path in journals(home):
        journal = _reopened(path) if time.monotonic() < deadline else None
        if journal is None:
            continue
        sent, answered = _tolerant(journal, None, deadline - time.monotonic())
        journal.close()
        done += sent is not None
        if not answered:
            break
    return done


def _reopened(path: Path) -> Journal | None:
    try:
        return Journal.reopen(path)
    except OSError as error:
        logger.warning("%s: %s. It is left for the next run.", path, error.strerror)
        return None


def _tolerant(journal: Journal, ui: str | None, budget_seconds: float) -> tuple[Sent | None, bool]:
    """Return what was sent, and whether MLflow answered at all."""
    if not journal.finished and time.monotonic() - journal.failed_at < PAUSE_SECONDS:
        return None, False
    try:
        with journal.sending() as free:
            return (_send(journal, ui, time.monotonic() + budget_seconds) if free else None), True
    except Exception as error:  # whatever MLflow, its database or its server raise: training goes on
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        answered = not isinstance(error, TrackingError)
        journal.failed_at = time.monotonic()
        journal.next_line = None  # what arrived is not known: MLflow itself will say
        if answered and journal.failed():
            logger.warning("MLflow: %s The run's record is set aside as %s.", reason, journal.path)
        else:
            logger.warning("MLflow: %s The run's record is kept as %s; the next run sends it.", reason, journal.path)
        return None, answered


def _send(journal: Journal, ui: str | None, deadline: float) -> Sent | None:
    if journal.sent is not None and not journal.read(journal.next_line or 0)[0]:
        return journal.sent
    first = journal.read(0)[0][:1]
    if not first or first[0]["event"] != "started":
        journal.archive()  # a crash left not one line
        return None
    with connected() as (uri, client):
        start = _resume(client, journal)
        events, num_lines = journal.read(start)
        told, registrations = _fold(events)
        experiment = experiment_id(client, first[0]["experiment"], uri)
        journal.advance(start)
        sender = _Sender(client, journal, experiment, deadline)
        for run, news in told.items():
            sender.send(run, news)
        for event in registrations:
            journal.registered = carry_out(client, experiment, event, journal.run_ids.get(RUN))
        sender.end({run: news.finished for run, news in told.items() if news.finished})
        journal.advance(num_lines)
    if RUN in told and told[RUN].finished:
        journal.archive()
    journal.sent = _what_is_known(journal, experiment, uri if uri.startswith("http") else ui)
    return journal.sent


def _what_is_known(journal: Journal, experiment: str, page: str | None) -> Sent:
    run_ids = dict(journal.run_ids)
    urls = {run: run_page(experiment, run_id, page) for run, run_id in run_ids.items()} if page else {}
    model: Registered | None = journal.registered
    return Sent(experiment, run_ids, urls, model.uri if model else None, model.version if model else None)


def _resume(client: MlflowClient, journal: Journal) -> int:
    """Return the first line to send. What another process began to send is looked up in MLflow itself."""
    if journal.next_line is not None:
        return journal.next_line
    lines = journal.cursor()
    if lines is None:
        return 0
    found = _runs_of(client, journal.id)
    journal.run_ids = found if RUN in found else {}
    return lines if RUN in found else 0


def _runs_of(client: MlflowClient, journal_id: str) -> dict[str, str]:
    """Return local id -> run id for the runs that a journal has in MLflow."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`ftlib.journal` = '{journal_id}'", max_results=1000)
    return {run.data.tags["ftlib.run"].rpartition("/")[2]: run.info.run_id for run in found}


@dataclass
class _News:
    """What MLflow has not been told yet of one run."""

    started: Event | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    files: list[Event] = field(default_factory=list)
    data: list[Event] = field(default_factory=list)
    finished: Event | None = None


def _fold(events: list[Event]) -> tuple[dict[str, _News], list[Event]]:
    """Gather events by run, parents first, so that each run costs few calls; and the registrations."""
    told: dict[str, _News] = {}
    registrations = []
    for event in events:
        if event["event"] == "register":
            registrations.append(event)
            continue
        news = told.setdefault(event["run"], _News())
        match event["event"]:
            case "started":
                news.started = event
                news.params |= flat(event.get("params", {}))
            case "params":
                news.params |= flat(event["values"])
            case "tags":
                news.tags |= texts(event["values"])
            case "metrics":
                at = event["at"]
                news.metrics += [(metric_name(k), v, step, at) for step, row in event["rows"] for k, v in row.items()]
            case "file":
                news.files.append(event)
            case "data":
                news.data.append(event)
            case "finished":
                news.finished = event
    return told, registrations


class _Sender:
    """Sends the news of one journal's runs, in as few calls as it takes."""

    def __init__(self, client: MlflowClient, journal: Journal, experiment_id: str, deadline: float) -> None:
        self.client = client
        self.journal = journal
        self.experiment_id = experiment_id
        self.deadline = deadline
        self._sources: dict[str, dict[str, str]] = {}

    def send(self, run: str, news: _News) -> None:
        """Create the run if need be, and tell MLflow what is new."""
        if time.monotonic() > self.deadline:
            raise TrackingError("answers too slowly.")
        if run not in self.journal.run_ids:
            if news.started is None:  # its first line was torn: there is nothing to hang the rest on
                return
            self.journal.run_ids[run] = self._create(run, news)
            news.tags = {}
        run_id = self.journal.run_ids[run]
        self._log(run_id, news)
        if news.data:
            self.client.log_inputs(run_id, datasets=[_dataset(event) for event in news.data])
        for event in news.files:
            self._file(run_id, event)

    def end(self, finished: dict[str, Event]) -> None:
        """End the runs that have ended, the parent last; children that have not said how end with it."""
        parent = finished.pop(RUN, None)
        if parent is not None:
            ended = {e["run"] for e in self.journal.read(0)[0] if e["event"] == "finished"}
            finished |= {run: parent for run in self.journal.run_ids if run not in ended} | {RUN: parent}
        for run, event in finished.items():
            if run in self.journal.run_ids:
                self.client.set_terminated(self.journal.run_ids[run], event["status"], event["at"])

    def _create(self, run: str, news: _News) -> str:
        started = news.started or {}
        tags = {**texts(started.get("tags", {})), **news.tags, **self._own_tags(run, started)}
        created = self.client.create_run(
            self.experiment_id, start_time=started["at"], tags=tags, run_name=started["name"][:250]
        )
        return str(created.info.run_id)

    def _own_tags(self, run: str, started: Event) -> dict[str, str]:
        tags = {
            "kind": started["kind"],
            "ftlib.journal": self.journal.id,
            "ftlib.run": self.journal.reference(run),
            "mlflow.source.name": "ftlib",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": os.environ.get("USER") or "ftlib",
        }
        if run != RUN and RUN in self.journal.run_ids:
            tags["mlflow.parentRunId"] = self.journal.run_ids[RUN]
        if "artifact" in started:
            tags["artifact"] = started["artifact"]
        if started.get("cached"):
            tags |= {"cached": "true", **self._source_tags(started.get("source_run"))}
        url = started.get("tags", {}).get("prefect.flow_run_url")
        if url:
            tags["mlflow.note.content"] = f"[Prefect flow run]({url})"
        return tags

    def _source_tags(self, source: str | None) -> dict[str, str]:
        """Return the link from a cached child to the run that computed it."""
        if source is None:
            return {"mlflow.note.content": "Taken from the cache."}
        journal_id, slash, run = source.rpartition("/")
        if slash and journal_id not in self._sources:
            own = journal_id == self.journal.id
            self._sources[journal_id] = self.journal.run_ids if own else _runs_of(self.client, journal_id)
        run_id = self._sources[journal_id].get(run) if slash else source
        if run_id is None:
            return {"source_run": source, "mlflow.note.content": "Taken from the cache."}
        note = f"Taken from the cache. [The run that computed it]({run_page(self.experiment_id, run_id)})"
        return {"source_run_id": run_id, "mlflow.note.content": note}

    def _log(self, run_id: str, news: _News) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics: list[Metric] = [Metric(key, value, at, step) for key, value, step, at in news.metrics]
        params: list[Param] = [Param(key, cut(value)) for key, value in news.params.items()]
        tags = [RunTag(key, value) for key, value in news.tags.items()]
        m, p = METRICS_A_CALL, PARAMS_A_CALL
        for i in range(max(-(-len(metrics) // m), -(-len(params) // p), -(-len(tags) // p))):
            metrics_now, params_now, tags_now = metrics[i * m :][:m], params[i * p :][:p], tags[i * p :][:p]
            self._batch(run_id, metrics=metrics_now, params=params_now, tags=tags_now)
        for key, value in news.params.items():
            if len(value) > MAX_PARAM:
                self.client.log_text(run_id, value, f"params/{key}.txt")

    def _batch(self, run_id: str, **batch: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(run_id, synchronous=True, **batch)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            # Sending it again would be refused again: say so once, and go on with the rest.
            logger.warning("MLflow refused values of run %s: %s", run_id, " ".join(str(error).split())[:300])

    def _file(self, run_id: str, event: Event) -> None:
        path, folder = Path(event["path"]), event.get("artifact_path")
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        elif path.exists():
            self.client.log_artifact(run_id, str(path), folder)
        else:
            logger.warning("MLflow: %s is gone; its run goes without it.", path)


def _dataset(event: Event) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"num_rows": event["rows"]}) if "rows" in event else None
    source = json.dumps({"artifact": event["digest"]})
    dataset = Dataset(event["name"][:500], event["digest"][:36], "ftlib", source, None, profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", event["context"])])
