"""The linear probe: a linear model is fitted to frozen features, and measured on rows that it was fitted without.

What LogME estimates, measured: in the problem's own metric, by cross-validation, at a multiple of the time. With few
rows and wide features it is the noisier of the two.

Alain & Bengio (2016), "Understanding Intermediate Layers Using Linear Classifier Probes",
https://arxiv.org/abs/1610.01644.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target

NUM_FOLDS = 5
STRENGTH = 1.0
"""Inverse strength of the penalty on logistic weights, of features at unit variance: scikit-learn's `C`."""

RIDGE = 1.0
"""Strength of the penalty on a regression's weights: scikit-learn's `alpha`."""


def probe(features: np.ndarray, labels: np.ndarray, target: Target, *, seed: int) -> float | None:
    """Return the target's main metric of cross-validated linear models; None where it is undefined.

    Args:
        features: Shape (num_units, width).
        labels: As `Target.encode` gives them.
        target: One label, several, or a number.
        seed: Deals the folds.

    Raises:
        DataError: If there are too few rows, or all have one label.
    """
    import numpy as np

    from ftlib.crossfitting import deal_folds

    if len(labels) < 2 * NUM_FOLDS:
        raise DataError(f"a linear probe needs at least {2 * NUM_FOLDS} rows; got {len(labels)}.")
    scaled = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    folds = deal_folds(target.strata(labels, NUM_FOLDS), NUM_FOLDS, seed=seed)
    logits = np.empty((len(labels), target.num_outputs))
    for fold in range(NUM_FOLDS):
        held = folds == fold
        weight, bias = _head(scaled[~held], labels[~held], target)
        logits[held] = scaled[held] @ weight.T + bias
    return target.metric(target.main_metric, target.scores(logits), labels)


def _head(features: np.ndarray, labels: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return a fitted linear head: weight (num_outputs, width) and bias (num_outputs,)."""
    from ftlib.training.logistic import sigmoid_head, softmax_head

    if target.kind == "single_label":
        return softmax_head(features, labels, target.num_outputs, STRENGTH)
    if target.kind == "multi_label":
        return sigmoid_head(features, labels, STRENGTH)
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=RIDGE).fit(features, labels.astype("float64"))
    return fitted.coef_.reshape(1, -1), fitted.intercept_.reshape(1)
