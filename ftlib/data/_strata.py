"""Strata: which rows are alike in what is learned, so that every split gets its share of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MAX_BINS = 10


@dataclass(frozen=True)
class Strata:
    """The labels of rows, as numbers.

    Attributes:
        combination: A number for each row's whole set of labels, shape (num_rows,).
        rows: The row of each single label, ascending, shape (num_given,).
        labels: Its number, dense from 0, shape (num_given,).
    """

    combination: np.ndarray
    rows: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray, smallest_share: float) -> Strata:
        """Return the strata of labels; numbers are put into bins of equal size.

        Args:
            column: Names, lists of names, or float64, as `Target.strata_column` gives them.
            smallest_share: Of the splits to be made: bins are large enough to give it two rows.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from ftlib.data._rows import codes, combined

        if pa.types.is_list(column.type):
            lengths = np.asarray(pc.list_value_length(column))
            combination = combined([codes(column)])
            return cls(combination, np.repeat(np.arange(len(column)), lengths), codes(pc.list_flatten(column)))
        if pa.types.is_floating(column.type):
            single = _bins(np.asarray(column), max(1, min(MAX_BINS, int(len(column) * smallest_share / 2))))
        else:
            single = combined([codes(column)])
        return cls(single, np.arange(len(column)), single)


def frequent(counts: np.ndarray, smallest_share: float) -> np.ndarray:
    """Return which strata are large enough for every split to get a row by proportion alone, bool."""
    return counts >= math.ceil(1 / smallest_share)


def _bins(values: np.ndarray, count: int) -> np.ndarray:
    """Return the quantile bin of each value; equal values share one."""
    import numpy as np

    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]
