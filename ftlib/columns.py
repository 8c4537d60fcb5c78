"""Columns: values of any kind as text, so that rows can be shown, told apart and matched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def as_text(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """Return a column as text, null where it is null: lists of names joined by comma, anything nested as JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    kind = chunked.type
    if pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type) and not pa.types.is_binary(kind.value_type):
        return pc.binary_join(chunked.cast(pa.list_(pa.string())), ", ")
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        texts = [None if value is None else _json(value) for value in chunked.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return chunked.cast(pa.string())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: Any) -> str:
    import hashlib

    if isinstance(value, bytes):
        return f"{len(value):,} bytes, sha256 {hashlib.sha256(value).hexdigest()}"
    return str(value)
