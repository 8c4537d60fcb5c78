"""What learning one task does to another: every stage measured on every task that it answers, and the forgetting.

R(i, j) is the score on task j of the stage that learned task i, all of one line of stages. What a line says:

- backward transfer: the mean over all tasks but the last of R(last, j) - R(j, j): below 0, something was lost;
- forgetting: the mean over them of the best score that any stage of the line had on j, less R(last, j);
- forward transfer: R(j, j) less the score of a stage that learned task j alone, where there is one.

Lopez-Paz & Ranzato (2017), "Gradient Episodic Memory for Continual Learning", https://arxiv.org/abs/1706.08840,
section 2 (backward transfer); Chaudhry et al. (2018), "Riemannian Walk for Incremental Learning",
https://arxiv.org/abs/1801.10112, section 3 (forgetting; forward transfer is the negative of its intransigence).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlib.evaluation.assessment import Contest
    from ftlib.evaluation.evaluate import Evaluation
    from ftlib.targets.base import Target


@dataclass(frozen=True, eq=False)
class Measured:
    """One task's stages on its test rows.

    Attributes:
        contest: Their scores against each other, by the task's main metric.
        own_metrics: Stage -> what its predictions say beyond scores.
        num_rows: Test rows.
    """

    contest: Contest
    own_metrics: Mapping[str, Mapping[str, float]]
    num_rows: int

    @property
    def target(self) -> Target:
        """Return what is predicted."""
        return self.contest.target

    def loss_between(self, before: str, after: str) -> dict[str, Any]:
        """Return by how much a stage is better than an earlier one, with interval and p-value."""
        found = self.contest.difference(after, before)
        return {"gain": found.gain, "interval": found.interval, "p_value": found.p_value}


def transfer(
    splits: Mapping[str, Path],
    predictions: Mapping[tuple[str, str], Path],
    *,
    lines: Mapping[str, Sequence[str]],
    learns: Mapping[str, str],
    settings: Evaluation,
    seed: int,
) -> dict[str, Any]:
    """Return every stage's test metrics on every task that it answers, and what each line of stages forgot.

    Args:
        splits: Task -> its split artifact, the experiment's own first.
        predictions: (stage, task) -> predictions on the task's test rows.
        lines: Stage -> the stages that it descends from, the first first, and itself.
        learns: Stage -> the task that it learns.
        settings: How results are measured.
        seed: For the resamples.

    Returns:
        {"tasks": [{"name", "problem", "metric", "higher_is_better", "rows"}], "scores": [{"stage", "task", "value",
        "interval", "metrics"}], "lines": [what `_line` returns]}.
    """
    measured = {
        task: _measured(folder, {s: f for (s, t), f in predictions.items() if t == task}, settings, seed)
        for task, folder in splits.items()
    }
    values = {(s, t): measured[t].contest.values[s] for s, t in predictions}
    alone = {learns[stage]: stage for stage, line in lines.items() if len(line) == 1}
    ended = [line for line in lines.values() if not any(_goes_on(line, other) for other in lines.values())]
    return {
        "tasks": [_task(name, found) for name, found in measured.items()],
        "scores": [_score(s, t, measured[t]) for s, t in predictions],
        "lines": [_line(line, learns, values, alone, measured) for line in ended if len({learns[s] for s in line}) > 1],
    }


def _goes_on(line: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether another line begins with this one and goes on to a further stage."""
    return len(other) > len(line) and tuple(other[: len(line)]) == tuple(line)


def _measured(folder: Path, predictions: Mapping[str, Path], settings: Evaluation, seed: int) -> Measured:
    from ftlib.ensembling import read_rows, read_scores
    from ftlib.evaluation.assessment import Contest
    from ftlib.files import read_json
    from ftlib.problems.base import Problem

    problem = Problem.model_validate(read_json(folder / "problem.json"))
    rows = read_rows(folder / "test.parquet")
    found = read_scores(list(predictions.values()), rows, problem, where="test predictions")
    contest = Contest(
        dict(zip(predictions, found.values, strict=True)),
        problem.references(rows, found.layout),
        problem.target.over(found.layout),
        metric=problem.target.main_metric,
        confidence=settings.confidence,
        num_samples=settings.bootstrap_samples,
        seed=seed,
    )
    return Measured(contest, dict(zip(predictions, found.own_metrics, strict=True)), len(rows))


def _task(name: str, found: Measured) -> dict[str, Any]:
    metric = found.contest.metric
    higher = found.target.higher_is_better(metric)
    return {"name": name, "metric": metric, "higher_is_better": higher, "rows": found.num_rows}


def _score(stage: str, task: str, found: Measured) -> dict[str, Any]:
    contest = found.contest
    metrics = {**found.target.metrics(contest.scores[stage], contest.references), **found.own_metrics[stage]}
    value, interval = contest.values[stage], contest.interval(stage)
    return {"stage": stage, "task": task, "value": value, "interval": interval, "metrics": metrics}


# -- lines ---------------------------------------------------------------------------------------------


def _line(
    line: Sequence[str],
    learns: Mapping[str, str],
    values: Mapping[tuple[str, str], float],
    alone: Mapping[str, str],
    measured: Mapping[str, Measured],
) -> dict[str, Any]:
    """Return what a line of stages learned and lost.

    Returns:
        {"stages", "tasks": those that the last stage still answers, in the order of learning, "table": stage by stage
        the score on each task (None before it was learned), "kept": for each task but the last {"task", "before",
        "after", "best", "gain", "interval", "p_value"}, "backward_transfer", "forgetting", "forward": for each task
        that another stage learned alone {"task", "alone", "gain"}, "forward_transfer"}. Gains are above 0 where the
        later is better, whatever the metric.
    """
    last = line[-1]
    tasks = [t for t in dict.fromkeys(learns[s] for s in line) if (last, t) in values]
    learned_by = {task: [s for s in line if learns[s] == task][-1] for task in tasks}
    kept = list(_kept(line, [t for t in tasks if t != learns[last]], learned_by, values, measured))
    forward: list[dict[str, Any]] = [
        {"task": task, "alone": alone[task], "gain": _signed(measured[task], values[stage, task], reference)}
        for task, stage in learned_by.items()
        if alone.get(task, stage) not in line and (reference := values.get((alone[task], task))) is not None
    ]
    return {
        "stages": list(line),
        "learns": [learns[stage] for stage in line],
        "tasks": tasks,
        "table": [[values.get((stage, task)) for task in tasks] for stage in line],
        "kept": kept,
        "backward_transfer": _mean([entry["gain"] for entry in kept]),
        "forgetting": _mean([entry["forgetting"] for entry in kept]),
        "forward": forward,
        "forward_transfer": _mean([entry["gain"] for entry in forward]),
    }


def _kept(
    line: Sequence[str],
    tasks: Sequence[str],
    learned_by: Mapping[str, str],
    values: Mapping[tuple[str, str], float],
    measured: Mapping[str, Measured],
) -> Iterator[dict[str, Any]]:
    last = line[-1]
    for task in tasks:
        before, after = learned_by[task], values[last, task]
        found = measured[task]
        higher = found.target.higher_is_better(found.contest.metric)
        seen = [values[s, task] for s in line if (s, task) in values]
        best = max(seen) if higher else min(seen)
        difference = found.loss_between(before, last)
        if not higher:
            difference = _turned(difference)
        yield {
            "task": task,
            "before": values[before, task],
            "after": after,
            "best": best,
            "forgetting": _signed(found, best, after),
            **difference,
        }


def _turned(difference: dict[str, Any]) -> dict[str, Any]:
    """Return a difference of errors as one of qualities."""
    interval = difference["interval"]
    turned = [-bound for bound in reversed(interval)] if interval else interval
    return {**difference, "gain": -difference["gain"], "interval": turned}


def _signed(found: Measured, value: float, reference: float) -> float:
    """Return by how much a value is better than another."""
    sign = 1 if found.target.higher_is_better(found.contest.metric) else -1
    return sign * (value - reference)


def _mean(values: Sequence[float]) -> float | None:
    import numpy as np

    return float(np.mean(values)) if len(values) else None
