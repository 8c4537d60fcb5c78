"""Simulated members: scores of known quality for every kind of target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, softmax

from ftlib.fusion.base import Fusion
from ftlib.targets.base import Target
from ftlib.targets.layout import Layout
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

KINDS = ("two labels", "five labels", "multi_label", "value", "words", "choices", "spans")
ROWS_ALONE = ("two labels", "five labels", "multi_label", "value")
"""Kinds whose rows are one unit each."""
CANDIDATES = ("choices", "spans")
NOISE = (0.6, 0.8, 1.0, 2.5)
METHODS = (
    {"name": "averaging"},
    {"name": "averaging", "space": "logits"},
    {"name": "averaging", "calibrate": "temperature"},
    {"name": "weighted"},
    {"name": "weighted", "weights_from": "validation_scores"},
    {"name": "weighted", "weights_from": "optimised", "space": "logits"},
    {"name": "weighted", "calibrate": "temperature"},
    {"name": "voting"},
    {"name": "voting", "voting": "soft"},
    {"name": "voting", "voting": "soft", "calibrate": "temperature"},
    {"name": "greedy"},
    {"name": "rank_averaging"},
    {"name": "median"},
    {"name": "bayesian_combination"},
    {"name": "bayesian_combination", "calibrate": "temperature"},
    {"name": "stacking"},
    {"name": "stacking", "learner": "gradient_boosting", "num_trees": 8},
)
MERGING = frozenset({"greedy_soup", "slerp", "ties", "uniform_soup"})
ELSEWHERE = frozenset({"minimum_bayes_risk", "span_voting", "token_averaging"}) | MERGING
"""Fusions for one target alone, tested with it, and those that merge weights."""


@dataclass(frozen=True)
class Words(SingleLabel):
    """Tags of words, with plain accuracy over words: a target whose rows have several units with labels."""

    kind: ClassVar[str] = "words"

    @property
    def unit_kind(self):
        return "single_label"

    def strata(self, references, num_folds):
        return np.zeros(self.layout.num_rows, np.int64)


@dataclass(frozen=True)
class Candidates(Target):
    """One of several candidates, the best supported one: judged by its quality."""

    kind: ClassVar[str] = "candidates"
    main_metric: ClassVar[str] = "quality"
    proper_loss: ClassVar[str] = "lost"
    has_labels: ClassVar[bool] = False
    factors: int = 1

    @property
    def num_outputs(self):
        return self.factors

    @property
    def unit_kind(self):
        return "candidate"

    def strata(self, references, num_folds):
        return np.zeros(self.layout.num_rows, np.int64)

    def predicted(self, scores):
        return self.layout.best(scores.prod(-1))

    def qualities(self, scores, references):
        best = self.predicted(scores)
        return np.where(best >= 0, references[np.maximum(best, 0), 0], 0.0)

    def row_losses(self, scores, references):
        support = scores.prod(-1)
        total = self.layout.sums(support)
        good = self.layout.sums(support * references[:, 0])
        return -np.log(np.maximum(good / np.where(total > 0, total, 1), 1e-12))

    def _metrics(self):
        return {"quality": None, "lost": None}

    def higher_is_better(self, metric):
        return self._known(metric) == "quality"

    def measure(self, metric, scores, references):
        values = (self.qualities if metric == "quality" else self.row_losses)(scores, references)
        return lambda counts: counts @ values / counts.sum(1)

    def metrics(self, scores, references):
        once = np.ones((1, self.layout.num_rows))
        return {name: float(self.measure(name, scores, references)(once)[0]) for name in self._metrics()}


def fusion(method: dict) -> Fusion:
    return Fusion.model_validate(method)


def named(method: dict) -> str:
    return "-".join(str(value) for value in method.values())


def goes(method: dict, kind: str) -> bool:
    """Numbers have no confidence to calibrate; all others go together."""
    return not (method.get("calibrate") and kind == "value")


def simulated(kind: str, num_rows: int = 240, *, noise: tuple[float, ...] = NOISE, seed: int = 0):
    """Return (target, scores, references): members that see the gold answer through noise of their own."""
    random = np.random.default_rng(seed)
    if kind == "value":
        gold = random.normal(2, 1.2, num_rows).astype(np.float32)
        return Value(), np.stack([gold[:, None] + n * random.normal(size=(num_rows, 1)) for n in noise]), gold
    if kind == "multi_label":
        gold = (random.random((num_rows, 4)) < 0.25).astype(np.float32)
        logits = [3.5 * gold - 2.5 + 2 * n * random.normal(size=gold.shape) for n in noise]
        return MultiLabel(("anger", "joy", "love", "sadness")), expit(np.stack(logits)), gold
    if kind == "words":
        layout = Layout.of(random.integers(0, 5, num_rows))
        target, scores, gold = _labelled(Words(("O", "B-a", "I-a")), layout.num_units, noise, random)
        return target.over(layout), scores, gold
    if kind in CANDIDATES:
        return _candidates(kind, num_rows, noise, random)
    labels = ("no", "yes") if kind == "two labels" else ("a", "b", "c", "d", "e")
    return _labelled(SingleLabel(labels), num_rows, noise, random)


def _labelled(target: Target, num_units: int, noise: tuple[float, ...], random: np.random.Generator):
    size = target.num_outputs
    gold = random.integers(0, size, num_units)
    logits = [3 * np.eye(size)[gold] + 2 * n * random.normal(size=(num_units, size)) for n in noise]
    return target, softmax(np.stack(logits), axis=-1), gold


def _candidates(kind: str, num_rows: int, noise: tuple[float, ...], random: np.random.Generator):
    """Choices: one of them right. Spans: two factors, qualities between 0 and 1, some rows without any candidate."""
    layout = Layout.of(np.full(num_rows, 4) if kind == "choices" else random.integers(0, 7, num_rows))
    row = layout.row_of
    if kind == "choices":
        quality = np.zeros(layout.num_units)
        quality[layout.splits[:-1] + random.integers(0, 4, num_rows)] = 1.0
    else:
        quality = random.random(layout.num_units).round(1)
    factors = 1 if kind == "choices" else 2
    logits = [3 * quality[:, None] + 2 * n * random.normal(size=(len(row), factors)) for n in noise]
    scores = np.stack([np.exp(one) for one in logits])
    scores /= np.stack([layout.sums(one)[row] for one in scores])
    references = np.stack([quality, random.random(len(row))], axis=1)  # what only metrics read comes after it
    return Candidates(factors=factors).over(layout), scores, references


def apply(combiner, target: Target, scores: np.ndarray) -> np.ndarray:
    """Return fused scores of the target's rows."""
    return combiner(scores, target.layout)


def some(target: Target, scores: np.ndarray, references: np.ndarray, rows: np.ndarray):
    """Return the same of some rows, given by position or by a boolean each."""
    units = target.positions(rows)
    return target.take(rows), scores[:, units], references[units]


def main_metric(target: Target, scores: np.ndarray, references: np.ndarray) -> float:
    return target.metrics(scores, references)[target.main_metric]
