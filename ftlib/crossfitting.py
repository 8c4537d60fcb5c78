"""Folds for cross-fitting: every row is scored by what was fitted without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def deal_folds(strata: np.ndarray, num_folds: int, *, seed: int) -> np.ndarray:
    """Return each row's fold, shape (num_rows,): sizes within one of each other, and of each stratum's rows too.

    Rows are shuffled, sorted by stratum and dealt out like cards, so a label with fewer rows than folds is spread as
    far as it goes instead of being an error.

    Args:
        strata: An integer a row, such as `Target.strata` gives.
        num_folds: How many folds; no more than there are rows.
        seed: For the shuffling.
    """
    import numpy as np

    num_rows = len(strata)
    shuffled = np.random.default_rng(seed).permutation(num_rows)
    order = np.lexsort((shuffled, strata))
    folds = np.empty(num_rows, dtype=np.int64)
    folds[order] = np.arange(num_rows) % num_folds
    return folds
