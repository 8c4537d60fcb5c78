"""Sample data that the project makes itself: what customers of a web shop write, in twelve overlapping intents.

For trying things out with no file at hand. It is realistic where it matters: intents overlap, some requests could
be meant either way, and the rows are as untidy as an export from a help desk: duplicates, HTML, mojibake, control
characters, missing texts and labels, wrong labels and conflicting ones. A good model is right in about nine of ten
held-out rows, not in all. Persons, firms and numbers are made up. Not for judging a method: what is learned from
made-up sentences says little about real ones.

Columns: text, label, customer (for `splitting.group_column`).

    {"text": "My refund of $42 has not arrived after ten days. Thanks", "label": "refund", "customer": "C1043"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.data.sources import _phrases, _rare_phrases, _samples, _writing
from ftlib.data.sources._writing import Request, Writer
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[str | None, str | None, str]
COLUMNS = ("text", "label", "customer")
ROWS_A_CUSTOMER = 3


class SupportRequests(Source):
    """Made-up support requests."""

    num_rows: int = Field(4000, ge=10, le=5_000_000)
    """How many rows, noise included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    wrong_label_ratio: float = Field(0.04, ge=0, le=1)
    """Share of rows that somebody filed under another intent."""

    duplicate_ratio: float = Field(0.03, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    conflicting_ratio: float = Field(0.01, ge=0, le=0.5)
    """Share of rows that repeat an earlier text under another label."""

    missing_ratio: float = Field(0.02, ge=0, le=1)
    """Share of rows without a text or without a label."""

    html_ratio: float = Field(0.06, ge=0, le=1)
    """Share of rows with tags and entities left from an email."""

    mojibake_ratio: float = Field(0.03, ge=0, le=1)
    """Share of rows that went through the wrong encoding; those with a character beyond ASCII show it."""

    untidy_ratio: float = Field(0.04, ge=0, le=1)
    """Share of rows with control characters or stray white space."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self, _phrases, _rare_phrases, _writing)

    def columns(self) -> list[str]:
        """Return text, label and customer."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        return _samples.table(self, columns, self._rows())

    def _rows(self) -> Iterator[Row]:
        writer = Writer(self.seed, max(2, self.num_rows // ROWS_A_CUSTOMER))
        return _samples.in_turn(self.num_rows, lambda written: self._again(writer, written) or self._new(writer))

    def _again(self, writer: Writer, written: list[Row]) -> Row | None:
        """Return an earlier row once more, perhaps under another label; None most of the time."""
        copied = writer.chance(self.duplicate_ratio)
        conflicting = not copied and writer.chance(self.conflicting_ratio)
        if not written or not (copied or conflicting):
            return None
        text, label, customer = writer.pick(written)
        return (text, label, customer) if copied else (text, _other_label(writer, label), customer)

    def _new(self, writer: Writer) -> Row:
        request = writer.write()
        label = _other_label(writer, request.label) if writer.chance(self.wrong_label_ratio) else request.label
        if writer.chance(self.missing_ratio):
            return (writer.pick((None, "", "   ")), label, request.customer) if writer.chance(0.5) else (
                request.text, None, request.customer)  # fmt: skip
        return self._damaged(writer, request), label, request.customer

    def _damaged(self, writer: Writer, request: Request) -> str:
        text = request.text
        if writer.chance(self.html_ratio):
            text = _as_html(writer, text)
        if writer.chance(self.untidy_ratio):
            text = _untidy(writer, text)
        return _mojibake(text) if writer.chance(self.mojibake_ratio) else text


def _other_label(writer: Writer, label: str | None) -> str:
    return writer.pick([other for other in _phrases.CORES if other != label])


def _as_html(writer: Writer, text: str) -> str:
    """Return the text as an email program would leave it."""
    escaped = text.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&quot;")
    lines = escaped.split("\n")
    return writer.pick((
        "".join(f"<p>{line}</p>" for line in lines),
        f"<div dir=\"ltr\">{'<br>'.join(lines)}</div>",
        "<br />\n".join(lines).replace(". ", ".&nbsp;"),
        f"<html><head><style>p {{ margin: 0 }}</style></head><body><p>{'<br/>'.join(lines)}</p></body></html>",
        f"{escaped}<br><img src=\"cid:logo\" alt=\"\"><!-- ticket -->",
        escaped.replace(" order", " <b>order</b>").replace(" my ", " <span style='color:#333'>my</span> "),
    ))  # fmt: skip


def _untidy(writer: Writer, text: str) -> str:
    spaces = (
        text.replace(" ", "  ", 3),
        f"\t{text} \r\n",
        text.replace(" ", "\u00a0", 2),
        text.replace(" ", " \u200b", 1),
    )
    controls = (text.replace(" ", "\x0b ", 1), f"\ufeff{text}", f"{text}\x00", f"\x1b[0m{text}")
    return writer.pick((*spaces, *controls))


def _mojibake(text: str) -> str:
    """Return the text as it reads when its UTF-8 is taken for Windows-1252."""
    curly = text.replace("'", "’")
    try:
        return curly.encode("utf-8").decode("cp1252")
    except UnicodeDecodeError:  # Windows-1252 has no character for five bytes
        return curly.encode("utf-8").decode("latin-1")
