"""Reading JSON objects into Arrow; shared by the sources of that kind."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 64 << 20


def parse_fast(data: bytes) -> pa.Table | None:
    """Return JSON lines as a table, or None where pyarrow cannot (mixed types, bad lines) or would change values."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    options = arrow_json.ReadOptions(block_size=BLOCK_BYTES)
    try:
        table = arrow_json.read_json(pa.BufferReader(data), read_options=options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    types = [t for field in table.schema for t in (field.type, getattr(field.type, "value_type", None))]
    if any(t is not None and pa.types.is_temporal(t) for t in types):
        return None  # texts that look like dates
    return table


def parse_lines(data: bytes) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return JSON lines one by one: the objects, and for each bad line its text and the reason."""
    objects, bad = [], []
    for number, line in enumerate(data.decode("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            bad.append((line, f"unreadable row: line {number:,} is not JSON ({error.msg}, column {error.colno})"))
            continue
        except RecursionError:
            bad.append((line, f"unreadable row: line {number:,} is nested too deeply"))
            continue
        if isinstance(value, dict):
            objects.append(value)
        else:
            bad.append((line, f"unreadable row: line {number:,} is not a JSON object"))
    return objects, bad


def keys(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every key in use, in order of first appearance."""
    return list(dict.fromkeys(key for row in objects for key in row))


def column(path: str, name: str, objects: list[dict[str, Any]]) -> pa.Array:
    """Return one key's values as a column; a missing key and NaN are null.

    Where types are mixed, single values beside lists become lists of one, and all else text.
    """
    import pyarrow as pa

    values = [None if _is_nan(value := row.get(name)) else value for row in objects]
    kinds = {type(v) for v in values if v is not None}
    if dict in kinds:
        raise DataError(f"{path}: {name!r} holds JSON objects; give a key that holds texts, numbers or lists.")
    if list in kinds:
        return pa.array([None if v is None else list(_texts(v if isinstance(v, list) else [v])) for v in values])
    if kinds <= {bool} or kinds <= {int, float}:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, OverflowError):  # a number that no column type holds
            pass
    return pa.array([None if v is None else next(_texts([v])) for v in values], pa.string())


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """Yield values as text; a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD."""
    for value in values:
        text = value if isinstance(value, str) else json.dumps(value)
        yield text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
