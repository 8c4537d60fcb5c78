"""Median: of all members' scores the one in the middle, so that no single member can move it far.

Helps where a member now and then goes badly astray (a diverged one, scores on another scale, a text it cannot read):
the mean follows it, the median does not, as long as most members are sound. Doesn't help where all members are
sound: then it throws information away, and the mean is a little better. Of two members it is their mean.

Labels: the median of each label's probability, scaled to sum to 1 where labels exclude each other. Numbers: their
median. Candidates: the median of each factor of their support; where most members support none of a row's
candidates, the mean decides.

Source: Kittler, Hatef, Duin & Matas (1998), "On Combining Classifiers", https://doi.org/10.1109/34.667881, section 2.2
(the median rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.files import write_json
from ftlib.fusion._mean import read_combiner
from ftlib.fusion.base import Combiner, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

MEAN_PART = 1e-6
"""How far a candidate's support leans towards the members' mean: enough to part those whose medians are equal."""


class Median(Fusion):
    """The median of the members."""

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> MiddleScore:
        """Return the median; nothing is fitted."""
        return MiddleScore(target.unit_kind)

    @classmethod
    def load(cls, folder: Path) -> MiddleScore:
        """Read back the median."""
        return MiddleScore.load(folder)


@dataclass(frozen=True)
class MiddleScore(Combiner):
    """The median of the members' scores.

    Attributes:
        kind: The target's unit_kind.
    """

    kind: str

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return the median, shape (num_units, num_outputs)."""
        import numpy as np

        values = np.asarray(scores, dtype=np.float64)
        middle = np.median(values, axis=0)
        if self.kind == "candidate":
            return middle + MEAN_PART * (_mean(values) - middle)
        if self.kind == "single_label":
            return _shared(middle, _mean(values))
        return middle

    def save(self, folder: Path) -> None:
        """Write combiner.json."""
        write_json(folder / "combiner.json", {"combiner": "median", "kind": self.kind})

    @classmethod
    def load(cls, folder: Path) -> MiddleScore:
        """Read combiner.json."""
        return cls(read_combiner(folder, "median")["kind"])


def _mean(values: np.ndarray) -> np.ndarray:
    return values.sum(0) / len(values)


def _shared(middle: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return medians scaled to sum to 1 in each row; the mean where all of them are 0."""
    import numpy as np

    total = middle.sum(1, keepdims=True)
    return np.where(total > 0, middle / np.where(total > 0, total, 1.0), mean)
