"""Logarithms of probabilities that may be 0 or 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SMALLEST = 1e-12
"""Probabilities below it count as it where a logarithm is taken: no member alone can veto a label for ever."""


def log(scores: np.ndarray, smallest: float = SMALLEST) -> np.ndarray:
    """Return log(p), with p kept away from 0."""
    import numpy as np

    return np.log(np.maximum(scores, smallest))


def log_odds(scores: np.ndarray, smallest: float = SMALLEST) -> np.ndarray:
    """Return log(p / (1 - p)), with p kept away from 0 and 1."""
    import numpy as np
    from scipy.special import logit

    return logit(np.clip(scores, smallest, 1 - smallest))
