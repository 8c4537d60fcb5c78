"""The search: prepares it, gives out trials, hears what they come to, and writes down what was found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.tuning import jobs, trial
from flows.tuning.display import Display
from flows.tuning.record import Record
from flows.tuning.trial import Result, Work
from ftlib import state
from ftlib.artifacts import Store
from ftlib.errors import FtlibError, ParamsError
from ftlib.params import searching
from ftlib.params.documents import Document
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment
from ftlib.progress import Progress
from ftlib.steps import digest_json, executed, own_components
from ftlib.tuning.best import laid_in
from ftlib.tuning.page import Found, page, sentences
from ftlib.tuning.study import Search, Study, Trial, by_score

FAILURES = 3
"""After so many trials that all failed, the rest would fail, too."""

Summary = dict[str, Any]


class Plan:
    """A search before it begins.

    Args:
        document: The params, changes on top included.
        experiment: What they say.
        num_trials: How many trials in all; the params' own number unless given.

    Attributes:
        search: What is searched.
        digest: Of all that shapes a trial's score: the same search has the same one.
        metric: What trials are judged by.

    Raises:
        ParamsError: If the params do not say what to search.
    """

    def __init__(self, document: Document, experiment: Experiment, num_trials: int | None = None) -> None:
        settings = experiment.tuning
        if settings is None:
            example = "tuning: {space: {stages.0.training.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}}"
            remedy = f"Add one, such as {example}; `ftlib show tuning` tells what it takes."
            raise ParamsError(f"{document.label}: has no tuning section, so nothing is said to be searched. {remedy}")
        space = searching.dimensions(experiment, document)
        variants = searching.variants(document, space, load_experiment)
        self.experiment = experiment
        self.params = {key: value for key, value in document.value.items() if key != "tuning"}
        self.metric = trial.metric(experiment)
        self.scope = f"{experiment.name}.tuning"
        self.most_passes = trial.most_passes([experiment, *(e for found in variants.values() for _, e in found)])
        self.digest = _digest(experiment)
        self.search = Search(
            name=f"{experiment.name}-{self.digest[:8]}",
            space=space,
            settings=settings,
            num_trials=num_trials or settings.num_trials,
            higher_is_better=trial.higher_is_better(experiment),
            seed=experiment.seed_of("tuning"),
            num_passes=sum(self.most_passes.values()),
            own=searching.own_values(experiment, space, variants),
        )

    @property
    def folder(self) -> Path:
        """Where the search is kept."""
        return state.home() / "tuning" / self.search.name

    def work(self, number: int, values: Mapping[str, Any]) -> Work:
        """Return a trial as a process is asked for it."""
        return Work(number, self.params, changes(values), self.scope, self.most_passes)


def changes(values: Mapping[str, Any]) -> list[str]:
    """Return a trial's values as --set takes them."""
    return [searching.change(path, value) for path, value in values.items()]


def _digest(experiment: Experiment) -> str:
    """Return a digest of what a trial's score depends on beside its values, and of how they are drawn."""
    steps = [[step.step_name, step.inputs, own_components(step)] for step in trial.steps(experiment)]
    tuning = experiment.tuning.model_dump(mode="json", exclude={"num_trials"}) if experiment.tuning else None
    return digest_json({"steps": steps, "tuning": tuning, "seed": experiment.seed})


def run(
    plan: Plan, display: Display, *, source: Path, overrides: Sequence[str], output: Path, num_jobs: int
) -> Summary:
    """Try combinations until there are enough, and return what was found.

    Args:
        plan: The search.
        display: Hears how it goes.
        source: The params file.
        overrides: The changes on top, as --set takes them.
        output: Where the best params go.
        num_jobs: How many trials run side by side.

    Raises:
        FtlibError: If another process is at the same search, or no trial comes to a score.
    """
    started, store = time.perf_counter(), state.store()
    with store.lock(plan.digest, wait=False) as free:
        if not free:
            line = f"{plan.search.name} is being searched by another process; wait for it, or stop it."
            raise FtlibError(f"{line} `ftlib tune --jobs N` runs several trials side by side.")
        host = _Host(plan, display)
        with host.recorded():
            jobs.run(host, num_jobs)
            best = host.best()
            _keep(plan, best, store)
            return _concluded(host, best, source, overrides, output, time.perf_counter() - started)


class _Host:
    """Gives out the trials of a search, and tells everybody what they come to."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self.plan, self.display = plan, display
        self.study = Study(plan.folder / "trials.db", plan.search)
        self.record = Record(plan.experiment, plan.search.name)
        for number in self.study.killed:
            self.record.killed(number)
        if self.study.resumed:
            best = self.study.best()
            display.resumed(len(self.study.trials()), self.study.killed, best.score if best else None)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """End the record, should the search not come to its end."""
        try:
            yield
        except BaseException as error:
            self.record.stop("FAILED" if isinstance(error, Exception) else "KILLED")
            raise

    def next_work(self) -> Work | None:
        """Return the next trial; None where there are enough."""
        asked = self.study.ask()
        if asked is None:
            return None
        self.record.began(asked.number, asked.values)
        self.display.began(asked.number, asked.values)
        return self.plan.work(asked.number, asked.values)

    def report(self, number: int, step: int, score: float) -> bool:
        """Hear a trial's score after a validation pass; return whether to give the trial up."""
        self.record.score(number, step, score)
        return self.study.report(number, step, score)

    def progress(self, number: int, event: Progress) -> None:
        """Hear how far a trial's step is."""
        self.display.progress(number, event)

    def done(self, number: int, result: Result) -> None:
        """Hear what a trial came to."""
        told = self.study.tell(number, result.state, result.score, result.facts)
        self.record.ended(told, self.plan.metric)
        best = self.study.best()
        self.display.ended(entry(told), best.score if best else None)
        if best is None:
            self._check_failures()

    def best(self) -> Trial:
        """Return the best trial.

        Raises:
            FtlibError: If none came to a score.
        """
        best = self.study.best()
        if best is None:
            raise self._none_complete(self.study.trials())
        return best

    def _check_failures(self) -> None:
        trials = self.study.trials()
        if len(trials) >= FAILURES and all(trial.state == "failed" for trial in trials):
            raise self._none_complete(trials)

    def _none_complete(self, trials: Sequence[Trial]) -> FtlibError:
        reason = next((t.facts["reason"] for t in reversed(trials) if "reason" in t.facts), "all were given up")
        return FtlibError(f"none of {len(trials)} trials came to a score. The last one: {reason}")


def entry(told: Trial) -> Summary:
    """Return what the summary says of a trial."""
    states = [step["state"] for step in told.facts.get("steps", ())]
    return {
        "number": told.number,
        "state": told.state,
        "score": told.score,
        "values": told.values,
        "seconds": told.facts.get("seconds"),
        "computed": states.count("computed"),
        "cached": states.count("cached"),
        **{name: told.facts.get(name) for name in ("chosen", "models", "reason")},
    }


def _keep(plan: Plan, best: Trial, store: Store) -> None:
    """Make the best trial's artifacts those that the store keeps of the search: all of them are there already."""
    experiment = load_experiment(plan.params, changes(best.values))
    for _ in executed(trial.steps(experiment), store, scope=plan.scope):
        pass


def _concluded(
    host: _Host, best: Trial, source: Path, overrides: Sequence[str], output: Path, seconds: float
) -> Summary:
    """Write the page and the best params, tell MLflow, and return the summary."""
    plan, trials = host.plan, host.study.trials()
    found = Found(plan.experiment.name, plan.search, plan.metric, trials, best, host.study.importances())
    drawn = plan.folder / "search.html"
    _write(drawn, page(found))
    _write(output, laid_in(source, [*overrides, *changes(best.values)], header=_header(found, source, output)))
    sent = host.record.finish(best, plan.metric, drawn, output)
    return {
        "name": plan.experiment.name,
        "search": plan.search.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "metric": plan.metric,
        "higher_is_better": plan.search.higher_is_better,
        "space": [dimension.path for dimension in plan.search.space],
        "trials": [entry(t) for t in by_score(trials, higher_is_better=plan.search.higher_is_better)],
        "best": entry(best),
        "importances": dict(found.importances),
        "sentences": sentences(found),
        "page": str(drawn),
        "params": str(output),
        "mlflow_run_id": sent.run_id if sent else None,
    }


def _header(found: Found, source: Path, output: Path) -> list[str]:
    score = f"validation {found.metric.replace('_', ' ')} {found.best.score:.4f}"
    first = f"The best of {len(found.trials)} trials of `ftlib tune {source}`: trial {found.best.number}, {score}."
    return [f"{first}   ftlib run {output}", ""]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    except OSError as error:
        raise ParamsError(f"{path}: cannot be written ({error.strerror}).") from None
