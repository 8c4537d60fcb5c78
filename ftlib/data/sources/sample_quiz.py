"""Sample data that the project makes itself: quiz questions with two to five choices each.

For trying multiple choice with no file at hand: what belongs to a kind, and what is used for something. The rows are
as untidy as a quiz that many hands wrote: answers as letters or as the words themselves, duplicates, wrong keys,
answers that are none of the choices, choices that are missing. Not for judging a method: made-up questions say little
about real ones.

Columns: text, choices (list of texts), answer (a letter, or the choice itself), author (for `splitting.group_column`).

    {"text": "Which of these is a fruit?", "choices": ["a hammer", "a plum", "a trout"], "answer": "B", "author": "A7"}
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

COLUMNS = ("text", "choices", "answer", "author")
LETTERS = "ABCDE"
NUM_AUTHORS = 60
TEXT_RATIO = 0.15
"""Answers that are written out."""
Row = tuple[str | None, list[str] | None, str | None, str]

KINDS: dict[str, tuple[str, ...]] = {
    "a fruit": ("an apple", "a plum", "a pear", "a cherry", "a banana", "a peach", "a lemon", "a grape", "a mango"),
    "an animal": ("a horse", "a trout", "a sparrow", "a beetle", "a camel", "a goat", "a whale", "an owl", "a snail"),
    "a tool": ("a hammer", "a saw", "a chisel", "a wrench", "a drill", "a spade", "a rake", "pliers", "an axe"),
    "a vehicle": ("a bus", "a tram", "a bicycle", "a ferry", "a truck", "a canoe", "a scooter", "a train", "a sledge"),
    "something to wear": ("a coat", "a scarf", "a glove", "a boot", "a shirt", "a sock", "a cap", "a belt", "a vest"),
    "a musical instrument": ("a violin", "a drum", "a flute", "a piano", "a harp", "a trumpet", "a cello", "a banjo"),
    "a part of a house": ("a roof", "a door", "a cellar", "a chimney", "a wall", "a stair", "an attic", "a window"),
    "a profession": ("a baker", "a nurse", "a pilot", "a judge", "a farmer", "a tailor", "a plumber", "a painter"),
}
ASKED = ("Which of these is {kind}?", "One of these is {kind}. Which one?", "Find {kind} among these.", "Name {kind}.")

USES: dict[str, tuple[str, ...]] = {
    "cut paper": ("scissors", "a paper knife"),
    "light a room": ("a lamp", "a candle", "a lantern"),
    "tell the time": ("a clock", "a wristwatch", "a sundial"),
    "keep food cold": ("a refrigerator", "an ice box"),
    "write a letter": ("a pencil", "a fountain pen", "a typewriter"),
    "cross a river": ("a bridge", "a rowing boat"),
    "open a bottle": ("a corkscrew", "a bottle opener"),
    "measure a plank": ("a ruler", "a tape measure"),
    "sleep outdoors": ("a tent", "a hammock", "a sleeping bag"),
    "see far things": ("a telescope", "binoculars"),
}
NEEDED = ("What do you need to {use}?", "To {use}, take", "Somebody wants to {use}. What helps?")


class SampleQuiz(Source):
    """Made-up quiz questions."""

    num_rows: int = Field(1500, ge=10, le=1_000_000)
    """How many rows, defects included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    wrong_answer_ratio: float = Field(0.03, ge=0, le=1)
    """Share of rows whose key names another choice."""

    broken_ratio: float = Field(0.03, ge=0, le=1)
    """Share of rows without an answer among their choices, or without choices to take."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self)

    def columns(self) -> list[str]:
        """Return text, choices, answer and author."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        import pyarrow as pa

        return _samples.table(self, columns, self._rows(), {"choices": pa.list_(pa.string())})

    def _rows(self) -> Iterator[Row]:
        random = Random(self.seed)
        return _samples.with_copies(random, self.num_rows, self.duplicate_ratio, lambda _: self._new(random))

    def _new(self, random: Random) -> Row:
        text, right, wrong = (_by_kind if random.random() < 0.6 else _by_use)(random)
        choices = [right, *random.sample(wrong, random.randint(1, 4))]
        random.shuffle(choices)
        place = choices.index(right)
        if random.random() < self.wrong_answer_ratio:
            place = random.choice([i for i in range(len(choices)) if i != place])
        answer = choices[place] if random.random() < TEXT_RATIO else LETTERS[place]
        author = f"A{random.randrange(NUM_AUTHORS)}"
        if random.random() < self.broken_ratio:
            return (*_broken(random, text, choices), author)
        return text, choices, answer, author


def _by_kind(random: Random) -> tuple[str, str, list[str]]:
    """Return a question, the right choice and wrong ones."""
    kind = random.choice(sorted(KINDS))
    others = [word for other, words in KINDS.items() if other != kind for word in words]
    return random.choice(ASKED).format(kind=kind), random.choice(KINDS[kind]), others


def _by_use(random: Random) -> tuple[str, str, list[str]]:
    use = random.choice(sorted(USES))
    others = [word for other, words in USES.items() if other != use for word in words]
    return random.choice(NEEDED).format(use=use), random.choice(USES[use]), others


def _broken(random: Random, text: str, choices: list[str]) -> tuple[str | None, list[str] | None, str | None]:
    return random.choice((
        (text, choices, None),
        (text, choices, LETTERS[-1] if len(choices) < len(LETTERS) else "none of them"),
        (text, choices[:1], "A"),
        (text, None, "A"),
        (text, ["", *choices[1:]], "B"),
        ("", choices, "A"),
    ))  # fmt: skip
