"""Stacking: a learner on top of the members, which learns how far to trust each one, label by label.

Each label has a learner of its own, whose features are the members' log-odds of that label (for numbers, their
values). Of candidates (choices, spans, texts) one learner ranks all, by every member's support and by what else tells
good candidates from bad ones (how like the others a text is, how many members propose it, how long it is:
`ftlib.targets.candidate_features`); which these are, the target says, and combiner.json, under `described`. It can do
what no weighting can: correct a member's bias, turn overconfident scores into honest ones, trust a member on the labels
it is good at.
It needs rows to learn that: with fewer than a few hundred held-out rows, or members of like quality, the plain mean
is often as good. `logistic_regression` (ridge regression for values; of candidates the conditional logit, which
compares those of a row) is the safe choice; `gradient_boosting` starts from the members' mean and adds small trees,
for interactions that no linear rule holds, and wants thousands of rows.

Regularisation makes up for few rows: the linear learners choose theirs by cross-validation within the fitting rows.
A label that never occurs there keeps the members' mean score; that is logged, and combiner.json lists the others
under `seen`. Where nothing can be learned at all (every row has the same answer; all candidates of a row are equally
good, or bad) the members' mean stands in for the whole stack, and the figures say so.

With several labels a row, `decisions: best_f1` (the default) moves all scores alike until the labels given have the
best expected F1 at the target's threshold: half the best F1 there is (Lipton, Elkan & Naryanaswamy 2014, "Optimal
Thresholding of Classifiers to Maximize F1 Measure", https://arxiv.org/abs/1402.1892, theorem 1). Rare labels seldom
reach a half, and no mean of the members mends that: expect most of the gain in F1 to come from here. `decisions:
calibrated` leaves the scores as probabilities, for a better log-loss.

Copies of one member are not given back as they are: stacking recalibrates them.

Sources: Wolpert (1992), "Stacked Generalization", https://doi.org/10.1016/S0893-6080(05)80023-1; Ting & Witten (1999),
"Issues in Stacked Generalization", https://doi.org/10.1613/jair.594 (class probabilities, a linear learner); Seewald
(2002), "How to Make Stacking Better and Faster While Also Taking Care of an Unknown Weakness" (each label by its own
probabilities); Breiman (1996), "Stacked Regressions", https://doi.org/10.1007/BF00117832; Friedman (2002), "Stochastic
Gradient Boosting", https://doi.org/10.1016/S0167-9473(01)00065-2.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ftlib.files import read_json
from ftlib.fusion._learners import boosted, choosing, linear, ridge
from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion._stacked import Linear, Stacked, Trees, features, rows_of
from ftlib.fusion.base import Combiner, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target

NOTHING = "the {:,} fitting rows tell no answer from another"

logger = logging.getLogger(__name__)


class Stacking(Fusion):
    """A learner on top of the members."""

    learner: Literal["logistic_regression", "gradient_boosting"] = "logistic_regression"
    """What is learned from the members' scores; of values, logistic_regression means ridge regression."""

    C: float | None = Field(None, gt=0)
    """Inverse strength of regularisation (logistic_regression), as in scikit-learn; cross-validated unless given."""

    num_trees: int = Field(50, ge=1)
    """Boosting rounds (gradient_boosting)."""

    max_depth: int = Field(2, ge=1, le=8)
    """Depth of each tree (gradient_boosting): 2 lets two members interact."""

    learning_rate: float = Field(0.1, gt=0, le=1)
    """What share of each tree counts (gradient_boosting)."""

    subsample: float = Field(0.5, gt=0, le=1)
    """Share of the rows each tree sees (gradient_boosting); Friedman (2002) finds about a half best."""

    decisions: Literal["best_f1", "calibrated"] = "best_f1"
    """With several labels a row: move the scores to where the decisions' F1 is best, or leave them calibrated."""

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> Combiner:
        """Return the fitted stack; where the rows teach nothing, the members' mean, with a note that says so."""
        from threadpoolctl import threadpool_limits

        wanted = _problems(references, target)
        seen = _learnable(wanted, target)
        if not seen:
            note = f"{NOTHING.format(target.num_rows(references))}: the members' mean instead of a stack"
            logger.warning("stacking: %s. Enlarge the validation or fusion split.", note)
            return WeightedMean(target.unit_kind, "scores", uniform(len(scores)), note=note)
        described = target.candidate_features
        inputs = features(scores, target.unit_kind, target.layout, described)[seen]
        with threadpool_limits(1):  # many tiny problems: threads would only wait for each other
            learner = self._learn(inputs, wanted[seen], target, num_scores=_num_scores(scores, target), seed=seed)
        note = _note(seen, target, len(wanted))
        stacked = Stacked(target.unit_kind, target.num_outputs, tuple(seen), learner, described=described, note=note)
        if target.unit_kind == "multi_label" and self.decisions == "best_f1":
            return _shifted(stacked, scores, getattr(target, "threshold", 0.5))
        return stacked

    def _learn(
        self, inputs: np.ndarray, wanted: np.ndarray, target: Target, *, num_scores: int, seed: int
    ) -> Linear | Trees:
        is_candidate = target.unit_kind == "candidate"
        regression = target.unit_kind == "value" or (is_candidate and not _is_binary(wanted))
        if self.learner == "gradient_boosting":
            return boosted(
                inputs,
                wanted,
                num_scores=num_scores,
                regression=regression,
                num_trees=self.num_trees,
                max_depth=self.max_depth,
                learning_rate=self.learning_rate,
                subsample=self.subsample,
                seed=seed,
            )
        if is_candidate:
            return choosing(inputs[0], wanted[0], rows_of(target.layout), strength=self.C, seed=seed)
        if regression:
            return ridge(inputs, wanted, alpha=None if self.C is None else 1 / self.C)
        return linear(inputs, wanted, strength=self.C, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Combiner:
        """Read back the stack, or the mean that stood in for it."""
        value = read_json(folder / "combiner.json") if (folder / "combiner.json").is_file() else {}
        is_mean = value.get("combiner") == "weighted_mean"
        return WeightedMean.load(folder) if is_mean else Stacked.load(folder)


def _problems(references: np.ndarray, target: Target) -> np.ndarray:
    """Return what the learners are to say, shape (num_problems, num_units): 0 or 1, or values."""
    import numpy as np

    if target.unit_kind == "value":
        return references.astype(np.float64)[None]
    if target.unit_kind == "candidate":
        return (references if references.ndim == 1 else references[:, 0])[None]
    if target.unit_kind == "multi_label":
        return references.T.astype(np.int64)
    labels = np.arange(target.num_outputs) if target.num_outputs > 2 else np.array([1])
    return (references == labels[:, None]).astype(np.int64)


def _num_scores(scores: np.ndarray, target: Target) -> int:
    """Return how many of a problem's features are members' scores; candidates have all factors of their support."""
    return len(scores) * (scores.shape[-1] if target.unit_kind == "candidate" else 1)


def _is_binary(wanted: np.ndarray) -> bool:
    return bool(((wanted == 0) | (wanted == 1)).all())


def _learnable(wanted: np.ndarray, target: Target) -> list[int]:
    """Return the problems that these rows can teach: those with more than one answer; of candidates, within a row."""
    import numpy as np

    if not wanted.shape[1]:
        return []
    if target.unit_kind == "candidate":
        layout = rows_of(target.layout)
        highest, lowest = (wanted[0][layout.best(sign * wanted[0])] for sign in (1, -1))
        return [0] if (highest > lowest)[layout.counts > 0].any() else []
    return np.flatnonzero(wanted.max(1) > wanted.min(1)).tolist()


def _note(seen: list[int], target: Target, num_problems: int) -> str:
    """Return which labels cannot be learned, and log it; "" where all can."""
    left = [label for i, label in enumerate(target.labels) if i not in seen and num_problems > 1]
    if not left:
        return ""
    note = f"{left} cannot be learned from the fitting rows; the members' mean stands in"
    logger.warning("stacking: %s.", note)
    return note


def _shifted(stacked: Stacked, scores: np.ndarray, threshold: float) -> Stacked:
    """Return the stack with its decisions moved to the best expected micro F1 on these rows."""
    from dataclasses import replace

    from scipy.special import expit, logit

    best = best_f1_threshold(expit(stacked.outputs(scores)))
    return replace(stacked, shift=float(logit(threshold) - logit(best)))


def best_f1_threshold(probabilities: np.ndarray) -> float:
    """Return the threshold at which calibrated probabilities give the best expected F1, all decisions pooled.

    Lipton et al. (2014), theorem 1: it is half of that F1. From the probabilities alone, not the gold labels, which in
    few rows would make it a matter of chance.
    """
    import numpy as np

    ordered = np.sort(probabilities, axis=None)[::-1]
    given = np.arange(1, len(ordered) + 1)
    f1 = 2 * ordered.cumsum() / (given + ordered.sum())
    return float(np.clip(f1.max() / 2, 0.01, 0.5))
