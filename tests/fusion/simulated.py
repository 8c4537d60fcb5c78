"""Simulated members: scores of known quality for every kind of target."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from ftlib.fusion.base import Fusion
from ftlib.targets.base import Target
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

KINDS = ("two labels", "five labels", "multi_label", "value")
NOISE = (0.6, 0.8, 1.0, 2.5)
METHODS = (
    {"name": "averaging"},
    {"name": "averaging", "space": "logits"},
    {"name": "weighted"},
    {"name": "weighted", "weights_from": "validation_scores"},
    {"name": "weighted", "weights_from": "optimised", "space": "logits"},
    {"name": "voting"},
    {"name": "voting", "voting": "soft"},
    {"name": "greedy"},
    {"name": "stacking"},
    {"name": "stacking", "learner": "gradient_boosting", "num_trees": 8},
)


def fusion(method: dict) -> Fusion:
    return Fusion.model_validate(method)


def named(method: dict) -> str:
    return "-".join(str(value) for value in method.values())


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
    labels = ("no", "yes") if kind == "two labels" else ("a", "b", "c", "d", "e")
    gold = random.integers(0, len(labels), num_rows)
    logits = [3 * np.eye(len(labels))[gold] + 2 * n * random.normal(size=(num_rows, len(labels))) for n in noise]
    return SingleLabel(labels), softmax(np.stack(logits), axis=-1), gold


def main_metric(target: Target, scores: np.ndarray, references: np.ndarray) -> float:
    return target.metrics(scores, references)[target.main_metric]
