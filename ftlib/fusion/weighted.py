"""Weighted averaging: better members count for more.

`weights_from: optimised` finds the weights, none negative, that minimise the fused log-loss (the squared error of
values; of candidates, how little of the support is on good ones). It sees how members complement each other, not only
how good each one is, and may drop a member wholly (which then need not run when serving). There is one number a
member to find, so three hundred rows are enough.

`weights_from: validation_scores` gives each member a weight in proportion to its skill on the held-out rows: how
far its metric is from what a constant answer gets, towards a perfect one. Members of like quality get nearly equal
weights, and one that learned nothing gets none. For fewer rows still, or weights that can be explained in a sentence.

`calibrate: temperature` first makes every member as sure as it is right on the held-out rows, so that weights need not
make up for members that shout (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

Sources: Perrone & Cooper (1993), "When Networks Disagree: Ensemble Methods for Hybrid Neural Networks" (weights by
error); Breiman (1996), "Stacked Regressions", https://doi.org/10.1007/BF00117832 (weights that are not negative).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ftlib.fusion._calibration import Calibrate, calibrated, check_calibrate
from ftlib.fusion._likelihood import log_likelihood
from ftlib.fusion._mean import WeightedMean, pool, uniform
from ftlib.fusion.base import COMPLETE, LINEAR, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target

NEGLIGIBLE = 1e-3
"""An optimised weight below it is 0: the member is not worth running."""

logger = logging.getLogger(__name__)


class Weighted(Fusion):
    """The weighted mean of the members."""

    weights_from: Literal["validation_scores", "optimised"] = "optimised"
    """The weights that minimise the fused loss on the held-out rows, or each member's skill there."""

    space: Literal["scores", "logits"] = "scores"
    """What is averaged: scores (arithmetic mean) or logits (normalised geometric mean)."""

    metric: str | None = None
    """What skill is measured by (validation_scores only); the problem's main metric unless given."""

    sharpness: float = Field(1.0, ge=0)
    """Power of the skill (validation_scores only): 0 gives the plain mean, a large one the best member alone."""

    calibrate: Calibrate | None = None
    """Divide each member's logits by a temperature that held-out rows choose, before weighing; numbers have none."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds, as far as it takes means of scores as they are."""
        return LINEAR if self.space == "scores" and not self.calibrate else COMPLETE

    def check(self, target: Target) -> None:
        """Refuse a metric that the target does not have (ParamsError), and to calibrate numbers."""
        from ftlib.evaluation.measures import check_metric

        super().check(target)
        check_calibrate(self.calibrate, target, self.name)
        if self.metric is not None:
            check_metric(self.metric, target)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return the weighted mean."""
        scores, temperatures = calibrated(scores, references, target, self.calibrate)
        if self.weights_from == "optimised":
            weights = optimised_weights(scores, references, target, self.space)
        else:
            weights = self._skill_weights(scores, references, target)
        return WeightedMean(target.unit_kind, self.space, weights, temperatures)

    def _skill_weights(self, scores: np.ndarray, references: np.ndarray, target: Target) -> tuple[float, ...]:
        skills = [skill(s, references, target, self.metric or target.main_metric) ** self.sharpness for s in scores]
        total = sum(skills)
        if total == 0:
            logger.warning("weighted: no member does better than a constant answer; all count the same.")
            return uniform(len(scores))
        return tuple(s / total for s in skills)

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the weighted mean."""
        return WeightedMean.load(folder)


def skill(scores: np.ndarray, references: np.ndarray, target: Target, metric: str) -> float:
    """Return how far a member's metric is from a constant answer's (0) towards a perfect one's (1); never below 0.

    The constant answer is the labels' shares among the references, or their mean. This is the "skill score" of
    forecasting: Murphy (1988), https://doi.org/10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2.
    """
    from math import exp

    import numpy as np

    from ftlib.evaluation.measures import value_of

    value = value_of(metric, scores, references, target)
    if target.unit_kind == "candidate" and target.higher_is_better(metric):
        return max(0.0, value) if np.isfinite(value) else 0.0  # no answer is constant there; only ratios count
    if target.unit_kind == "likelihood":  # how likely a token is, as a mean; or how often the guess is right
        return value if target.higher_is_better(metric) else exp(-value_of("log_loss", scores, references, target))
    constant = np.broadcast_to(_shares(references, target), scores.shape)
    chance = value_of(metric, constant, references, target)
    perfect = 1.0 if target.higher_is_better(metric) else 0.0
    chance = 0.0 if np.isnan(chance) else chance
    gained = (value - chance) / (perfect - chance) if perfect != chance else 0.0
    return max(0.0, gained) if np.isfinite(gained) else 0.0


def optimised_weights(
    scores: np.ndarray, references: np.ndarray, target: Target, space: Literal["scores", "logits"]
) -> tuple[float, ...]:
    """Return the weights on the simplex that minimise the fused loss, by SLSQP from equal ones: a convex problem."""
    import numpy as np
    from scipy.optimize import minimize

    from ftlib.evaluation.measures import value_of

    def loss(weights: np.ndarray) -> float:
        fused = pool(scores, np.maximum(weights, 1e-9), kind=target.unit_kind, space=space)
        if target.unit_kind == "candidate":  # their metrics see the best one only, in steps
            return -log_likelihood(fused, references, target) / max(1, target.num_rows(references))
        return value_of(target.proper_loss, fused, references, target)

    start = np.array(uniform(len(scores)))
    result = minimize(
        loss,
        start,
        method="SLSQP",
        jac="3-point",
        bounds=[(0.0, 1.0)] * len(start),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-9, "maxiter": 200},
    )
    best = result.x if loss(result.x) < loss(start) else start
    kept = np.where(best < NEGLIGIBLE, 0.0, best).round(6)  # the last digits are the optimiser's noise
    return tuple((kept / kept.sum()).tolist())


def _shares(references: np.ndarray, target: Target) -> np.ndarray:
    import numpy as np

    if target.unit_kind == "candidate":
        return np.ones(1)
    if target.unit_kind == "single_label":
        return np.bincount(references, minlength=target.num_outputs) / len(references)
    return references.mean(0) if references.ndim == 2 else np.array([references.mean()])
