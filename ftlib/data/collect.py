"""Collecting: every source becomes one table of raw rows, each with its id and its split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.data._gathering import Columns, read, single
from ftlib.data.sources._files import pick
from ftlib.data.sources.base import UNREADABLE, Source
from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

UNLABELLED = "unlabelled"
"""The split of rows without labels: none are read of it."""

SPLITS = ("train", "validation", "fusion", "test", "all", UNLABELLED)
"""Every split a source may stand for, in the order that rows are numbered."""


@dataclass(frozen=True)
class Collected:
    """What collecting gave.

    Attributes:
        table: row_id (int64, running over the splits), split (string), the problem's columns as the source has
            them, and `unreadable` (string) where some rows could not be read.
        summary: {"rows": {split: count}, "columns": [name]}
    """

    table: pa.Table
    summary: dict[str, Any]


def fingerprint(
    sources: Mapping[str, Source],
    columns: Columns | None = None,
    *,
    files: Sequence[str] = (),
    folder: str | None = None,
) -> str:
    """Return one digest of the content of every source, by split, and of the files that their rows name.

    Args:
        sources: Split -> source.
        columns: The problem's column -> the source's column.
        files: Those of the columns that hold files: see `Problem.file_columns`.
        folder: Where their relative paths start; each source's own folder unless given.
    """
    from ftlib.data.contents import digest_paths, start_of_paths

    digests = {split: source.fingerprint() for split, source in sources.items()}
    for split, source in sources.items():
        if source.quick and source.path:  # the others name no files of this machine
            for name in files:
                column = read(source, {name: (columns or {}).get(name, name)})[name]
                digests[f"{split}/{name}"] = digest_paths(column, start_of_paths(source.path, folder))
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def check_columns(sources: Mapping[str, Source], columns: Columns, unlabelled: Collection[str] = ()) -> None:
    """Check that every file is there and has the columns, without reading its rows.

    Sources that cannot be asked quickly (the hub) are left out.

    Args:
        sources: Split -> source.
        columns: The problem's column -> the source's column.
        unlabelled: Those of the columns that rows without labels have.

    Raises:
        DataError: One line for each file or column that is missing, with near names.
    """
    lines = []
    asked = {(repr(source), split == UNLABELLED): (split, source) for split, source in sources.items()}
    for split, source in asked.values():
        try:
            if source.quick:
                wanted = single(_columns_of(split, columns, unlabelled))
                pick(source.path or source.name, wanted, source.columns(), source.remedy)
        except DataError as error:
            lines.append(str(error))
    if lines:
        raise DataError("\n".join(lines))


def collect(
    sources: Mapping[str, Source],
    columns: Columns,
    *,
    files: Sequence[str] = (),
    folder: str | None = None,
    unlabelled: Collection[str] = (),
) -> Collected:
    """Read every source into one table.

    Args:
        sources: Split -> source.
        columns: The problem's column -> the source's column.
        files: Those of the columns that hold files, which become their bytes: see `Problem.file_columns`.
        folder: Where relative paths in them start; each source's own folder unless given.
        unlabelled: Those of the columns that are read of rows without labels.

    Raises:
        DataError: If a source cannot be read, or two sources disagree about what a column holds.
    """
    import pyarrow as pa

    tables = {}
    for split in (s for s in SPLITS if s in sources):
        source = sources[split]
        raw = read(source, _columns_of(split, columns, unlabelled))
        tables[split] = _plain(_with_contents(raw, source, files, folder), source, files)
    names = [*columns, *([UNREADABLE] if any(UNREADABLE in t.column_names for t in tables.values()) else [])]
    rows = {split: len(table) for split, table in tables.items()}
    merged = {name: _merge(name, [_column(t, name) for t in tables.values()]) for name in names}
    split = pa.chunked_array([pa.array([s]).take(pa.array([0] * n)) for s, n in rows.items()], pa.string())
    row_id = pa.array(range(sum(rows.values())), pa.int64())
    return Collected(pa.table({"row_id": row_id, "split": split, **merged}), {"rows": rows, "columns": list(columns)})


def _columns_of(split: str, columns: Columns, unlabelled: Collection[str]) -> Columns:
    return {name: c for name, c in columns.items() if name in unlabelled} if split == UNLABELLED else columns


def _with_contents(table: pa.Table, source: Source, files: Sequence[str], folder: str | None) -> pa.Table:
    """Return the table with its columns of files as bytes; a row whose file cannot be read is unreadable."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ftlib.data.contents import read_contents, start_of_paths

    known = table[UNREADABLE] if UNREADABLE in table.column_names else pa.nulls(len(table), pa.string())
    reasons = known
    for name in files:
        column = table[name]
        if UNREADABLE in table.column_names and name == table.column_names[0]:  # raw lines are no paths
            column = pc.if_else(pc.is_null(known), column, pa.scalar(None, column.type))
        found = read_contents(column, name, start_of_paths(source.path, folder))
        table = table.set_column(table.column_names.index(name), name, found.values)
        reasons = pc.coalesce(reasons, found.reasons)
    if reasons.null_count == len(table) or not files:
        return table
    without = table.drop_columns([UNREADABLE]) if UNREADABLE in table.column_names else table
    return without.append_column(UNREADABLE, reasons)


def _plain(table: pa.Table, source: Source, files: Sequence[str] = ()) -> pa.Table:
    """Return the table with the types that the steps after this know.

    These are string, int64, double, bool, records of such, and lists of all of them but lists.
    """
    import pyarrow as pa

    columns = {}
    for name in table.column_names:
        wanted = table[name].type if name in files else _plain_type(table[name].type)
        try:
            columns[name] = table[name].cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"{source.path or source.name}: the column for {name} is of type {table[name].type}, "
                "expected texts, numbers or lists of them; name another column in data.columns."
            ) from None
    return pa.table(columns)


def _plain_type(given: pa.DataType) -> pa.DataType:
    import pyarrow.types as t
    from pyarrow import field, float64, int64, list_, string, struct

    if t.is_dictionary(given):
        return _plain_type(given.value_type)
    if t.is_list(given) or t.is_large_list(given) or t.is_fixed_size_list(given):
        inner = given.value_type
        nested = t.is_nested(inner) and not t.is_struct(inner)
        return string() if nested else list_(_plain_type(inner))  # lists of lists: the cast refuses them
    if t.is_struct(given):
        return struct([field(part.name, _plain_type(part.type)) for part in given])
    if t.is_integer(given):
        return int64()
    if t.is_floating(given) or t.is_decimal(given):
        return float64()
    return given if t.is_null(given) or t.is_boolean(given) else string()


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    if name in table.column_names:
        return table[name]
    return pa.chunked_array([pa.nulls(len(table))])


def _merge(name: str, parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return one column of all splits; where types differ, numbers widen and the rest becomes text."""
    import pyarrow as pa

    types = {part.type for part in parts} - {pa.null()}
    if {pa.types.is_list(t) for t in types} == {True, False}:
        raise DataError(f"{name}: is a list in one source and a single value in another; give all alike.")
    wanted = next(iter(types), pa.string()) if len(types) <= 1 else _common(types)
    return pa.chunked_array([chunk for part in parts for chunk in part.cast(wanted).chunks], wanted)


def _common(types: set[pa.DataType]) -> pa.DataType:
    import pyarrow as pa

    if types == {pa.int64(), pa.float64()}:
        return pa.float64()
    if any(pa.types.is_struct(getattr(kind, "value_type", kind)) for kind in types):
        tables = [pa.table({"": pa.array([], kind)}) for kind in types]
        return pa.concat_tables(tables, promote_options="permissive").schema.field(0).type
    return pa.list_(pa.string()) if all(pa.types.is_list(t) for t in types) else pa.string()
