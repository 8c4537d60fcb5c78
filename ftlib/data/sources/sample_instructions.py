"""Sample data that the project makes itself: instructions of a web shop, and what they ask for.

For trying text_generation with no file at hand, with a small model that learns from scratch: what is asked for can be
read off the instruction. Some rows are damaged: duplicates, missing texts, markup, the completion of another row. Not
for judging a method.

Columns: prompt, completion.

    {"prompt": "Name the colour: I would like a red lamp.", "completion": "red"}
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.data.sources import _defects, _samples, _shop
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("prompt", "completion")


class SampleInstructions(Source):
    """Made-up instructions and completions."""

    num_rows: int = Field(3000, ge=10, le=5_000_000)
    """How many rows, damaged ones included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one; short texts repeat by chance, too."""

    missing_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows without one of the texts."""

    html_ratio: float = Field(0.03, ge=0, le=0.3)
    """Share of rows with tags and entities left from a web page."""

    wrong_ratio: float = Field(0.01, ge=0, le=0.2)
    """Share of rows with the completion of another one."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self, _defects, _shop)

    def columns(self) -> list[str]:
        """Return prompt and completion."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        defects = _defects.Defects(self.duplicate_ratio, self.missing_ratio, self.html_ratio, self.wrong_ratio)
        return _samples.table(self, columns, _defects.pairs(Random(self.seed), self.num_rows, _shop.task, defects))
