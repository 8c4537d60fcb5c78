"""TSV: tab-separated text in UTF-8; quotes are plain characters unless said otherwise.

Corpora such as SST-2 and MRPC are distributed so, with quotes that nobody escaped: read as CSV, they lose rows.
A row with another number of columns than the first is kept apart as unreadable, with its line, and rejected by
cleaning. Compressed files (.tsv.gz, .bz2, .zst) are read as they are.

    data: {sources: {train: data/train.tsv}, columns: {text: sentence}}

Source: Lindner (1993), https://www.iana.org/assignments/media-types/text/tab-separated-values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftlib.data.sources import _delimited, _files
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa


class Tsv(Source):
    """Tab-separated text."""

    example_path: ClassVar[str] = "data/train.tsv"
    remedy: ClassVar[str] = _delimited.REMEDY

    header: bool = True
    """Whether the first line names the columns; without, they are called 0, 1, 2..."""

    delimiter: str = Field("\t", min_length=1, max_length=1)
    """What separates the columns."""

    quoting: Literal["standard", "none"] = "none"
    """"none": a quote is a plain character. "standard": values may stand in double quotes, doubled inside."""

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
