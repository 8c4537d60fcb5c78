"""Read rows for a model that is trained already: its columns under its names, and everything else beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from ftlib.data.contents import read_contents, start_of_paths
from ftlib.data.sources.base import UNREADABLE, Source
from ftlib.errors import DataError, ParamsError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

_MARK = "model:"
"""Before the model's names, which the file may use for other columns."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file.

    Attributes:
        own: The file's columns, as it calls them.
        needed: The columns that the model reads, as it calls them; null where a row could not be read.
        unreadable: Why a row could not be read; null where it could.
    """

    own: pa.Table
    needed: pa.Table
    unreadable: pa.ChunkedArray


def open_source(path: str) -> Source:
    """Return the source for a file, by its ending; the file is there and its columns can be read.

    Raises:
        DataError: If no source reads this ending, or the file cannot be read.
    """
    try:
        source = TypeAdapter(Source).validate_python(path)
    except ValidationError as error:
        raise DataError(error.errors()[0]["msg"]) from None
    source.columns()
    return source


def mapping_of(pairs: Sequence[str], needed: Sequence[str]) -> dict[str, str]:
    """Return the model's column -> the file's column, from "text=message" pairs; the same name where none is given.

    Raises:
        ParamsError: If a pair is none, or names a column that the model does not read.
    """
    mapping = {name: name for name in needed}
    for pair in pairs:
        name, equals, given = pair.partition("=")
        if not equals or not given:
            raise ParamsError(f"--columns {pair}: expected COLUMN=SOURCE, such as --columns {needed[0]}=message.")
        if name not in mapping:
            raise ParamsError(f"--columns {pair}: {unknown('column of the model', name, needed)}")
        mapping[name] = given
    return mapping


def read_rows(source: Source, mapping: Mapping[str, str], files: Sequence[str] = ()) -> Rows:
    """Read all columns of a file.

    Args:
        source: The file.
        mapping: The model's column -> the file's column.
        files: Those of the model's columns that hold files, whose paths start at this file's folder.

    Raises:
        DataError: If a column is not there; the message says how to name another.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    own = dict.fromkeys(source.columns())
    marked = {f"{_MARK}{name}": column for name, column in mapping.items()}
    try:
        table = source.read({**{column: column for column in own}, **marked})
    except DataError as error:
        line = str(error).replace(_MARK, "")
        raise DataError(re.sub(r"data\.columns\.(\w+)", r"--columns \1=COLUMN", line)) from None
    if UNREADABLE in table.column_names:
        unreadable = table[UNREADABLE]
    else:
        unreadable = pa.chunked_array([pa.nulls(len(table), pa.string())])
    fine = pc.is_null(unreadable)
    needed = {name: pc.if_else(fine, table[f"{_MARK}{name}"], None) for name in mapping}
    for name in files:
        found = read_contents(needed[name], name, start_of_paths(source.path, None))
        needed[name] = found.values
        unreadable = pc.coalesce(unreadable, found.reasons)
    return Rows(table.select(list(own)), pa.table(needed), unreadable)
