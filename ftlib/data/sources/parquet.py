"""Parquet: a columnar file with types, the best format for large data.

Labels may be names, numbers, categories or lists of names. Only the columns in use are read.

    data: {sources: {train: data/train.parquet, test: data/test.parquet}}

Source: https://parquet.apache.org/docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from ftlib.data.sources import _files
from ftlib.data.sources.base import Source
from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class Parquet(Source):
    """A Parquet file."""

    example_path: ClassVar[str] = "data/train.parquet"

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest_file(self.path)

    def columns(self) -> list[str]:
        """Return the names of the file's columns."""
        with self._open() as file:
            return list(file.schema_arrow.names)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return the rows, types as the file has them."""
        import pyarrow as pa

        with self._open() as file:
            _files.pick(self.path, columns, list(file.schema_arrow.names))
            try:
                table = file.read(columns=list(dict.fromkeys(columns.values())))
            except (pa.ArrowException, OSError) as error:
                said = " ".join(str(error).split()).rstrip(".")
                raise DataError(f"{self.path}: is damaged ({said}); fetch or write it again.") from None
        if not len(table):
            raise DataError(f"{self.path}: has columns but no rows.")
        return pa.table({name: table[column] for name, column in columns.items()})

    def _open(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(_files.existing_file(self.path))
        except (pa.ArrowException, OSError):
            raise DataError(f"{self.path}: {self._what_else()}.") from None

    def _what_else(self) -> str:
        """Return what a file is that does not open as Parquet, and what to do."""
        with _files.existing_file(self.path).open("rb") as file:
            begin = file.read(16)
        if begin.startswith(b"PAR1"):
            return "is a damaged Parquet file, cut off perhaps; fetch or write it again"
        if not begin:
            return "the file is empty"
        kind = _files.told_by_magic(begin)
        return f"is not Parquet but {kind}" if kind else "is not a Parquet file; name its kind: {name: csv, path: ...}"
