"""Rejections: why rows are not used, the first reason of a row counting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftlib.data.sources.base import UNREADABLE
from ftlib.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KINDS = (
    r"(?s)^((?:unreadable|short|unknown|misplaced|ambiguous) \w+|duplicate|conflicting labels|leak"
    r"|out of turn|empty message|label is not a number)\b.*$"
)
"""Reasons that go on after their kind, as "unknown label 'bilign'" does; any other is a kind itself."""


class Rejections:
    """The reason of each row that is rejected, collected check by check.

    Args:
        num_rows: How many rows there are.
    """

    def __init__(self, num_rows: int) -> None:
        import pyarrow as pa

        self._reasons: pa.Array = pa.nulls(num_rows, pa.string())

    def add(self, reasons: pa.ChunkedArray | pa.Array) -> None:
        """Add a check's reasons, one a row (null: fine); a row that has a reason already keeps it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        new = (
            pa.concat_arrays(reasons.chunks) if isinstance(reasons, pa.ChunkedArray) and reasons.num_chunks else reasons
        )
        if len(self._reasons):
            self._reasons = pc.coalesce(self._reasons, new)

    def add_rows(self, rows: np.ndarray, reasons: pa.ChunkedArray | pa.Array) -> None:
        """Add reasons for some rows, given by their positions in ascending order."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if len(rows):
            mask = np.zeros(len(self._reasons), bool)
            mask[rows] = True
            new = pa.concat_arrays(reasons.chunks) if isinstance(reasons, pa.ChunkedArray) else reasons
            self._reasons = pc.replace_with_mask(self._reasons, pa.array(mask), new)

    def open(self) -> np.ndarray:
        """Return which rows have no reason yet, bool."""
        import numpy as np

        return np.asarray(self._reasons.is_null())

    def reasons(self) -> pa.Array:
        """Return each row's reason, null where it is kept."""
        return self._reasons

    def counts(self) -> dict[str, int]:
        """Return the number of rows by kind of reason, the most frequent first."""
        return counts_by_kind(self._reasons)


def counts_by_kind(reasons: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    """Return the number of rows by kind of reason (null: none), the most frequent first."""
    import pyarrow.compute as pc

    kinds = pc.replace_substring_regex(reasons.drop_null(), KINDS, r"\1")
    found = {item["values"]: item["counts"] for item in kinds.value_counts().to_pylist()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def unreadable(table: pa.Table) -> pa.ChunkedArray:
    """Return why rows could not be read, null where they could."""
    import pyarrow as pa

    if UNREADABLE in table.column_names:
        return table[UNREADABLE]
    return pa.chunked_array([pa.nulls(len(table), pa.string())])


def label_as_text(table: pa.Table, column: str) -> pa.Table:
    """Return the table with its label column as text, lists joined by comma."""
    from ftlib.columns import as_text

    return table.set_column(table.column_names.index(column), column, as_text(table[column]))


def check_rejected(summary: dict[str, Any], rejected: pa.Table, max_ratio: float) -> None:
    """Stop where too many rows were rejected, or all of a split (DataError)."""
    counts = ", ".join(f"{n:,} {kind}" for kind, n in summary["rejected"].items())
    read, num_rejected = summary["read"], len(rejected)
    if read == 0:
        raise DataError("there are no rows to clean; check the files in data.sources.")
    for split, rows in summary["by_split"].items():
        if not rows["kept"]:
            raise DataError(
                f"split {split!r}: none of its {rows['read']:,} rows can be used (of all rows rejected: {counts}). "
                f"{_example(rejected, split)} Check data.sources.{split}, data.columns and the labels."
            )
    if num_rejected > max_ratio * read:
        raise DataError(
            f"{num_rejected:,} of {read:,} rows are rejected ({counts}), more than cleaning.max_rejected_ratio "
            f"{max_ratio:g} allows. {_example(rejected)} Check data.columns and the labels, or allow more."
        )


def _example(rejected: pa.Table, split: str | None = None) -> str:
    import pyarrow.compute as pc

    rows = rejected.filter(pc.equal(rejected["split"], split)) if split else rejected
    return f"The first: {rows['reason'][0].as_py()}."
