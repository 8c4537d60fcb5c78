"""Labels: reading label columns as sources have them, whole columns at a time.

The same labels reach us as names, ids, numbers that pandas made floats, booleans, lists, or lists written into
one cell. Here they become names, always the same ones, or a reason why not.
"""

from __future__ import annotations

import re
from functools import cache, partial
from typing import TYPE_CHECKING

from ftlib.columns import as_text
from ftlib.errors import DataError, ParamsError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pyarrow as pa

MISSING = "missing label"
NOT_A_NUMBER = "label is not a number:"
IS_A_LIST = "label is a list, expected one label (multi_label: true takes lists)"
IS_NESTED = "label is an object, expected a name or an id"

_SEPARATORS = r"[,;|]"
_BRACKETED = r"^\[.*\]$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
_EXACT = 2.0**53
"""Floats hold every integer up to here."""
_LARGEST = 3.4e38
"""The largest float32, about: models compute in it."""


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one plain array: chunks joined, dictionary and extension types undone."""
    import pyarrow as pa

    array = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
    if isinstance(array, pa.ChunkedArray):
        return pa.nulls(0, array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def is_list(array: pa.Array) -> bool:
    """Return whether each value is a list, of whatever sort."""
    from pyarrow import types

    kind = array.type
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


# -- one label a row -----------------------------------------------------------------------------------


def names(array: pa.Array) -> pa.Array:
    """Return each label's text, trimmed; null where there is none. Whole numbers read as integers: 1.0 is "1".

    Raises:
        DataError: If the column's type has no text, such as bytes that are not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_nested(kind):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _number_names(array)
    try:
        text = pc.utf8_trim(pc.cast(array, pa.string()), _white_space())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"labels of type {kind} cannot be read; expected names, ids or numbers.") from None
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


@cache
def _white_space() -> str:
    """Return what `str.strip` strips; Arrow's own white space is a little less."""
    return "".join(filter(str.isspace, map(chr, range(0x3001))))


def _number_names(array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    none = pa.scalar(None, pa.float64())
    numbers = pc.cast(array, pa.float64(), safe=False)
    finite = pc.fill_null(pc.is_finite(numbers), False)
    whole = pc.and_(pc.equal(numbers, pc.trunc(numbers)), pc.less(pc.abs(numbers), _EXACT))
    integers = pc.cast(pc.cast(pc.if_else(pc.and_(finite, whole), numbers, none), pa.int64()), pa.string())
    shortest = array if pa.types.is_float32(array.type) else numbers  # 2.3 stays "2.3", not "2.299999952316284"
    return pc.coalesce(integers, pc.if_else(finite, pc.cast(shortest, pa.string()), pa.scalar(None, pa.string())))


def positions(values: pa.Array, labels: Sequence[str]) -> pa.Array:
    """Return each name's position in `labels` (int32), null where it is none of them.

    Integers are names where any label is an integer itself ("1" to "5"), positions where none is. ``True`` is
    the label "true" in any case of letters.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = values.dictionary_encode()
    position = _finder(labels)
    lookup = pa.array([position(value) for value in encoded.dictionary.to_pylist()], pa.int32())
    return pc.take(lookup, encoded.indices)


def _finder(labels: Sequence[str]) -> Callable[[str], int | None]:
    by_name = {label: i for i, label in enumerate(labels)}
    by_number = {_integer(label): i for i, label in reversed([*enumerate(labels)]) if _INTEGER.fullmatch(label)}
    booleans = {label.lower(): i for label, i in by_name.items() if label.lower() in ("true", "false")}

    def position(value: str) -> int | None:
        if value in by_name:
            return by_name[value]
        if value.lower() in ("true", "false"):
            return booleans.get(value.lower(), by_number.get(int(value.lower() == "true")))
        if not _INTEGER.fullmatch(value):
            return None
        number = _integer(value)
        if by_number:
            return by_number.get(number)
        return number if 0 <= number < len(labels) else None

    return position


def _integer(text: str) -> int:
    return int(text.partition(".")[0])


def unknown_reason(values: pa.Array) -> pa.Array:
    """Return, for each name, the reason that it is none of the labels; long ones are cut."""
    return _showing("unknown label", values)


def _showing(what: str, values: pa.Array) -> pa.Array:
    """Return, for each text, what is wrong with it and itself, cut where it is long."""
    import pyarrow.compute as pc

    shown = pc.if_else(
        pc.greater(pc.utf8_length(values), 40),
        pc.binary_join_element_wise(pc.utf8_slice_codeunits(values, 0, 37), "...", ""),
        values,
    )
    return pc.binary_join_element_wise(f"{what} '", shown, "'", "")


def in_order(values: Sequence[str]) -> tuple[str, ...]:
    """Return names sorted: as numbers where all are integers, else as text."""
    if all(_INTEGER.fullmatch(value) for value in values):
        return tuple(sorted(values, key=lambda value: (_integer(value), value)))
    return tuple(sorted(values))


# -- several labels a row ------------------------------------------------------------------------------


def lists(array: pa.Array) -> tuple[pa.Array, np.ndarray, pa.Array]:
    """Return the labels of rows that hold several.

    Takes lists, or text with the labels parted by comma, semicolon or bar, in square brackets or not.

    Returns:
        The names of all rows, one after the other; each name's row number; which rows are missing (bool).
    """
    return _listed(array) if is_list(array) else _written(names(array))


def _listed(array: pa.Array) -> tuple[pa.Array, np.ndarray, pa.Array]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    values, rows = names(flat(array.flatten())), _row_numbers(array)
    missing = np.asarray(pc.is_null(array))
    missing[rows[np.asarray(pc.is_null(values))]] = True
    present = np.asarray(pc.is_valid(values))
    return values.filter(pa.array(present)), rows[present], pa.array(missing)


def _written(text: pa.Array) -> tuple[pa.Array, np.ndarray, pa.Array]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    bracketed = pc.fill_null(pc.match_substring_regex(text, _BRACKETED), False)
    inner = pc.if_else(bracketed, pc.utf8_slice_codeunits(text, 1, -1), text)
    parts = pc.split_pattern_regex(inner, _SEPARATORS)
    rows = _row_numbers(parts)
    values = pc.utf8_trim(parts.flatten(), _white_space())
    values = pc.if_else(pc.take(bracketed, pa.array(rows)), pc.utf8_trim(values, _white_space() + "'\""), values)
    present = np.asarray(pc.not_equal(values, ""))
    counts = np.bincount(rows[present], minlength=len(text))
    missing = (counts == 0) & ~np.asarray(bracketed)
    return values.filter(pa.array(present)), rows[present], pa.array(missing)


def _row_numbers(array: pa.Array) -> np.ndarray:
    import numpy as np
    import pyarrow.compute as pc

    return np.repeat(np.arange(len(array)), np.asarray(pc.fill_null(pc.list_value_length(array), 0)))


def gather(values: Sequence[str], rows: np.ndarray, ids: np.ndarray, missing: pa.Array) -> pa.Array:
    """Return lists of names from (row, id) pairs: each name once, in the order of `values`; null where `missing`."""
    import numpy as np
    import pyarrow as pa

    pairs = np.unique(rows.astype(np.int64) * max(1, len(values)) + ids)
    offsets = np.zeros(len(missing) + 1, np.int32)
    np.cumsum(np.bincount(pairs // max(1, len(values)), minlength=len(missing)), out=offsets[1:])
    flat_names = pa.array(list(values), pa.string()).take(pa.array(pairs % max(1, len(values))))
    return pa.ListArray.from_arrays(pa.array(offsets), flat_names, mask=missing)


# -- a number a row ------------------------------------------------------------------------------------


def numbers(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return labels as float64, null where there is none, and the reasons for those (null where fine)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = pc.cast(array, pa.float64(), safe=False)
        missing = pc.is_null(values, nan_is_null=True)
    else:
        textual = not (pa.types.is_boolean(kind) or pa.types.is_nested(kind))
        text = names(array) if textual else pa.nulls(len(array), pa.string())
        missing = pc.is_null(text if textual else array)
        readable = pc.fill_null(pc.match_substring_regex(text, _NUMBER), False)
        values = pc.cast(pc.if_else(readable, text, pa.scalar(None, pa.string())), pa.float64())
    usable = pc.fill_null(pc.less_equal(pc.abs(values), _LARGEST), False)
    strange = pc.and_not(pc.invert(usable), missing)
    reasons = reason(missing, MISSING)
    if pc.any(strange).as_py():
        shown = pc.fill_null(flat(as_text(array)), "null")  # a list that holds nothing but nulls
        reasons = pc.if_else(strange, _showing(NOT_A_NUMBER, shown), reasons)
    return pc.if_else(usable, values, pa.scalar(None, pa.float64())), reasons


def reason(where: pa.Array, text: str, otherwise: pa.Array | None = None) -> pa.Array:
    """Return `text` where a condition holds, else `otherwise` (null unless given)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    none = partial(pa.scalar, None, pa.string())
    return pc.if_else(where, pa.scalar(text), none() if otherwise is None else otherwise)


def as_list(values: pa.Array) -> list[str]:
    """Return an Arrow array of strings as a Python list without nulls."""
    return [value for value in values.to_pylist() if value is not None]


# -- names to ids --------------------------------------------------------------------------------------


def check(labels: Sequence[str]) -> None:
    """Refuse label names that are empty, padded with white space, or given twice (ParamsError)."""
    seen: set[str] = set()
    for label in labels:
        if not label or label != label.strip():
            raise ParamsError(f"labels: {label!r} is empty or begins or ends with white space; name it without.")
        if label in seen:
            raise ParamsError(f"labels: {label!r} is given twice; names are unique.")
        seen.add(label)


def check_complete(column: pa.Array) -> None:
    """Refuse a label column with nulls (DataError)."""
    if column.null_count:
        raise DataError(f"{column.null_count:,} of {len(column):,} labels are missing; reject these rows first.")


def ids(values: pa.Array, labels: Sequence[str]) -> np.ndarray:
    """Return positions of canonical names in `labels`, int64; one that is missing or unknown is a DataError."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    check_complete(values)
    found = pc.index_in(values, value_set=pa.array(labels, pa.string()))
    if found.null_count:
        wrong = values.filter(pc.is_null(found))
        raise DataError(f"{len(wrong):,} of {len(values):,} labels: {unknown('label', wrong[0].as_py(), labels)}")
    return np.asarray(found, dtype=np.int64)
