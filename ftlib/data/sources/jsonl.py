"""JSONL: one JSON object a line, in UTF-8.

A line that is not a JSON object is kept apart as unreadable, with its number, and rejected by cleaning. A missing
key is a missing value. Labels may be names, numbers, true/false or lists of names. Compressed files (.jsonl.gz,
.bz2, .zst) are read as they are; .ndjson is the same format.

    {"text": "Where is my parcel?", "label": "delivery"}

Source: https://jsonlines.org.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.data.sources import _files, _objects
from ftlib.data.sources.base import Source
from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

LINES_LOOKED_AT = 1000
"""How many lines `columns` looks at: keys may be missing from some."""


class Jsonl(Source):
    """One JSON object a line."""

    example_path: ClassVar[str] = "data/train.jsonl"

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest_file(self.path)

    def columns(self) -> list[str]:
        """Return the keys of the first lines."""
        head = self._checked(_files.read_head(self.path)).decode("utf-8", errors="replace")
        objects: list[dict[str, Any]] = []
        for line in head.split("\n")[:LINES_LOOKED_AT]:
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError):  # a bad line, or one cut by the end of the look
                continue
            objects += [value] if isinstance(value, dict) else []
        if not objects and len(head) >= _files.HEAD_BYTES // 4:  # a first line that is longer than the look
            objects = _objects.parse_lines(self._checked(_files.read_text(self.path)))[0]
        return _objects.keys(objects) or self._no_objects(head)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return the rows, types as JSON has them."""
        import pyarrow as pa

        data = self._checked(_files.read_text(self.path))
        table = _objects.parse_fast(data)
        if table is not None:
            _files.pick(self.path, columns, table.column_names)
            return pa.table({name: table[key] for name, key in columns.items()})
        objects, bad = _objects.parse_lines(data)
        if not objects:
            raise DataError(
                f"{self.path}: {bad[0][1].removeprefix('unreadable row: ')}; each line must hold one object."
            )
        _files.pick(self.path, columns, _objects.keys(objects))
        good = pa.table({name: _objects.column(self.path, key, objects) for name, key in columns.items()})
        return _files.with_unreadable(good, bad)

    def _checked(self, data: bytes) -> bytes:
        if data.lstrip()[:1] == b"[":
            raise DataError(
                f"{self.path}: is one JSON array, not one object a line; use {{name: json, path: {self.path}}}."
            )
        return data

    def _no_objects(self, head: str) -> list[str]:
        shown = head.strip().split("\n")[0][:60]
        raise DataError(f"{self.path}: line 1 is not a JSON object: {shown!r}; each line must hold one object.")
