"""What the sources of made-up rows share: their digest, their table, and rows that come more than once."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from ftlib.data.sources import _files

if TYPE_CHECKING:
    from random import Random

    import pyarrow as pa

    from ftlib.data.sources.base import Source

Row = TypeVar("Row", bound=tuple[Any, ...])


def fingerprint(source: Source, *modules: ModuleType) -> str:
    """Return a digest of a source's parameters and of the code that writes its rows.

    Args:
        source: The source; its own module counts.
        modules: Further modules that write its rows.
    """
    digest = hashlib.sha256(source.model_dump_json(exclude={"path"}).encode())
    for file in (inspect.getfile(type(source)), *(inspect.getfile(module) for module in modules), __file__):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def table(
    source: Source,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    types: Mapping[str, pa.DataType] = MappingProxyType({}),
) -> pa.Table:
    """Return the wanted columns of made-up rows.

    Args:
        source: The source.
        columns: The problem's column -> the source's column.
        rows: Values in the order of the source's columns; drawn only once the columns are known to be there.
        types: Of the columns that hold no text.

    Raises:
        DataError: If the source has no such column; with the near names.
    """
    import pyarrow as pa

    names = source.columns()
    _files.pick(source.name, columns, names)
    values = dict(zip(names, zip(*rows, strict=True), strict=True))
    return pa.table({name: pa.array(values[c], types.get(c, pa.string())) for name, c in columns.items()})


def in_turn(num_rows: int, write: Callable[[list[Row]], Row]) -> Iterator[Row]:
    """Yield rows, each written with those before it at hand."""
    written: list[Row] = []
    for _ in range(num_rows):
        written.append(write(written))
        yield written[-1]


def with_copies(random: Random, num_rows: int, ratio: float, write: Callable[[list[Row]], Row]) -> Iterator[Row]:
    """Yield rows, some of which are an exact copy of an earlier one: see `again` and `in_turn`."""
    return in_turn(num_rows, lambda written: again(random, written, ratio) or write(written))


def again(random: Random, written: Sequence[Row], ratio: float) -> Row | None:
    """Return an earlier row once more, at that ratio; None otherwise."""
    return random.choice(written) if written and random.random() < ratio else None
