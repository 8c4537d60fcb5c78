"""LogME: how well frozen features explain the labels, without training anything.

The logarithm of the evidence of a Bayesian linear model of the labels on the features, for each row, its two precisions
(of the weights, alpha; of the noise, beta) chosen so that the evidence is largest. It does not overfit as a fitted head
does, has nothing to tune, and takes one singular value decomposition. Higher is better; only scores on the same rows
can be compared. It says what the features hold as they are: a model that learns much while it is fine-tuned may have a
modest score, so short runs are the better judge where there is time for them.

You et al. (2021), "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
https://arxiv.org/abs/2102.11005, equations 2 to 4; the fixed point by singular values: You et al. (2022), "Ranking and
Tuning Pre-trained Models", https://arxiv.org/abs/2110.10545, algorithm 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MOST_STEPS = 200
TOLERANCE = 1e-6
"""How little alpha / beta changes in a step once it is found, over its size."""

SMALLEST = 1e-5
"""Added to squared lengths before dividing by them, as the authors do: weights or errors may be nothing."""


@dataclass(frozen=True)
class Spectrum:
    """Features, decomposed once for all labels.

    Attributes:
        left: Left singular vectors, shape (num_rows, rank).
        squares: Squared singular values, shape (rank,).
    """

    left: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Spectrum:
        """Decompose features, shape (num_rows, width)."""
        import numpy as np

        left, values, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
        return cls(left, values**2)


def logme(features: np.ndarray, columns: np.ndarray) -> float | None:
    """Return the mean over columns of the maximal log-evidence a row; None where no column varies.

    Args:
        features: Shape (num_rows, width).
        columns: What is explained, shape (num_rows, num_columns): a number, or 1 where a row has the label, else 0.
            A label that no row has, or every row, is left out.
    """
    import numpy as np

    varying = columns[:, np.ptp(columns, axis=0) > 0].astype(np.float64)
    if not varying.size:
        return None
    spectrum = Spectrum.of(features)
    return float(np.mean([log_evidence(spectrum, column) for column in varying.T]))


def log_evidence(spectrum: Spectrum, column: np.ndarray) -> float:
    """Return the maximal log-evidence a row of one column, shape (num_rows,)."""
    import numpy as np

    squares, num_rows = spectrum.squares, len(column)
    inside = (spectrum.left.T @ column) ** 2
    outside = max(float(column @ column - inside.sum()), 0.0)  # what no weights explain
    alpha = beta = 1.0
    for _ in range(MOST_STEPS):
        ratio = alpha / beta
        known = float((squares / (squares + ratio)).sum())
        weights, errors = _lengths(squares, inside, outside, ratio)
        alpha, beta = known / (weights + SMALLEST), (num_rows - known) / (errors + SMALLEST)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    weights, errors = _lengths(squares, inside, outside, alpha / beta)
    shrinking = np.log1p(beta / alpha * squares).sum()  # directions without any feature cancel out
    total = num_rows * np.log(beta / (2 * np.pi)) - shrinking - beta * errors - alpha * weights
    return float(total) / (2 * num_rows)


def _lengths(squares: np.ndarray, inside: np.ndarray, outside: float, ratio: float) -> tuple[float, float]:
    """Return the squared lengths of the most probable weights, and of the errors that they leave."""
    weights = (squares * inside / (squares + ratio) ** 2).sum()
    return float(weights), float((inside * (ratio / (squares + ratio)) ** 2).sum() + outside)
