"""Averaging: the members' mean, every member counting the same.

Nothing is fitted, so nothing can be overfitted: with few held-out rows, or members of like quality, the mean is
hard to beat (the "forecast combination puzzle", Smith & Wallis 2009, https://doi.org/10.1111/j.1468-0084.2008.00541.x).
It suffers from a member that is much worse than the rest: `weighted` and `greedy` play such a one down.

`space: scores` takes the arithmetic mean of the probabilities; `space: logits` the geometric one, in which a
member that is sure counts for more. Numbers are averaged as they are.

Source: Hansen & Salamon (1990), "Neural Network Ensembles", https://doi.org/10.1109/34.58871.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion.base import Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target


class Averaging(Fusion):
    """The mean of the members."""

    space: Literal["scores", "logits"] = "scores"
    """What is averaged: scores (arithmetic mean) or logits (normalised geometric mean)."""

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return the mean; only the number of members is read."""
        return WeightedMean(target.unit_kind, self.space, uniform(len(scores)))

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)
