"""The Source contract: where raw rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic_core import PydanticCustomError

from ftlib.plugins import Plugin

if TYPE_CHECKING:
    import pyarrow as pa

UNREADABLE = "unreadable"
"""Extra column of a source's table: why a row could not be read; null where it could. Cleaning rejects the row."""

OTHER_ENDINGS = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet"}
COMPRESSED = frozenset({"gz", "bz2", "zst"})
PICKLES = frozenset({"pkl", "pickle", "joblib"})


class Source(Plugin):
    """A place that raw rows are read from, as one Arrow table.

    A params file may write a source as a path alone: its ending names the plugin (``train.tsv`` -> tsv,
    ``train.jsonl.gz`` -> jsonl).
    """

    kind: ClassVar[str] = "source"

    quick: ClassVar[bool] = True
    """Whether `columns` answers at once: no network and no heavy import. Only such sources are asked by
    `ftlib check`; what is wrong with the others shows when the run begins."""

    remedy: ClassVar[str] = ""
    """What else to look at where a column is not found."""

    example_path: ClassVar[str] = ""
    """What a path looks like, where the source cannot do without one."""

    path: str = ""
    """Where the rows are: a file, relative to the current folder or absolute, or the source's own address."""

    def fingerprint(self) -> str:
        """Return a digest of the content that `read` would give: it enters the cache key of `collect`."""
        raise NotImplementedError

    def columns(self) -> list[str]:
        """Return the names of the columns, read cheaply; positions "0", "1"... where there is no header."""
        raise NotImplementedError

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return the rows, with the problem's column names.

        Args:
            columns: The problem's column -> the source's column.

        Returns:
            One column for each key of `columns`, in that order, types as the source has them. Where single rows
            could not be read, a last column `UNREADABLE` says why; their first column holds the raw line.

        Raises:
            DataError: If the file is not there, is not what its ending says, lacks a column or is not UTF-8
                (the message names the byte and the line).
        """
        raise NotImplementedError

    @classmethod
    def from_string(cls, text: str) -> dict[str, Any]:
        """Return the fields that a path alone stands for."""
        if text in cls.available():
            return {"name": text}
        endings = [ending.lower().lstrip(".") for ending in PurePath(text).suffixes]
        if endings and endings[-1] in COMPRESSED:
            endings.pop()
        name = OTHER_ENDINGS.get(endings[-1], endings[-1]) if endings else ""
        if name in PICKLES:
            raise PydanticCustomError(
                "source_pickle",
                "{text}: pickles are refused, since opening one runs what is in it. "
                "Save it as Parquet: df.to_parquet(...)",
                {"text": text},
            )
        if name not in cls.available():
            shown = f"{{name: huggingface, path: {text}}}" if not endings else f"{{name: csv, path: {text}}}"
            raise PydanticCustomError(
                "source_ending",
                "{text}: no source is known by this ending. Name one, for example {shown}; there are: {names}.",
                {"text": text, "shown": shown, "names": ", ".join(cls.available())},
            )
        return {"name": name, "path": text}
