"""Several columns of a source as one column of lists: ``choices: [ending0, ending1, ending2, ending3]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.data.sources.base import Source

Columns: TypeAlias = "Mapping[str, str | tuple[str, ...]]"
"""The problem's column -> the source's column, or several that make a list."""


def single(columns: Columns) -> dict[str, str]:
    """Return the columns to read, one by one: those of a list as <name>.0, <name>.1..."""
    found: dict[str, str] = {}
    for name, given in columns.items():
        parts = {name: given} if isinstance(given, str) else {f"{name}.{i}": part for i, part in enumerate(given)}
        found |= parts
    return found


def read(source: Source, columns: Columns) -> pa.Table:
    """Return what `Source.read` gives, several columns gathered into lists; missing values are left out of them."""
    import pyarrow as pa

    table = source.read(single(columns))
    for name, given in columns.items():
        if isinstance(given, str):
            continue
        parts = [table[f"{name}.{i}"].cast(pa.string()).to_pylist() for i in range(len(given))]
        lists = [[value for value in row if value is not None] for row in zip(*parts, strict=True)]
        place = table.column_names.index(f"{name}.0")
        table = table.drop_columns([f"{name}.{i}" for i in range(len(given))])
        table = table.add_column(place, name, pa.array(lists, pa.list_(pa.string())))
    return table
