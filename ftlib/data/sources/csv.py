"""CSV: comma-separated text in UTF-8, quoted as RFC 4180 says.

A row with another number of columns than the first is kept apart as unreadable, with its line, and rejected by
cleaning. Every value is read as text: a text "007" or "NA" stays what it is, and the problem reads the labels.
Compressed files (.csv.gz, .bz2, .zst) are read as they are.

    data: {sources: {train: data/train.csv, test: {name: csv, path: data/test.csv, delimiter: ";"}}}

Source: Shafranovich (2005), "Common Format and MIME Type for CSV Files", https://www.rfc-editor.org/rfc/rfc4180.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftlib.data.sources import _delimited, _files
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa


class Csv(Source):
    """Comma-separated text."""

    example_path: ClassVar[str] = "data/train.csv"
    remedy: ClassVar[str] = _delimited.REMEDY

    header: bool = True
    """Whether the first line names the columns; without, they are called 0, 1, 2..."""

    delimiter: str = Field(",", min_length=1, max_length=1)
    """What separates the columns."""

    quoting: Literal["standard", "none"] = "standard"
    """"standard": values may stand in double quotes, doubled inside. "none": a quote is a plain character."""

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest_file(self.path)

    def columns(self) -> list[str]:
        """Return the header's names, or positions."""
        return _delimited.columns(self.path, self._dialect())

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return the rows, all values as text."""
        return _delimited.read(self.path, self._dialect(), columns)

    def _dialect(self) -> _delimited.Dialect:
        return _delimited.Dialect(self.delimiter, self.quoting, self.header)
