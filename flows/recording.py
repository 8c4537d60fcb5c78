"""What MLflow is told of a flow run: a parent run, and a child for each stage, fusion and evaluation.

Written to the local journal as things happen, and sent at the end, or earlier for those who watch a long run.
Cached steps are told too, with the figures of the run that computed them, so that no comparison has holes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import servers
from ftlib import state, tracking
from ftlib.artifacts import KeyRecord, Store
from ftlib.energy import Meter
from ftlib.files import read_json
from ftlib.params.experiment import Experiment
from ftlib.steps import Step
from ftlib.tracking import Journal, Sent
from tasks.base import Done

KINDS = {"choose": "base model", "train": "stage", "fuse": "fusion", "evaluate": "evaluation"}
"""Kind of step -> kind of child run; other steps have none."""

REFERENCE = "mlflow_run"
"""Where a key's record remembers the run that computed it."""

SEND_SECONDS = 30.0
"""After so long without sending, a finished stage is sent at once, for those who watch."""


@dataclass
class Watched:
    """A step that is being recorded.

    Attributes:
        step: The step.
        known: Its key's record, where an earlier run computed it.
        child: Its child run, where it has one.
        figures: What measuring it gave: energy, memory, processor.
    """

    step: Step
    known: KeyRecord | None
    child: str | None
    figures: dict[str, float] = field(default_factory=dict)


class Recording:
    """The record of one flow run.

    Args:
        experiment: What is run.
        run_name: What the run is called.
        tags: The run's tags: the Prefect flow run's id and address.
    """

    def __init__(self, experiment: Experiment, *, run_name: str, tags: Mapping[str, str]) -> None:
        settings = experiment.tracking
        self._children: dict[str, str] = {}
        self._meter = Meter(country=settings.country, energy=settings.energy)
        self._sent_at = time.monotonic()
        self._journal = Journal.start(
            state.home(),
            experiment=settings.experiment or experiment.name,
            run_name=run_name,
            params=experiment.model_dump(mode="json", exclude={"name", "tracking", "tuning"}),
            tags={**tags, "experiment": experiment.name},
        )

    # -- steps -------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, step: Step, known: KeyRecord | None) -> Iterator[Watched]:
        """Record the step that runs while the context is open; measure it, unless an earlier run computed it.

        Args:
            step: What runs.
            known: Its key's record, where it was computed before.
        """
        watched = Watched(step, known, self._begin(step, known))
        try:
            if known is not None:
                yield watched
                return
            with self._meter.measure(self._sampler(watched)) as watched.figures:
                yield watched
        except BaseException:
            if watched.child is not None:
                self._journal.finish(watched.child, "FAILED")
            raise

    def _begin(self, step: Step, known: KeyRecord | None) -> str | None:
        kind = KINDS.get(step.kind())
        if kind is None:
            return None
        child = self._journal.child(
            step.step_name,
            kind=kind,
            params=step.parameters(),
            cached=known is not None,
            source_run=known.details.get(REFERENCE) if known else None,
            metrics=known.metrics if known else None,
            artifact=known.digest if known else None,
        )
        self._children[step.step_name] = child
        return child

    def _sampler(self, watched: Watched) -> Any:
        if watched.child is None or KINDS[watched.step.kind()] != "stage":
            return None
        return lambda number, figures: self._journal.metrics(watched.child, number, figures)

    def end(self, watched: Watched, done: Done, store: Store) -> KeyRecord:
        """Record how a step ended, and return its key's record with what was measured."""
        record = done.record if done.cached else self._remember(watched, done.record, store)
        if watched.child is not None:
            self._end(watched, record, store.open(record.digest), done)
        return record

    def _remember(self, watched: Watched, record: KeyRecord, store: Store) -> KeyRecord:
        """Keep figures and reference with the key, for the runs that will take the step from the cache."""
        details = {REFERENCE: self._journal.reference(watched.child)}
        update = {"metrics": {**record.metrics, **watched.figures}, "details": {**record.details, **details}}
        record = record.model_copy(update=update)
        store.remember(record)
        return record

    def _end(self, watched: Watched, record: KeyRecord, folder: Path, done: Done) -> None:
        journal, child = self._journal, watched.child
        tags = {"artifact": record.digest, "prefect.task_run_id": str(done.task_run_id), "key": record.key}
        journal.tags(child, {**tags, "cached": "true"} if done.cached else tags)
        if watched.known is None:
            journal.metrics(child, None, record.metrics)
        if (folder / "history.json").is_file():
            journal.history(child, read_json(folder / "history.json"))
        journal.finish(child)
        if not done.cached and time.monotonic() - self._sent_at > SEND_SECONDS:
            tracking.send(journal)
            self._sent_at = time.monotonic()

    # -- results -----------------------------------------------------------------------------------

    def data(self, name: str, digest: str, rows: Mapping[str, int]) -> None:
        """Record which rows the run read.

        Args:
            name: The experiment's name.
            digest: The digest of the split artifact.
            rows: Split -> number of rows.
        """
        contexts = {"train": "training", "fusion": "fusion", "validation": "validation", "test": "test"}
        for split, count in rows.items():
            self._journal.log_data(None, f"{name}/{split}", digest, context=contexts.get(split, split), rows=count)

    def results(self, evaluation: Mapping[str, Any]) -> None:
        """Record every member's and fusion's figures with its child, and the best one's with the run."""
        for prefix, group in (("train", "members"), ("fuse", "fusions")):
            for entry in evaluation[group]:
                child = self._children.get(f"{prefix}-{entry['name']}")
                if child is not None:
                    self._journal.metrics(child, None, _figures(entry))
        best = next(
            e for e in (*evaluation["members"], *evaluation["fusions"]) if e["name"] == evaluation["best"]["name"]
        )
        self._journal.metrics(None, None, _figures(best))
        self._journal.metrics(self._children.get("evaluate"), None, _figures(best))
        self._journal.tags(None, {"best": best["name"], "best_kind": evaluation["best"]["kind"]})

    def transfer(self, found: Mapping[str, Any] | None) -> None:
        """Record every stage's figures on every task with its child, and what lines of stages kept with the run."""
        for entry in found["scores"] if found else ():
            child = self._children.get(f"train-{entry['stage']}")
            figures = {f"test_{entry['task']}_{name}": value for name, value in entry["metrics"].items()}
            self._journal.metrics(child, None, figures)
        for line in found["lines"] if found else ():
            child = self._children.get(f"train-{line['stages'][-1]}")
            kept = {name: line[name] for name in ("backward_transfer", "forgetting", "forward_transfer")}
            self._journal.metrics(child, None, {name: v for name, v in kept.items() if v is not None})

    def files(self, *paths: Path) -> None:
        """Record files that are to lie with the run."""
        for path in paths:
            self._journal.log_file(None, path)

    def register(self, experiment: Experiment, folder: Path, digest: str, evaluation: Mapping[str, Any]) -> None:
        """Record that the packed model is to be registered; sending does it."""
        best = evaluation["best"]
        self._journal.register(
            folder,
            digest=digest,
            name=experiment.registration.model_name or experiment.name,
            alias=experiment.registration.alias,
            metrics={f"{split}_{best['metric']}": best[split] for split in ("validation", "test")},
            tags={"experiment": experiment.name, "best": best["name"]},
        )

    # -- the end -----------------------------------------------------------------------------------

    def finish(self, status: str, figures: Mapping[str, float] | None = None) -> Sent | None:
        """End the record and send it; None where MLflow did not take it, which a later run makes up for."""
        if figures:
            self._journal.metrics(None, None, figures)
        self._journal.finish(None, status)  # type: ignore[arg-type]
        return tracking.send(self._journal, ui=servers.mlflow_ui())

    def stop(self) -> None:
        """End the record of a run that somebody stopped; they do not wait for MLflow, the next run sends it."""
        self._journal.finish(None, "KILLED")
        self._journal.close()

    def run_ids(self, sent: Sent | None) -> dict[str, str]:
        """Return step -> MLflow run id."""
        return {} if sent is None else _by_step(self._children, sent.run_ids)

    def urls(self, sent: Sent | None) -> dict[str, str]:
        """Return step -> its page in MLflow, where there is a server."""
        return {} if sent is None else _by_step(self._children, sent.urls)


def _by_step(children: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    return {step: found[child] for step, child in children.items() if child in found}


def _figures(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return a member's or fusion's figures under flat names: test_accuracy, gain..."""
    split = {f"{s}_{name}": v for s, metrics in entry["metrics"].items() for name, v in metrics.items()}
    names = ("gain", "p_value_against_best_member", "inference_cost", "inference_cost_ratio", "num_parameters")
    return {**split, **{name: entry[name] for name in names if entry.get(name) is not None}}
