"""Rank averaging: members are averaged by how they order the rows, whatever scale their scores live on.

Helps where the order is what counts (ROC AUC, Spearman) and the members' scales differ: one says 0.51 to 0.53, another
0 or 1, and a mean of scores would hear the second alone. Doesn't help where scores are probabilities of like honesty:
ranks forget how far apart two rows are. And it fuses each label by the order of that label's scores alone, so of many
labels whose answer is the highest one, expect the mean to be as good or better.

Labels and numbers: a score's rank is its place among the member's scores of the held-out rows (their empirical
distribution, kept with the combiner), so that a row's rank does not depend on what comes with it. The mean rank is
turned back into a score by the members' mean quantile there: decisions and thresholds keep their meaning, and
copies of one member are that member.

Candidates are ranked within their row and fused by reciprocal rank: the sum of 1 / (k + rank). What a member does
not support gets nothing from it. The result is an order with hardly any confidence in it: read no probability from it.

Sources: Cormack, Clarke & Buettcher (2009), "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", https://doi.org/10.1145/1571941.1572114 (candidates, k = 60); Ho, Hull & Srihari (1994), "Decision Combination
in Multiple Classifier Systems", https://doi.org/10.1109/34.273716 (ranks); Ratcliff (1979), "Group reaction time
distributions and an analysis of distribution statistics", https://doi.org/10.1037/0033-2909.86.3.446 (the mean of
quantiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.files import write_json
from ftlib.fusion._mean import as_support, read_combiner, uniform
from ftlib.fusion.base import Combiner, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

MOST_KNOTS = 512
"""Points kept of each distribution: between them it is a line."""


class RankAveraging(Fusion):
    """The mean of the members' ranks."""

    k: int = Field(60, ge=0)
    """Of candidates: how little the first ranks stand out; 60 is the paper's, 0 all but follows the first ones."""

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> Combiner:
        """Return the members' distributions on these rows; of candidates nothing is fitted."""
        if target.unit_kind == "candidate":
            return ReciprocalRanks(self.k, len(scores))
        return MeanRanks.of(scores, target.unit_kind)

    @classmethod
    def load(cls, folder: Path) -> Combiner:
        """Read back the ranks."""
        value = read_combiner(folder, "rank_averaging")
        return ReciprocalRanks(value["k"], value["num_members"]) if "k" in value else MeanRanks.load(folder)


# -- labels and numbers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanRanks(Combiner):
    """The mean rank, turned back into a score.

    Attributes:
        kind: The target's unit_kind.
        scores: Rising points of each member's distribution of each output, shape (num_members, num_outputs,
            num_knots); shorter ones repeat their last point.
        ranks: The share of scores up to each point, the same shape.
    """

    kind: str
    scores: np.ndarray
    ranks: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, kind: str) -> MeanRanks:
        """Return the distributions of held-out scores, shape (num_members, num_units, num_outputs)."""
        import numpy as np

        curves = [[_distribution(column, kind) for column in member.T] for member in scores.astype(np.float64)]
        width = max(len(points) for member in curves for points, _ in member)
        padded = np.array([[[np.pad(c, (0, width - len(c)), "edge") for c in curve] for curve in m] for m in curves])
        return cls(kind, padded[:, :, 0], padded[:, :, 1])

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return the members' mean quantile at their mean rank, shape (num_units, num_outputs)."""
        import numpy as np

        values = np.asarray(scores, dtype=np.float64)
        fused = np.stack([self._fused(values[..., i], i) for i in range(values.shape[-1])], axis=-1)
        return _shared(fused) if self.kind == "single_label" else fused

    def _fused(self, values: np.ndarray, output: int) -> np.ndarray:
        import numpy as np

        curves = list(zip(self.scores[:, output], self.ranks[:, output], strict=True))
        mean, fused = np.zeros(values.shape[1]), np.zeros(values.shape[1])
        for member, (points, ranks) in zip(values, curves, strict=True):
            mean += _line(member, points, ranks) / len(values)
        for points, ranks in curves:
            fused += _line(mean, ranks, points) / len(values)
        return fused

    def weights(self) -> list[float]:
        """Return an equal share for every member."""
        return list(uniform(len(self.scores)))

    def save(self, folder: Path) -> None:
        """Write combiner.json and combiner.npz."""
        import numpy as np

        write_json(folder / "combiner.json", {"combiner": "rank_averaging", "kind": self.kind})
        np.savez(folder / "combiner.npz", allow_pickle=False, scores=self.scores, ranks=self.ranks)

    @classmethod
    def load(cls, folder: Path) -> MeanRanks:
        """Read combiner.json and combiner.npz."""
        import numpy as np

        kind = read_combiner(folder, "rank_averaging")["kind"]
        with np.load(folder / "combiner.npz", allow_pickle=False) as arrays:
            return cls(kind, arrays["scores"], arrays["ranks"])


def _distribution(column: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rising scores and the share of scores below each, those equal to it by half: (points, ranks).

    It runs from 0 to 1: so do probabilities; numbers get as much room at both ends as they spread.
    """
    import numpy as np

    points, counts = np.unique(column, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(column)
    if len(points) > MOST_KNOTS:
        kept = np.linspace(0, len(points) - 1, MOST_KNOTS).round().astype(int)
        points, ranks = points[kept], ranks[kept]
    room = 0.0 if kind != "value" else float(points[-1] - points[0]) or 1.0
    low, high = (points[0] - room, points[-1] + room) if kind == "value" else (0.0, 1.0)
    below, above = ([low], [0.0]) if points[0] > low else ([], []), ([high], [1.0]) if points[-1] < high else ([], [])
    return np.concatenate([below[0], points, above[0]]), np.concatenate([below[1], ranks, above[1]])


def _line(values: np.ndarray, points: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the broken line through rising points, which goes on beyond its ends as steeply as from end to end."""
    import numpy as np

    steep = (heights[-1] - heights[0]) / (points[-1] - points[0]) if points[-1] > points[0] else 0.0
    beyond = values - np.clip(values, points[0], points[-1])
    return np.interp(values, points, heights) + steep * beyond


def _shared(fused: np.ndarray) -> np.ndarray:
    """Return scores that sum to 1 in each row."""
    import numpy as np

    from ftlib.fusion._logarithms import SMALLEST

    kept = np.clip(fused, SMALLEST, None)
    total = kept[:, 0].copy()
    for column in kept.T[1:]:
        total += column
    return kept / total[:, None]


# -- candidates ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReciprocalRanks(Combiner):
    """Reciprocal rank fusion of a row's candidates.

    Attributes:
        k: Added to every rank.
        num_members: How many members rank.
    """

    k: int
    num_members: int

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return the mean of (k + 1) / (k + rank), shape (num_units, num_outputs): 1 where all rank it first."""
        import numpy as np

        if layout is None:
            raise ValueError("candidates are ranked within their row; the layout is needed")
        values = np.asarray(scores, dtype=np.float64)
        total = np.zeros(values.shape[1])
        for support in values.prod(-1):
            total += np.where(support > 0, (self.k + 1) / (self.k + ranks_within_rows(support, layout)), 0.0)
        return as_support(total / self.num_members, values.shape[-1])

    def weights(self) -> list[float]:
        """Return an equal share for every member."""
        return list(uniform(self.num_members))

    def save(self, folder: Path) -> None:
        """Write combiner.json."""
        value = {"combiner": "rank_averaging", "k": self.k, "num_members": self.num_members}
        write_json(folder / "combiner.json", value)


def ranks_within_rows(support: np.ndarray, layout: Layout) -> np.ndarray:
    """Return each candidate's rank in its row, 1 for the one with most support; equal ones share their mean rank.

    Args:
        support: One a candidate, shape (num_units,).
        layout: Which candidates each row has.
    """
    import numpy as np

    row = layout.row_of
    order = np.lexsort((-support, row))
    place = np.arange(len(order)) - layout.splits[row[order]] + 1.0
    new = np.ones(len(order), dtype=bool)
    new[1:] = (row[order][1:] != row[order][:-1]) | (support[order][1:] != support[order][:-1])
    group = np.cumsum(new) - 1
    ranks = np.empty(len(order))
    ranks[order] = (np.bincount(group, weights=place) / np.bincount(group))[group]
    return ranks
