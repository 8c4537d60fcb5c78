"""Sample data that the project makes itself: English sentences and their translation into Velic, a made-up language.

For trying translation with no file at hand, with a small model that learns from scratch. Velic asks for what real
languages ask for: the verb goes last, the place first, adjectives follow their noun and agree with its gender and
number, verbs agree with the subject and have a past tense. All of it follows rules, so a model that has found them is
right to the letter on sentences it has not seen. Some rows are damaged as rows from the web are: duplicates, missing
texts, markup, translations of another sentence. Not for judging a method: real languages have exceptions.

Columns: text (English), translation (Velic).

    {"text": "two small dogs watched the river near the old bridge.",
     "translation": "pel lo ponto vielo dus hunas parvas la rivera vedeva-n."}
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.data.sources import _defects, _samples
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("text", "translation")

ANIMATE = (
    ("dog", "dogs", "huna"), ("cat", "cats", "mitso"), ("woman", "women", "fema"), ("man", "men", "viro"),
    ("girl", "girls", "filka"), ("boy", "boys", "filko"), ("teacher", "teachers", "lehra"),
    ("farmer", "farmers", "bondo"),
)  # fmt: skip
THINGS = (
    ("house", "houses", "domo"), ("river", "rivers", "rivera"), ("book", "books", "libro"), ("car", "cars", "velka"),
    ("boat", "boats", "naveto"), ("tree", "trees", "arba"), ("letter", "letters", "skrivo"), ("song", "songs", "kanta"),
)  # fmt: skip
PLACES = (
    ("near the {} bridge", "pel", "ponto"), ("in the {} garden", "en", "jarda"), ("at the {} market", "a", "merkato"),
    ("behind the {} school", "detra", "skola"), ("in the {} village", "en", "vilo"),
    ("on the {} beach", "sur", "playa"),
)  # fmt: skip
ADJECTIVES = (
    ("small", "parv"), ("big", "grand"), ("old", "viel"), ("new", "nov"), ("red", "rot"), ("quiet", "trank"),
    ("beautiful", "bel"), ("strange", "mirk"),
)  # fmt: skip
VERBS = (
    ("watches", "watch", "watched", "vede"), ("finds", "find", "found", "trova"), ("loves", "love", "loved", "ama"),
    ("paints", "paint", "painted", "pinta"), ("describes", "describe", "described", "shila"),
    ("buys", "buy", "bought", "kompra"),
)  # fmt: skip
DETERMINERS = (("the", False), ("a", False), ("the", True), ("two", True), ("three", True), ("many", True))
COUNTS = {"two": "dus", "three": "tris", "many": "multi"}


class SampleTranslations(Source):
    """Made-up sentences and their translations."""

    num_rows: int = Field(4000, ge=10, le=5_000_000)
    """How many rows, damaged ones included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    missing_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows without one of the texts."""

    html_ratio: float = Field(0.03, ge=0, le=0.3)
    """Share of rows with tags and entities left from a web page."""

    wrong_ratio: float = Field(0.01, ge=0, le=0.2)
    """Share of rows with the translation of another sentence."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self, _defects)

    def columns(self) -> list[str]:
        """Return text and translation."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        defects = _defects.Defects(self.duplicate_ratio, self.missing_ratio, self.html_ratio, self.wrong_ratio)
        return _samples.table(self, columns, _defects.pairs(Random(self.seed), self.num_rows, sentence, defects))


def sentence(random: Random) -> tuple[str, str]:
    """Return a sentence in English and in Velic."""
    subject, velic_subject, plural = _noun_phrase(random, ANIMATE)
    thing, velic_thing, _ = _noun_phrase(random, THINGS)
    singular, many, past, stem = random.choice(VERBS)
    in_the_past = random.random() < 0.5
    verb = past if in_the_past else many if plural else singular
    velic_verb = stem + ("va" if in_the_past else "") + ("-n" if plural else "")
    english, velic = f"{subject} {verb} {thing}", f"{velic_subject} {velic_thing} {velic_verb}"
    if random.random() < 0.6:
        place, velic_place = _place(random)
        english, velic = f"{english} {place}", f"{velic_place} {velic}"
    return f"{english}.", f"{velic}."


def _noun_phrase(random: Random, nouns: tuple[tuple[str, str, str], ...]) -> tuple[str, str, bool]:
    one, several, velic = random.choice(nouns)
    determiner, plural = random.choice(DETERMINERS)
    adjective, stem = random.choice(ADJECTIVES) if random.random() < 0.5 else ("", "")
    english = " ".join(filter(None, (determiner, adjective, several if plural else one)))
    return english, _velic(determiner, velic, stem, plural), plural


def _velic(determiner: str, noun: str, adjective: str, plural: bool) -> str:
    """Return a noun phrase in Velic: determiner, noun, adjective, all of one gender and number."""
    gender, ending = noun[-1], "s" if plural else ""
    word = {"the": f"l{gender}{ending}", "a": f"un{gender}"}.get(determiner) or COUNTS[determiner]
    return " ".join(filter(None, (word, noun + ending, f"{adjective}{gender}{ending}" if adjective else "")))


def _place(random: Random) -> tuple[str, str]:
    english, preposition, noun = random.choice(PLACES)
    adjective, stem = random.choice(ADJECTIVES) if random.random() < 0.5 else ("", "")
    return " ".join(english.format(adjective).split()), f"{preposition} {_velic('the', noun, stem, False)}"
