"""Layouts: which units a row has, where what is predicted for it is more than one thing.

A unit is what scores are given to: the row itself where it has one answer, else each word of a tagged text, or
each candidate among which the answer is chosen (a choice, a span, a generated text). Scores and references have one
line a unit, rows one after the other; so fusions treat words and candidates as they treat rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Layout:
    """The units of some rows.

    Attributes:
        splits: Where each row's units begin, and the last one's end, int64, shape (num_rows + 1,).
        units: What each unit is, one line a unit, where decoding needs it: a candidate's text, a span's offsets.
    """

    splits: np.ndarray
    units: pa.Table | None = None

    @classmethod
    def of(cls, counts: np.ndarray, units: pa.Table | None = None) -> Layout:
        """Return the layout of rows that have so many units each, shape (num_rows,)."""
        import numpy as np

        return cls(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), units)

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.splits) - 1

    @property
    def num_units(self) -> int:
        """How many units they have together."""
        return int(self.splits[-1])

    @property
    def counts(self) -> np.ndarray:
        """How many units each row has, shape (num_rows,)."""
        import numpy as np

        return np.diff(self.splits)

    @property
    def row_of(self) -> np.ndarray:
        """The row of each unit, shape (num_units,)."""
        import numpy as np

        return np.repeat(np.arange(self.num_rows), self.counts)

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return where the units of some rows are, in the order of `rows`.

        Args:
            rows: Positions of rows, or a boolean for each.
        """
        import numpy as np

        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        return np.arange(counts.sum()) + np.repeat(self.splits[rows] - (ends - counts), counts)

    def take(self, rows: np.ndarray) -> Layout:
        """Return the layout of some rows, in the order of `rows` (positions, or a boolean for each)."""
        import numpy as np
        import pyarrow as pa

        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        units = None if self.units is None else self.units.take(pa.array(self.positions(rows)))
        return Layout.of(self.counts[rows], units)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each row's units, shape (num_rows, ...); 0 where a row has none."""
        import numpy as np

        columns = values.reshape(len(values), math.prod(values.shape[1:])).T
        # Not from a running sum: that would round a row by the rows before it.
        sums = [np.bincount(self.row_of, weights=column, minlength=self.num_rows) for column in columns]
        return np.stack(sums, axis=-1, dtype=np.float64).reshape(self.num_rows, *values.shape[1:])

    def best(self, values: np.ndarray) -> np.ndarray:
        """Return where each row's highest value is, the first of equals; -1 where a row has no unit.

        Args:
            values: One a unit, shape (num_units,).
        """
        import numpy as np

        order = np.lexsort((-np.arange(len(values)), values, self.row_of))  # ascending; the last of a row is best
        has = self.counts > 0
        best = np.full(self.num_rows, -1, dtype=np.int64)
        best[has] = order[self.splits[1:][has] - 1]
        return best
