"""Write a table of answers as the file's ending says: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ftlib.errors import DataError, ParamsError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

Writer = Callable[["pa.Table", IO[bytes]], None]


def writer_of(path: Path) -> Writer:
    """Return how a file with this ending is written.

    Raises:
        ParamsError: If the ending is not known; the message holds those that are.
    """
    ending = path.suffix.lower().lstrip(".")
    if ending not in WRITERS:
        raise ParamsError(f"{path}: {unknown('ending', ending, WRITERS)}")
    return WRITERS[ending]


def write_rows(table: pa.Table, path: Path | None) -> None:
    """Write a table; as JSON lines to the standard output where there is no path.

    Raises:
        DataError: If the file cannot be written.
    """
    if path is None:
        _write_jsonl(table, sys.stdout.buffer)
        return
    write = writer_of(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as handle:
            write(table, handle)
        draft.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        draft.unlink(missing_ok=True)


def _write_csv(table: pa.Table, handle: IO[bytes]) -> None:
    import pyarrow.csv as csv

    csv.write_csv(_flat(_told(table)), handle)


def _write_tsv(table: pa.Table, handle: IO[bytes]) -> None:
    """Write without quotes, as the tsv source reads; tabs and line breaks within a text become spaces."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = (
        pc.replace_substring_regex(column.cast(pa.string()), r"[\t\r\n]+", " ")
        for column in _flat(_told(table)).columns
    )
    lines = pc.binary_join_element_wise(*texts, "\t", null_handling="replace")
    handle.write("".join(f"{line}\n" for line in ["\t".join(table.column_names), *lines.to_pylist()]).encode())


def _told(table: pa.Table) -> pa.Table:
    """Return the table with bytes (images) as words: how many, and their sha256."""
    import pyarrow as pa

    from ftlib.columns import as_text

    for i, field in enumerate(table.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type) or _holds_bytes(field.type):
            table = table.set_column(i, field.name, as_text(table.column(i)))
    return table


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and any(
        pa.types.is_binary(part.type) or pa.types.is_large_binary(part.type) for part in kind
    )


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with lists as text, "a, b", since CSV knows none; ftlib reads them back as lists."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [None if v is None else ", ".join(map(str, v)) for v in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def _write_jsonl(table: pa.Table, handle: IO[bytes]) -> None:
    for batch in _told(table).to_batches(max_chunksize=10_000):
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in batch.to_pylist())
        handle.write("".join(f"{line}\n" for line in lines).encode())
    handle.flush()


def _write_parquet(table: pa.Table, handle: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, handle, compression="zstd")


WRITERS: dict[str, Writer] = {
    "csv": _write_csv,
    "tsv": _write_tsv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
