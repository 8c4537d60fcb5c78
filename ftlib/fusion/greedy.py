"""Greedy ensemble selection: add, again and again, the member that helps the mean most.

Starts from the best few members, then adds one at a time, with replacement, whichever brings the ensemble's metric
on the held-out rows highest; the best ensemble met on the way is kept, and how often a member is in it is its
weight. It optimises the very metric that counts, is never worse than the best member on the rows it is fitted on,
and leaves useless members out, so it is the baseline that every other fusion is compared with.

In libraries of many models it overfits; the paper's remedy is bagging: select within random halves of the library,
and average. Bagging is for large libraries (the paper's hold two thousand models): with fewer than eight members
a half is two or three of them and the average over bags would be near the plain mean, so there it is left out.

Source: Caruana, Niculescu-Mizil, Crew & Ksikes (2004), "Ensemble Selection from Libraries of Models",
https://doi.org/10.1145/1015330.1015432, sections 2.1 to 2.3 (replacement, sorted initialisation, bagging).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.fusion._mean import WeightedMean
from ftlib.fusion.base import LINEAR, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target

SMALL_LIBRARY = 8
"""Fewer members than this are not bagged."""

Objective = Callable[["np.ndarray"], tuple[float, float]]


class Greedy(Fusion):
    """Greedy ensemble selection with replacement."""

    metric: str | None = None
    """What selection goes by; the problem's main metric unless given. Ties are broken by log-loss (values: RMSE)."""

    rounds: int = Field(50, ge=1)
    """How often a member is added; the best ensemble met is kept, so more costs time, not quality."""

    bags: int = Field(20, ge=1)
    """Random parts of the library within which selection is repeated (from eight members on)."""

    bag_ratio: float = Field(0.5, gt=0, le=1)
    """Share of the members in each bag."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds, as far as it takes means of scores as they are."""
        return LINEAR

    def check(self, target: Target) -> None:
        """Refuse a metric that the target does not have (ParamsError)."""
        from ftlib.evaluation.measures import check_metric

        super().check(target)
        if self.metric is not None:
            check_metric(self.metric, target)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return the selected members' weighted mean."""
        import numpy as np

        objective = _objective(self.metric or target.main_metric, references, target)
        counts = np.zeros(len(scores))
        for bag in self._bags(len(scores), seed):
            chosen = select(scores[bag], objective, self.rounds)
            counts[bag] += chosen / chosen.sum()
        return WeightedMean(target.unit_kind, "scores", tuple((counts / counts.sum()).tolist()))

    def _bags(self, num_members: int, seed: int) -> list[np.ndarray]:
        import numpy as np

        if num_members < SMALL_LIBRARY or self.bags == 1 or self.bag_ratio == 1:
            return [np.arange(num_members)]
        random = np.random.default_rng(seed)
        size = max(1, round(self.bag_ratio * num_members))
        return [np.sort(random.choice(num_members, size, replace=False)) for _ in range(self.bags)]

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the weighted mean."""
        return WeightedMean.load(folder)


def select(scores: np.ndarray, objective: Objective, rounds: int) -> np.ndarray:
    """Return how often each member is in the best ensemble met, shape (num_members,).

    Args:
        scores: Shape (num_members, num_rows, num_outputs).
        objective: Gives a value to fused scores; greater is better. Equal values go to the earlier member.
        rounds: How many members are added after the sorted start.
    """
    counts = _sorted_start(scores, objective)
    total = (counts[:, None, None] * scores).sum(0)
    best, kept = objective(total / counts.sum()), counts.copy()
    for _ in range(rounds):
        size = counts.sum() + 1
        values = [objective((total + member) / size) for member in scores]
        added = max(range(len(scores)), key=lambda m: (values[m], -m))
        counts[added] += 1
        total = total + scores[added]
        if values[added] > best:
            best, kept = values[added], counts.copy()
    return kept


def _sorted_start(scores: np.ndarray, objective: Objective) -> np.ndarray:
    """Return the best n members, once each, with the n that gives the best mean."""
    import numpy as np

    alone = [objective(member) for member in scores]
    ranked = sorted(range(len(scores)), key=lambda m: (alone[m], -m), reverse=True)
    sums = np.cumsum(scores[ranked], axis=0)
    means = [alone[ranked[0]], *(objective(s / (n + 2)) for n, s in enumerate(sums[1:]))]
    size = max(range(len(means)), key=lambda n: (means[n], -n)) + 1
    counts = np.zeros(len(scores))
    counts[ranked[:size]] = 1
    return counts


def _objective(metric: str, references: np.ndarray, target: Target) -> Objective:
    from math import isnan

    from ftlib.evaluation.measures import value_of

    sign = 1 if target.higher_is_better(metric) else -1

    def objective(fused: np.ndarray) -> tuple[float, float]:
        value = sign * value_of(metric, fused, references, target)
        return (float("-inf") if isnan(value) else value, -value_of(target.proper_loss, fused, references, target))

    return objective
