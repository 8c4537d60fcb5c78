"""CoNLL: a word a line with its tags in columns, a blank line between sentences.

    EU NNP B-NP B-ORG
    rejects VBZ B-VP O

Columns are parted by tabs where the file has any, else by spaces. Blank lines may hold white space, or tabs alone;
lines may end as on Windows; -DOCSTART- lines begin a document; a line that begins with # and has not the file's number
of columns is a comment. Any other line of another number of columns makes its sentence unreadable: it is kept apart
with its line number, and rejected by cleaning. Compressed files (.conll.gz...) are read as they are.

Columns: tokens (the sentence's words), tags, and document (a number; null where the file has no -DOCSTART-), for
`splitting.group_column`.

    data: {sources: {train: {name: conll, path: train.txt, tag_column: 3}}}

Source: Tjong Kim Sang & De Meulder (2003), "Introduction to the CoNLL-2003 Shared Task",
https://aclanthology.org/W03-0419, section 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftlib.data.sources import _files
from ftlib.data.sources.base import Source
from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

DOCUMENT = "-DOCSTART-"
COLUMNS = ("tokens", "tags", "document")
SPACES = re.compile(r"[ \t]+")
HEAD_LINES = 2000
"""Lines by which a file's number of columns is told."""


class Conll(Source):
    """A word a line, with its tags in columns."""

    example_path: ClassVar[str] = "data/train.conll"
    remedy: ClassVar[str] = "A CoNLL file gives tokens, tags and document; tag_column says which column the tags are."

    token_column: int = Field(0, ge=0)
    """The column of the words, from 0."""

    tag_column: int = -1
    """The column of the tags, from 0, or from the end: -1 is the last one."""

    separator: Literal["auto", "tab", "space"] = "auto"
    """What parts the columns; auto: tabs, where there are any. With tab, a word may hold spaces."""

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest_file(self.path)

    def columns(self) -> list[str]:
        """Return tokens, tags and document; no tags where the file has words alone."""
        layout = self._layout(_files.read_head(self.path).decode("utf-8", errors="replace"))
        return [name for name in COLUMNS if name != "tags" or layout.tags is not None]

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return a row a sentence: lists of words and of tags."""
        import pyarrow as pa

        text = _files.read_text(self.path).decode("utf-8")
        layout = self._layout(text)
        _files.pick(self.path, columns, self.columns(), self.remedy)
        found = list(_sentences(text, layout))
        if not found:
            raise DataError(f"{self.path}: holds no sentence.")
        fine = [sentence for sentence in found if not sentence.wrong]
        words = pa.list_(pa.string())
        table = pa.table({
            "tokens": pa.array([sentence.tokens for sentence in fine], words),
            "tags": pa.array([sentence.tags for sentence in fine], words),
            "document": pa.array([sentence.document for sentence in fine], pa.string()),
        })  # fmt: skip
        chosen = pa.table({name: table[column] for name, column in columns.items()})
        return _files.with_unreadable(chosen, [(" ".join(s.tokens), s.wrong) for s in found if s.wrong])

    def _layout(self, text: str) -> Layout:
        """Return where words and tags are, by the number of columns that most lines have."""
        lines = [line for line in _lines(text[: 1 << 20])[:HEAD_LINES] if line.strip()]
        by_tab = self.separator == "tab" or (self.separator == "auto" and any("\t" in line.strip() for line in lines))
        counts = Counter(len(_fields(line, by_tab)) for line in lines if not line.startswith(DOCUMENT))
        if not counts:
            raise DataError(f"{self.path}: holds no sentence.")
        size = counts.most_common(1)[0][0]
        tags = self.tag_column if self.tag_column >= 0 else size + self.tag_column
        if size == 1 and self.token_column == 0:
            return Layout(by_tab, 1, 0, None)
        if not (self.token_column < size and 0 <= tags < size):
            wrong = "token_column" if self.token_column >= size else "tag_column"
            raise DataError(
                f"{self.path}: {wrong} {getattr(self, wrong)} is none of its {size} columns, counted from 0; "
                "name another, or set separator."
            )
        return Layout(by_tab, size, self.token_column, tags)


@dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    Attributes:
        by_tab: Whether tabs part the columns, else white space.
        size: How many columns there are.
        tokens: The column of the words.
        tags: The column of the tags; None where there are words alone.
    """

    by_tab: bool
    size: int
    tokens: int
    tags: int | None


@dataclass
class Sentence:
    """A sentence as it was read.

    Attributes:
        document: The document's number; None where the file tells none apart.
        tokens: Its words.
        tags: Their tags.
        wrong: Why it cannot be read; "" where it can.
    """

    document: str | None
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    wrong: str = ""


def _sentences(text: str, layout: Layout) -> Iterator[Sentence]:
    document = 0
    sentence = Sentence(None)
    for number, line in enumerate(_lines(text), 1):
        is_border = line.startswith(DOCUMENT)
        if is_border or not line.strip():
            if sentence.tokens:
                yield sentence
            document += is_border
            sentence = Sentence(str(document) if document else None)
        else:
            _add(sentence, line, number, layout)
    if sentence.tokens:
        yield sentence


def _add(sentence: Sentence, line: str, number: int, layout: Layout) -> None:
    """Add a line's word to its sentence, or note what is wrong with it."""
    fields = _fields(line, layout.by_tab)
    if len(fields) == layout.size:
        sentence.tokens.append(fields[layout.tokens])
        sentence.tags.append(fields[layout.tags] if layout.tags is not None else "")
    elif not line.startswith("#"):
        sentence.tokens.append(line.strip())
        sentence.wrong = sentence.wrong or (
            f"unreadable row: line {number:,} has {len(fields)} columns, expected {layout.size}"
        )


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _fields(line: str, by_tab: bool) -> list[str]:
    return [part.strip(" ") for part in line.split("\t")] if by_tab else SPACES.split(line.strip(" \t"))
