"""The Source contract: where raw rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic_core import PydanticCustomError

from ftlib.plugins import Plugin

if TYPE_CHECKING:
    import pyarrow as pa


class Source(Plugin):
    """A place that raw rows are read from, as one Arrow table.

    A params file may write a source as a path alone: its ending names the plugin (``train.tsv`` -> tsv).
    """

    kind: ClassVar[str] = "source"

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
            One column for each key of `columns`, in that order, types as the source has them.

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
        name = PurePath(text).suffix.lower().lstrip(".")
        if name in {"pkl", "pickle", "joblib"}:
            raise PydanticCustomError(
                "source_pickle",
                "{text}: pickles are refused, since opening one runs what is in it. Save it as Parquet: df.to_parquet(...)",
                {"text": text},
            )
        if name not in cls.available():
            raise PydanticCustomError(
                "source_ending",
                "{text}: no source reads this ending. Write {{name: ..., path: ...}} with one of: {names}".replace("{{", "").replace("}}", ""),
                {"text": text, "names": ", ".join(cls.available())},
            )
        return {"name": name, "path": text}
