"""The MLflow store: whether it answers, a client of it, its experiments, and what it takes for names."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import socket
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ftlib import state
from ftlib.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE_SECONDS = 3.0
"""How long a server or database may take to say that it is there."""

WRITER_SECONDS = 30.0
"""How long to wait for another process of ours that writes to the same SQLite file."""

MAX_PARAM = 6000
"""MLflow cuts longer values."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Says that our experiments hold training runs, not traces of language models. MLflow's pages went by it until they
got a switch in the side bar; since then a page's address decides, see `run_page`."""

VIEW = "workflowType=machine_learning"
"""What an address ends in to open MLflow's view for model training; its own choice is the one for language models."""

ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "300",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""What holds while mlflow is at work for us. Its own default waits 246 s for a server that is gone."""


@contextmanager
def connected() -> Iterator[tuple[str, MlflowClient]]:
    """Give the tracking URI and a client, quiet and patient for seconds only.

    A SQLite store is opened by one of our processes at a time: two on a cold database would crash.

    Raises:
        TrackingError: If the store does not answer.
    """
    uri = state.tracking_uri()
    probe(uri)
    with _quiet(uri), _exclusive(uri):
        yield uri, _client(uri)


def initialise() -> None:
    """Make the store ready. Call it before starting an MLflow server on the same database.

    Raises:
        TrackingError: If the store does not answer.
    """
    with connected():
        pass


@cache
def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    client = MlflowClient(uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # opens the store: a cold database is made here
    return client


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """Return the experiment's id; made if need be, brought back if somebody deleted it."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        folder = state.home() / "mlflow" / "artifacts" / re.sub(r"[^\w-]", "_", name)
        location = folder.as_uri() if uri.startswith("sqlite:") else None  # a server decides for itself
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was quicker
    if experiment is None:
        raise TrackingError(f"experiment {name!r} can be neither found nor made.")
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def run_page(experiment: str, run_id: str, server: str = "") -> str:
    """Return the address of a run's page, in the view for model training.

    Args:
        experiment: The experiment's id.
        run_id: The run's.
        server: Where MLflow's pages are; without, the address holds within them only.
    """
    return f"{server.rstrip('/')}{'/' if server else ''}#/experiments/{experiment}/runs/{run_id}?{VIEW}"


# -- does it answer? -----------------------------------------------------------------------------------


def probe(uri: str) -> None:
    """Find out in a few seconds whether the store answers, before mlflow is imported.

    Raises:
        TrackingError: If it does not.
    """
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        _probe_sqlite(Path(uri.removeprefix("sqlite:///")))
    elif parts.scheme in ("http", "https"):
        _within(PATIENCE_SECONDS, uri, lambda: _ask_http(uri))
    elif parts.hostname and parts.port:
        address = (parts.hostname, parts.port)
        _within(PATIENCE_SECONDS, uri, lambda: socket.create_connection(address, PATIENCE_SECONDS).close())


def _probe_sqlite(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists():
            with closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(f"{path}: {error}.") from None


def _ask_http(uri: str) -> None:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        urlopen(f"{uri.rstrip('/')}/health", timeout=PATIENCE_SECONDS).close()
    except HTTPError as error:  # an answer all the same, such as from a proxy that wants to know who asks
        error.close()


def _within(seconds: float, uri: str, ask: Callable[[], None]) -> None:
    """Run `ask`, and wait no longer than this: looking up a host's name knows no time limit."""
    trouble: list[object] = ["no answer"]

    def run() -> None:
        try:
            ask()
            trouble.clear()
        except (OSError, ValueError) as error:
            trouble[0] = getattr(error, "reason", error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds + 0.5)
    if trouble:
        raise TrackingError(f"{uri} cannot be reached ({trouble[0]}); check MLFLOW_TRACKING_URI, or that it runs.")


# -- one at a time, and without noise ------------------------------------------------------------------


class Lock:
    """A file's lock; it ends with `close`, with the object, or with the process, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """Take a file's lock; None where somebody has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def close(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


@contextmanager
def _exclusive(uri: str) -> Iterator[None]:
    if not uri.startswith("sqlite:"):
        yield
        return
    path = state.home() / "mlflow" / "writer.lock"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + WRITER_SECONDS
    while (lock := Lock.take(path)) is None:
        if time.monotonic() > deadline:
            raise TrackingError(f"another process has been writing to {uri} for {WRITER_SECONDS:.0f} s.")
        time.sleep(0.05)
    with closing(lock):
        yield


@contextmanager
def _quiet(uri: str) -> Iterator[None]:
    # The registry makes clients of its own, which look into the environment (and else into the current folder).
    settings = {**ENVIRONMENT, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    kept = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow  # noqa: F401  # sets its loggers' levels when imported

            with _silenced("mlflow", "alembic"):
                yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# -- what MLflow takes ---------------------------------------------------------------------------------


def metric_name(name: str) -> str:
    """Return a name that MLflow takes: it refuses ``@ ( ) [ ]`` and more, and paths that go up."""
    return (re.sub(r"[^\w\-./: ]", "_", str(name)).strip("/. ").replace("..", "_") or "_")[:250]


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as MLflow takes them."""
    return {metric_name(k): _text(v)[:5000] for k, v in values.items() if v is not None}


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Return nested parameters as one level of texts, named as ``--set`` names them: ``stages.0.strategy.r``."""
    if isinstance(values, Mapping):
        items: Any = values.items()
    elif isinstance(values, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in values):
        items = enumerate(values)
    else:
        return {metric_name(prefix): _text(values)} if prefix else {}
    dot = f"{prefix}." if prefix else ""
    return {key: text for name, value in items for key, text in flat(value, f"{dot}{name}").items()}


def cut(value: str) -> str:
    """Return a parameter's text, cut where it is too long for MLflow; the whole goes into a file."""
    if len(value) <= MAX_PARAM:
        return value
    note = f"... ({len(value):,} characters; the whole is in params/)"
    return value[: MAX_PARAM - len(note)] + note


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
