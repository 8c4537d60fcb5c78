"""Logistic regression as the weights of a linear head."""

from __future__ import annotations

import numpy as np

from ftlib.errors import DataError

NEVER = 20.0
"""How far below all others a label's score is that no row has."""


def softmax_head(features: np.ndarray, labels: np.ndarray, num_labels: int, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (num_labels, width) and bias (num_labels,) whose softmax is the fitted regression.

    Args:
        features: Shape (num_rows, width).
        labels: Label ids, shape (num_rows,).
        num_labels: How many labels there are.
        c: Inverse strength of the L2 penalty, as scikit-learn's `C`.

    Raises:
        DataError: If all rows have one label.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise DataError("all training rows have one label: nothing can be told apart; add rows of another.")
    fitted = LogisticRegression(C=c, max_iter=1000).fit(features, labels)
    weight, bias = np.zeros((num_labels, features.shape[1])), np.full(num_labels, -np.inf)
    two = len(fitted.classes_) == 2  # scikit-learn gives one vector, the second label's over the first's
    weight[fitted.classes_] = np.stack([-fitted.coef_[0], fitted.coef_[0]]) / 2 if two else fitted.coef_
    bias[fitted.classes_] = np.array([-1, 1]) * fitted.intercept_[0] / 2 if two else fitted.intercept_
    return weight, np.where(np.isfinite(bias), bias, bias[np.isfinite(bias)].min() - NEVER)


def sigmoid_head(features: np.ndarray, labels: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of one regression a label; a label that all rows have, or none, gets its share alone.

    Args:
        features: Shape (num_rows, width).
        labels: 0 or 1, shape (num_rows, num_labels).
        c: As in `softmax_head`.
    """
    from sklearn.linear_model import LogisticRegression

    share = (labels.sum(axis=0) + 0.5) / (len(labels) + 1)
    weight, bias = np.zeros((labels.shape[1], features.shape[1])), np.log(share / (1 - share))
    for label in np.flatnonzero((labels.min(axis=0) == 0) & (labels.max(axis=0) == 1)):
        fitted = LogisticRegression(C=c, max_iter=1000).fit(features, labels[:, label])
        weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
    return weight, bias
