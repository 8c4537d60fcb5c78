"""Columns of files (images): paths become what the files hold.

So a row is its content wherever it came from: the same picture under two names is a duplicate, and a leak is found; a
file that changes gives another cache key; and what is collected can be read on any machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    Column: TypeAlias = "pa.ChunkedArray | pa.Array"

DATA_URI = "data:"


@dataclass(frozen=True)
class Contents:
    """What a column of files holds.

    Attributes:
        values: The bytes of each file (large_binary); null where there are none.
        reasons: Why a file could not be read (string; null where it could, or where none is named).
    """

    values: pa.Array
    reasons: pa.Array


def read_contents(column: Column | Sequence[Any], name: str, folder: Path) -> Contents:
    """Return the bytes of files.

    Args:
        column: A file each: its bytes, a path, a data URI (data:image/png;base64,...), or {"bytes", "path"}, as the
            Hugging Face hub has images.
        name: What the column is called in reasons.
        folder: Where relative paths start.
    """
    import pyarrow as pa

    values: list[bytes | None] = []
    reasons: list[str | None] = []
    for value in column:
        content, reason = _read(value.as_py() if isinstance(value, pa.Scalar) else value, name, folder)
        values.append(content)
        reasons.append(reason)
    return Contents(pa.array(values, pa.large_binary()), pa.array(reasons, pa.string()))


def _read(value: Any, name: str, folder: Path) -> tuple[bytes | None, str | None]:
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return (bytes(value), None) if len(value) else (None, f"empty {name}")
    if not isinstance(value, str) or not value.strip():
        return None, None
    if value.startswith(DATA_URI):
        return _decoded(value, name)
    try:
        return (folder / Path(value).expanduser()).read_bytes() or None, None
    except (OSError, ValueError, RuntimeError) as error:  # a name with a NUL, a home of nobody's
        what = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or "no path"
        return None, f"unreadable {name}: {what} {_short(value)}"


def _decoded(uri: str, name: str) -> tuple[bytes | None, str | None]:
    head, _, body = uri.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(body, validate=True) or None, None
    except (ValueError, binascii.Error):
        return None, f"unreadable {name}: not a data URI in base64"


def _short(value: str) -> str:
    return repr(value if len(value) <= 80 else f"...{value[-77:]}")


def digest_paths(column: Column, folder: Path) -> str:
    """Return a digest of the files that a column names by their paths: of their content, in the rows' order."""
    import pyarrow as pa

    digest = hashlib.sha256()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_struct(column.type):
        for value in column:
            content, reason = _read(value.as_py(), "", folder)
            digest.update(hashlib.sha256(content or (reason or "").encode()).digest())
    return digest.hexdigest()


def start_of_paths(source_path: str, folder: str | None) -> Path:
    """Return where relative paths start: the folder given, else the source file's own, else the current one.

    Raises:
        DataError: If there is no such folder.
    """
    if folder is not None:
        given = Path(folder).expanduser()
        if not given.is_dir():
            raise DataError(f"data.folder: {folder}: no such folder; paths in the rows start there.")
        return given
    file = Path(source_path).expanduser()
    return file.parent if source_path and file.is_file() else Path()


def packed(values: Sequence[Any] | Column) -> Column:
    """Return values of any form that `read_contents` takes as one column, so that a table can hold them."""
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    return pa.array([_pair(value) for value in values], pa.struct({"bytes": pa.large_binary(), "path": pa.string()}))


def _pair(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(value), "path": None}
    return {"bytes": None, "path": value} if isinstance(value, str) else None
