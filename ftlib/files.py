"""Reading and writing the files inside artifacts: JSON and Parquet, byte for byte reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file: sorted keys, no NaN, one digest for equal content."""
    path.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf8"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as Parquet, without library metadata of the machine that made it."""
    import pyarrow.parquet as pq

    pq.write_table(table.combine_chunks().replace_schema_metadata(None), path, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file as an Arrow table."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns)
