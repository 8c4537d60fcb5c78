"""Averaging: the members' mean, every member counting the same.

Nothing is fitted, so nothing can be overfitted: with few held-out rows, or members of like quality, the mean is
hard to beat (the "forecast combination puzzle", Smith & Wallis 2009, https://doi.org/10.1111/j.1468-0084.2008.00541.x).
It suffers from a member that is much worse than the rest: `weighted` and `greedy` play such a one down.

`space: scores` takes the arithmetic mean of the probabilities; `space: logits` the geometric one, in which a
member that is sure counts for more. Numbers are averaged as they are. Of candidates (choices, spans, texts) each factor
of their support is averaged: of a span, the distributions of its start and of its end.

`calibrate: temperature` first makes every member as sure as it is right on the held-out rows: it helps where some
members are much surer of themselves than others (Guo et al. 2017, https://arxiv.org/abs/1706.04599). The mean of
members that are as sure as they are right is itself less sure than it is right (Ranjan & Gneiting 2010,
https://doi.org/10.1111/j.1467-9868.2009.00726.x): look for the gain in the answers, not in the log-loss.

Source: Hansen & Salamon (1990), "Neural Network Ensembles", https://doi.org/10.1109/34.58871.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftlib.fusion._calibration import Calibrate, calibrated, check_calibrate
from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion.base import COMPLETE, LINEAR, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target


class Averaging(Fusion):
    """The mean of the members."""

    space: Literal["scores", "logits"] = "scores"
    """What is averaged: scores (arithmetic mean) or logits (normalised geometric mean)."""

    calibrate: Calibrate | None = None
    """Divide each member's logits by a temperature that held-out rows choose, before averaging; numbers have none."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds, as far as it takes means of scores as they are."""
        return LINEAR if self.space == "scores" and not self.calibrate else COMPLETE

    def check(self, target: Target) -> None:
        """Refuse to calibrate numbers."""
        super().check(target)
        check_calibrate(self.calibrate, target, self.name)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return the mean; without calibration only the number of members is read."""
        _, temperatures = calibrated(scores, references, target, self.calibrate)
        return WeightedMean(target.unit_kind, self.space, uniform(len(scores)), temperatures)

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)
