"""Run an experiment from here: prepare the surroundings, choose a Prefect server, call the flow.

Prefect is imported within `run_experiment` only, beside the start of a temporary server where one is needed.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flows import servers
from ftlib import progress, state
from ftlib.params.experiment import Experiment
from ftlib.progress import Progress


class Listener(Protocol):
    """Who hears how a run goes, such as the terminal's display."""

    def begin(self, step: str) -> None:
        """A step begins."""

    def progress(self, event: Progress) -> None:
        """A step has come further."""

    def done(self, step: str, *, cached: bool, took: float | None = None) -> None:
        """A step is done: computed, or found computed."""

    def failed(self, step: str) -> None:
        """A step has failed."""


class Silent:
    """Hears, and says nothing."""

    def begin(self, step: str) -> None:
        """Say nothing."""

    def progress(self, event: Progress) -> None:
        """Say nothing."""

    def done(self, step: str, *, cached: bool, took: float | None = None) -> None:
        """Say nothing."""

    def failed(self, step: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Handed:
    """What `run_experiment` hands to the flow beside its parameters: Prefect keeps only what is plain.

    Attributes:
        experiment: The experiment, read and checked.
        listener: Who hears how it goes.
        has_pages: Whether the Prefect server stays, so that links to its pages hold.
        started: The steps that were given to Prefect, as the flow fills it.
        results: The run's summary, once there is one.
        errors: What the run failed by.
        ending: What is to hold until the flow has ended, after its function has.
    """

    experiment: Experiment
    listener: Listener
    has_pages: bool
    started: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    ending: ExitStack = field(default_factory=ExitStack)


handed: ContextVar[Handed | None] = ContextVar("handed", default=None)
"""What this process's `run_experiment` handed over; None in a worker."""


def run_experiment(
    experiment: Experiment,
    *,
    source: Path | str | None = None,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Run an experiment in this process, as a recorded flow run; return its summary.

    The Prefect server is the one that PREFECT_API_URL names, else the one of `ftlib up`, else a temporary one.

    Args:
        experiment: What to run.
        source: The params file that it was read from; Prefect shows it. The parameters themselves otherwise.
        overrides: The changes that were made on top.
        listener: Who hears how the run goes.

    Raises:
        FtlibError: As a step raised it; every step that was finished is kept.
    """
    state.prepare_environment()
    for name, value in PREFECT.items():
        os.environ.setdefault(name, value)
    params = str(Path(source).absolute()) if source else experiment.model_dump(mode="json")
    with ExitStack() as stack:
        api = servers.prefect_api()
        temporary = None if api else stack.enter_context(servers.TemporaryServer())
        with no_garbage_collection():
            from flows import hybrid_finetune as prefect_side  # imports Prefect while the server starts

        stack.enter_context(_quiet_prefect(state.home() / "logs" / "prefect-runs.log"))
        stack.enter_context(prefect_side.settings(api or (temporary.wait() if temporary else "")))
        given = Handed(experiment, listener or Silent(), has_pages=temporary is None)
        stack.enter_context(progress.listen(given.listener.progress))
        return prefect_side.call(params, list(overrides), given)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage meanwhile, and never walk through what is there afterwards.

    Importing Prefect and MLflow makes a million objects that last: walking through them again and again, and once
    more when the process ends, is a third of what a run costs that finds every step cached.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


atexit.register(gc.freeze)

PREFECT = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "ftlib,flows,tasks",  # what they say is shown on the run's page
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s for a call to a server that is gone, instead of 75 s
}
"""How runs from here differ from Prefect's defaults, unless the user's environment says otherwise."""


@contextmanager
def _quiet_prefect(log: Path) -> Iterator[None]:
    """Write what Prefect says of its runs to a file instead of the terminal; errors reach the user as errors."""
    handler = logging.FileHandler(log, encoding="utf8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    raising, logging.raiseExceptions = logging.raiseExceptions, False  # no word of logs that the server did not take
    try:
        with _redirected("prefect", handler, logging.INFO), _redirected("prefect._internal", handler, logging.ERROR):
            yield
    finally:
        logging.raiseExceptions = raising
        handler.close()


@contextmanager
def _redirected(name: str, handler: logging.Handler, level: int) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.handlers[:], logger.propagate, logger.level
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before[0], before[1]
        logger.setLevel(before[2])
