"""Folds for cross-fitting: every row is scored by what was fitted without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def stratified_folds(references: np.ndarray, num_folds: int, *, seed: int) -> np.ndarray:
    """Return each row's fold, shape (num_rows,): sizes within one of each other, and of each stratum's rows too.

    Rows are shuffled, sorted by stratum and dealt out like cards, so a label with fewer rows than folds is spread as
    far as it goes instead of being an error. Strata are labels, for sets of labels the rarest one a row holds, for
    numbers neighbours of like size.

    Args:
        references: Gold answers as `Target.encode` gives them: ids, multi-hot rows or values.
        num_folds: How many folds; no more than there are rows.
        seed: For the shuffling.
    """
    import numpy as np

    num_rows = len(references)
    shuffled = np.random.default_rng(seed).permutation(num_rows)
    order = np.lexsort((shuffled, _strata(references, num_folds)))
    folds = np.empty(num_rows, dtype=np.int64)
    folds[order] = np.arange(num_rows) % num_folds
    return folds


def _strata(references: np.ndarray, num_folds: int) -> np.ndarray:
    import numpy as np

    if references.ndim == 2:
        frequency = references.sum(0)
        rarity = np.where(references > 0, frequency, np.inf)
        return np.where(references.any(1), rarity.argmin(1), -1)
    if np.issubdtype(references.dtype, np.floating):
        rank = np.argsort(np.argsort(references, kind="stable"), kind="stable")
        return rank // num_folds
    return references
