"""Assessment: metrics with their intervals, and models against each other on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ftlib.evaluation.measures import measure, value_of
from ftlib.evaluation.statistics import bootstrap, interval, mcnemar, paired_bootstrap_p_value

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target


@dataclass(frozen=True)
class Assessment:
    """How good scores are.

    Attributes:
        metrics: Every metric that is defined, the target's main one first.
        intervals: Metric -> [low, high]; missing where the resamples leave it undefined.
    """

    metrics: dict[str, float]
    intervals: dict[str, list[float]]


@dataclass(frozen=True)
class Difference:
    """One model against another on the same rows.

    Attributes:
        metric: What is compared.
        values: The two models' values; NaN where undefined.
        gain: The first one's value minus the other's.
        interval: The gain's bootstrap interval [low, high]; None where undefined.
        p_value: Of their being equally good in truth.
        test: "exact McNemar" or "paired bootstrap".
    """

    metric: str
    values: tuple[float, float]
    gain: float
    interval: list[float] | None
    p_value: float
    test: str


def assess(
    scores: np.ndarray,
    references: np.ndarray,
    target: Target,
    *,
    confidence: float = 0.95,
    num_samples: int = 1000,
    seed: int = 0,
) -> Assessment:
    """Return every metric of one model with its bootstrap interval.

    Args:
        scores: As `Target.scores` gives them, shape (num_units, num_outputs).
        references: Gold answers as `Target.encode` gives them.
        target: What is predicted, its labels filled in, over the layout of the rows.
        confidence: Coverage of the intervals.
        num_samples: Bootstrap resamples.
        seed: For the resamples.
    """
    found = target.metrics(scores, references)
    metrics = {name: found[name] for name in target.metric_names if name in found}
    measures = {name: measure(name, scores, references, target) for name in metrics}
    values = bootstrap(measures, target.num_rows(references), num_samples, seed=seed)
    intervals = {name: interval(values[name], confidence) for name in metrics}
    return Assessment(metrics, {name: bounds for name, bounds in intervals.items() if bounds is not None})


def compare(
    scores: np.ndarray,
    other_scores: np.ndarray,
    references: np.ndarray,
    target: Target,
    *,
    metric: str | None = None,
    confidence: float = 0.95,
    num_samples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Return one model against another on the same rows; the target's main metric unless another is named."""
    contest = Contest(
        {"one": scores, "other": other_scores},
        references,
        target,
        metric=metric or target.main_metric,
        confidence=confidence,
        num_samples=num_samples,
        seed=seed,
    )
    return contest.difference("one", "other")


@dataclass(frozen=True)
class Contest:
    """Several models on the same rows and the same resamples, by one metric.

    Attributes:
        scores: Model -> scores, shape (num_units, num_outputs).
        references: Gold answers as `Target.encode` gives them.
        target: What is predicted, over the layout of the rows.
        metric: What they are compared by.
        confidence: Coverage of the intervals.
        num_samples: Bootstrap resamples.
        seed: For the resamples.
    """

    scores: Mapping[str, np.ndarray]
    references: np.ndarray
    target: Target
    metric: str
    confidence: float
    num_samples: int
    seed: int

    @cached_property
    def values(self) -> dict[str, float]:
        """Return each model's value on all rows; NaN where undefined."""
        return {name: value_of(self.metric, s, self.references, self.target) for name, s in self.scores.items()}

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Return each model's value on each resample, shape (num_samples,)."""
        measures = {name: measure(self.metric, s, self.references, self.target) for name, s in self.scores.items()}
        return bootstrap(measures, self.target.num_rows(self.references), self.num_samples, seed=self.seed)

    def interval(self, name: str) -> list[float] | None:
        """Return the interval of a model's value."""
        return interval(self.resampled[name], self.confidence)

    def lead(self, name: str, other: str) -> list[float] | None:
        """Return the interval of the difference between two models; None where it is undefined."""
        return interval(self.resampled[name] - self.resampled[other], self.confidence)

    def difference(self, name: str, other: str) -> Difference:
        """Return one model against another: McNemar's test where rows are right or wrong, else the bootstrap."""
        differences = self.resampled[name] - self.resampled[other]
        gain = self.values[name] - self.values[other]
        by_row = self.metric in self.target.counts_right_rows
        return Difference(
            metric=self.metric,
            values=(self.values[name], self.values[other]),
            gain=gain,
            interval=self.lead(name, other),
            p_value=self._mcnemar(name, other) if by_row else paired_bootstrap_p_value(differences, gain),
            test="exact McNemar" if by_row else "paired bootstrap",
        )

    def _mcnemar(self, name: str, other: str) -> float:
        one, two = (self.target.row_right(self.scores[n], self.references) for n in (name, other))
        return mcnemar(one, two)
