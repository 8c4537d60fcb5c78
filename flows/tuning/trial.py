"""One trial: the experiment with other values, up to its score on validation. Test predictions are not even made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flows import graph
from ftlib import progress, state
from ftlib.artifacts import Artifact, GivenUp, sha256_file
from ftlib.errors import FtlibError
from ftlib.evaluation import measures
from ftlib.files import read_json
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment
from ftlib.problems.base import MAIN
from ftlib.progress import Progress
from ftlib.steps import Step, executed, needed_for
from ftlib.tuning.passes import Passes, Report, StagePasses
from tasks.tuning import Objective

OBJECTIVE = "objective"


@dataclass(frozen=True)
class Work:
    """A trial that is to be run; plain values, so that another process can be asked.

    Attributes:
        number: The trial's.
        params: The experiment, without changes.
        changes: The trial's values, as --set takes them.
        scope: Under which name the store remembers the newest keys.
        most_passes: Stage -> validation passes that it makes in the longest trial.
    """

    number: int
    params: dict[str, Any]
    changes: list[str]
    scope: str
    most_passes: dict[str, int]


@dataclass(frozen=True)
class Result:
    """What a trial came to; plain values.

    Attributes:
        state: "complete", "pruned" or "failed".
        score: On validation; None unless it is complete.
        facts: seconds, steps, and where they are known chosen, models, rows (which validation rows it was judged by)
            and the reason of a failure.
    """

    state: Literal["complete", "pruned", "failed"]
    score: float | None
    facts: dict[str, Any]

    def dump(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return asdict(self)


def steps(experiment: Experiment) -> tuple[Step, ...]:
    """Return the steps that lead to an experiment's score on validation."""
    every = graph.steps(experiment)
    [evaluate] = [step for step in every if step.kind() == "evaluate"]
    read = {name: source for name, source in evaluate.inputs.items() if not name.startswith("test_")}
    objective = Objective(
        step_name=OBJECTIVE,
        inputs=read,
        problem=experiment.problem,
        evaluation=experiment.evaluation,
        members=tuple(member.name for member in experiment.members()),
        fusions=graph.fusions(experiment),
        seed=experiment.seed_of("evaluate"),
    )
    return needed_for(OBJECTIVE, (*every, objective))


def run(work: Work, *, report: Report, listener: Callable[[Progress], None]) -> Result:
    """Run a trial, or take of it from the store what is there.

    Args:
        work: The trial.
        report: Told the score after each validation pass; says whether to give the trial up.
        listener: Told how far its steps are.
    """
    started, told = time.perf_counter(), list[dict[str, Any]]()
    found: dict[str, Any] = {}
    state_: Literal["complete", "pruned", "failed"] = "complete"
    try:
        experiment = load_experiment(work.params, work.changes)
        found = _computed(experiment, work, told, report, listener)
        if found["validation"] is None:
            raise FtlibError(f"{found['metric']} of {found['name']} is undefined on the validation rows.")
    except GivenUp:
        state_ = "pruned"
    except FtlibError as error:
        state_, found = "failed", {"reason": str(error)}
    kept = {name: found[key] for name, key in FACTS.items() if key in found}
    facts = {"seconds": round(time.perf_counter() - started, 3), "steps": told, **kept}
    return Result(state_, found["validation"] if state_ == "complete" else None, facts)


FACTS = {"chosen": "name", "models": "models", "rows": "rows", "reason": "reason"}
"""What is kept of a trial -> where it is found."""


def _computed(
    experiment: Experiment,
    work: Work,
    told: list[dict[str, Any]],
    report: Report,
    listener: Callable[[Progress], None],
) -> dict[str, Any]:
    """Execute the steps, note each in `told`, and return what the objective says."""
    store = state.store()
    artifacts: dict[str, Artifact] = {}
    passes = Passes(list(_stages(experiment, work.most_passes)), report)
    before = time.perf_counter()
    with progress.listen(listener), progress.listen(passes.hear):
        for step, outcome in executed(steps(experiment), store, scope=work.scope):
            artifacts[step.step_name], now = outcome.artifact, time.perf_counter()
            word = "cached" if outcome.cached else "computed"
            entry = {"name": step.step_name, "state": word, "artifact": outcome.artifact.digest}
            told.append({**entry, "seconds": round(now - before, 3)})
            before = now
            if step.kind() == "train":
                passes.ended(step.step_name, read_json(store.open(outcome.artifact) / "history.json"))
    objective: dict[str, Any] = read_json(store.open(artifacts[OBJECTIVE]) / "objective.json")
    return {**objective, "rows": sha256_file(store.open(artifacts["split"]) / "validation.parquet")}


# -- validation passes -----------------------------------------------------------------------------------


def num_passes(experiment: Experiment) -> dict[str, float]:
    """Return stage -> its validation passes, of those stages that learn the experiment's own task."""
    stages = [stage for stage in experiment.ordered_stages() if stage.task == MAIN]
    return {s.name: s.training.num_train_epochs * s.training.evaluations_per_epoch or 1.0 for s in stages}


def most_passes(experiments: Sequence[Experiment]) -> dict[str, int]:
    """Return stage -> its passes in that experiment in which it has most."""
    most: dict[str, int] = {}
    for experiment in experiments:
        for name, number in num_passes(experiment).items():
            most[name] = max(most.get(name, 1), math.ceil(number))
    return most


def metric(experiment: Experiment) -> str:
    """Return what an experiment is judged by."""
    return experiment.evaluation.metric or experiment.problem.target.main_metric


def higher_is_better(experiment: Experiment) -> bool:
    """Return whether a larger score is a better one."""
    return measures.higher_is_better(metric(experiment), experiment.problem.target)


def _stages(experiment: Experiment, most: Mapping[str, int]) -> Iterator[StagePasses]:
    """Yield how a trial's stages are followed: by what training validates by, not always the metric of the score."""
    validated, target = experiment.problem.validation_metric, experiment.problem.target
    rises = validated != "loss" and measures.higher_is_better(validated, target)
    sign = 1 if rises == higher_is_better(experiment) else -1
    for name, number in num_passes(experiment).items():
        yield StagePasses(f"train-{name}", number, most.get(name, math.ceil(number)), validated, sign)
