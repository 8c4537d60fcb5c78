"""Sample data that the project makes itself: short news items in which two entities are marked.

For trying relation classification with no file at hand: who works for, founded, was born in or moved to what, and what
bought what. Many texts speak of two relations, so that the marks decide, not the words alone; and a pair of
which the text says nothing is "none". The rows are as untidy as a corpus from the web: entities in HTML, stray white
space that moves them, offsets beyond the text, overlapping marks, duplicates, wrong and missing labels. Persons and
firms are made up. Not for judging a method: made-up sentences say little about real ones.

Columns: text, head and tail ([start, end] in characters), label, source (for `splitting.group_column`).

    {"text": "Mara Lind joined Norvik.", "head": [0, 9], "tail": [17, 23], "label": "works_for", "source": "N3"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.data.sources import _samples
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("text", "head", "tail", "label", "source")
NONE = "none"
NUM_SOURCES = 50
ALONE_RATIO = 0.45
"""Texts that speak of one relation."""
NONE_RATIO = 0.25
"""Of the others, those whose marked pair has none."""
Row = tuple[str | None, list[int] | None, list[int] | None, str | None, str]

FIRST = ("Mara", "Jon", "Elif", "Pavel", "Aisha", "Tomas", "Ingrid", "Kofi", "Lucia", "Sven", "Noor", "Emil", "Yuki")
LAST = ("Lind", "Okoro", "Varga", "Brandt", "Silva", "Haddad", "Novak", "Ferrari", "Moreau", "Tanaka", "Kelly")
FIRMS = ("Norvik", "Altera Foods", "Bluewater", "Kestrel Air", "Quantis", "Orbis Media", "Tamarack", "Veltro", "Halden")
PLACES = ("Lisbon", "Tartu", "Oaxaca", "Leeds", "Accra", "Brno", "Osaka", "Valparaiso", "Galway", "Izmir", "Bergen")
YEARS = tuple(str(year) for year in range(1987, 2024))

RELATIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "works_for": ("person", "firm", (
        "{head} joined {tail} as an engineer", "{head} is the new head of sales at {tail}", "{tail} hired {head}",
        "{tail} named {head} its spokesman", "{head} has worked for {tail} since {year}",
    )),
    "founded": ("person", "firm", (
        "{head} founded {tail} in {year}", "{tail}, started by {head} in a garage", "{head} set up {tail}",
        "{tail} goes back to an idea of its founder {head}",
    )),
    "born_in": ("person", "place", (
        "{head} was born in {tail}", "{head}, a native of {tail}", "{head} came into the world in {tail} in {year}",
        "{tail} is the birthplace of {head}",
    )),
    "moved_to": ("person", "place", (
        "{head} moved to {tail}", "{head} now lives in {tail}", "{head} made {tail} a second home in {year}",
        "{tail} has become the home of {head}",
    )),
    "bought": ("firm", "firm", (
        "{head} bought {tail}", "{head} took over {tail} in {year}", "{tail} was sold to {head}",
        "{tail} now belongs to {head}",
    )),
}  # fmt: skip
"""Label -> what its head and its tail are, and how it is said."""
JOINTS = (", while {}.", "; {}.", ". Earlier that week, {}.", ", and {}.", ", our reporter writes, and {}.")


class SampleRelations(Source):
    """Made-up news with two marked entities."""

    num_rows: int = Field(2000, ge=10, le=1_000_000)
    """How many rows, defects included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    wrong_label_ratio: float = Field(0.03, ge=0, le=1)
    """Share of rows with another relation's label."""

    broken_ratio: float = Field(0.03, ge=0, le=1)
    """Share of rows whose marks or label are of no use."""

    html_ratio: float = Field(0.06, ge=0, le=1)
    """Share of rows with tags, entities or stray white space, which cleaning removes and the marks must follow."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self)

    def columns(self) -> list[str]:
        """Return text, head, tail, label and source."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        import pyarrow as pa

        return _samples.table(self, columns, self._rows(), dict.fromkeys(("head", "tail"), pa.list_(pa.int64())))

    def _rows(self) -> Iterator[Row]:
        random = Random(self.seed)
        return _samples.with_copies(random, self.num_rows, self.duplicate_ratio, lambda _: self._new(random))

    def _new(self, random: Random) -> Row:
        text, head, tail, label = _item(random)
        if random.random() < self.wrong_label_ratio:
            label = random.choice([other for other in (*RELATIONS, NONE) if other != label])
        source = f"N{random.randrange(NUM_SOURCES)}"
        if random.random() < self.html_ratio:
            text, head, tail = _untidy(random, text, head, tail)
        if random.random() < self.broken_ratio:
            return (*_broken(random, text, head, tail, label), source)
        return text, head, tail, label, source


def _item(random: Random) -> tuple[str, list[int], list[int], str]:
    """Return a text, where its two entities are, and how they relate."""
    one, two = random.sample(sorted(RELATIONS), 2)
    first, second = _said(random, one), _said(random, two)
    if random.random() < ALONE_RATIO:
        text = f"{_upper(first[0])}."
        return text, _place(text, first[1]), _place(text, first[2]), one
    text = _upper(first[0]) + random.choice(JOINTS).format(second[0])
    marked = random.choice((first, second))
    label, head, tail = (one if marked is first else two), marked[1], marked[2]
    if random.random() < NONE_RATIO:
        head, tail, label = first[1], second[2], NONE
    return text, _place(text, head), _place(text, tail), label


def _said(random: Random, label: str) -> tuple[str, str, str]:
    """Return a clause that says a relation, its head and its tail."""
    head_kind, tail_kind, clauses = RELATIONS[label]
    head = _entity(random, head_kind)
    tail = next(name for name in iter(lambda: _entity(random, tail_kind), None) if name != head)
    return random.choice(clauses).format(head=head, tail=tail, year=random.choice(YEARS)), head, tail


def _entity(random: Random, kind: str) -> str:
    if kind == "person":
        return f"{random.choice(FIRST)} {random.choice(LAST)}"
    return random.choice(FIRMS if kind == "firm" else PLACES)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _place(text: str, name: str) -> list[int]:
    start = text.index(name)
    return [start, start + len(name)]


def _untidy(random: Random, text: str, head: list[int], tail: list[int]) -> tuple[str, list[int], list[int]]:
    """Put something before the text that cleaning takes away, and move the marks."""
    before, after = random.choice((("<p>", "</p>"), ("  ", ""), ("<b>News</b><br>", ""), ("\u200b\t", "\r\n")))
    shift = len(before)
    return before + text + after, [at + shift for at in head], [at + shift for at in tail]


def _broken(
    random: Random, text: str, head: list[int], tail: list[int], label: str
) -> tuple[str | None, list[int] | None, list[int] | None, str | None]:
    return random.choice((
        (text, head, tail, None),
        (text, [len(text) + 2, len(text) + 9], tail, label),
        (text, head, head, label),
        (text, [head[0], head[0]], tail, label),
        (text, None, tail, label),
        (text, head, [tail[0]], label),
        (None, head, tail, label),
    ))  # fmt: skip
