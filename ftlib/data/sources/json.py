"""JSON: one array of objects, in UTF-8; or an object that holds one such array.

Read whole into memory, so for large data JSONL is better. A missing key is a missing value.

    [{"text": "Where is my parcel?", "label": "delivery"}, {"text": "...", "label": "billing"}]

Source: Bray (2017), https://www.rfc-editor.org/rfc/rfc8259.
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


class Json(Source):
    """One array of JSON objects."""

    example_path: ClassVar[str] = "data/train.json"

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest_file(self.path)

    def columns(self) -> list[str]:
        """Return the keys of the objects."""
        return _objects.keys(self._objects())

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return the rows, types as JSON has them."""
        import pyarrow as pa

        objects = self._objects()
        _files.pick(self.path, columns, _objects.keys(objects))
        return pa.table({name: _objects.column(self.path, key, objects) for name, key in columns.items()})

    def _objects(self) -> list[dict[str, Any]]:
        try:
            value = json.loads(_files.read_text(self.path))
        except json.JSONDecodeError as error:
            more = "; where each line is an object, use {name: jsonl, ...}" if error.msg == "Extra data" else ""
            where = f"line {error.lineno:,}, column {error.colno:,}"
            raise DataError(f"{self.path}: {where}: is not valid JSON ({error.msg}){more}.") from None
        except RecursionError:
            raise DataError(f"{self.path}: is nested too deeply to be an array of objects.") from None
        if isinstance(value, dict):
            arrays = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
            value = arrays[0] if len(arrays) == 1 else value
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise DataError(f"{self.path}: holds {_kind(value)}, expected an array of objects: [{{...}}, {{...}}].")
        if not value:
            raise DataError(f"{self.path}: the array is empty.")
        return value


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "an array with other things than objects"
    return "one object" if isinstance(value, dict) else "one value"
