"""Row identities: which rows have equal values, found by column operations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def codes(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return an integer (int64) for each value, equal for equal values; null is a value like any other.

    Lists are equal where they hold the same values in the same order.
    """
    import numpy as np
    import pyarrow as pa

    from ftlib.columns import as_text

    array = pa.array([], column.type) if not len(column) else column
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_list(array.type) and not pa.types.is_nested(array.type.value_type):
        return _list_codes(array)
    if pa.types.is_nested(array.type):
        return codes(as_text(array))
    encoded = array.dictionary_encode(null_encoding="encode")
    return np.array(encoded.indices, dtype=np.int64)


def combined(columns: Iterable[np.ndarray]) -> np.ndarray:
    """Return an integer (int64, dense from 0) for each row, equal where every column's code is."""
    import numpy as np

    result: np.ndarray | None = None
    for column in columns:
        dense = np.unique(column, return_inverse=True)[1]
        if result is None:
            result = dense
        else:
            pairs = result * (int(dense.max(initial=0)) + 1) + dense
            result = np.unique(pairs, return_inverse=True)[1]
    if result is None:
        raise ValueError("no column to combine")
    return result.astype(np.int64)


def input_codes(table: pa.Table, input_columns: Iterable[str]) -> np.ndarray:
    """Return an integer for each row, equal where all of its input is."""
    return combined(codes(table[name]) for name in input_columns)


def group_codes(table: pa.Table) -> np.ndarray:
    """Return an integer (dense from 0) for each row, equal for rows of a group; a row without one is its own."""
    import numpy as np

    found = codes(table["group"])
    alone = np.asarray(table["group"].is_null())
    found[alone] = found.max(initial=0) + 1 + np.arange(alone.sum())
    return combined([found])


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """Return, for each row, the position of the first row with the same key."""
    import numpy as np

    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]


def _list_codes(array: pa.Array) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    inner = pc.cast(pa.array(codes(array.flatten())), pa.string())
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, inner, mask=pc.is_null(array)), ",")
    return codes(joined)
