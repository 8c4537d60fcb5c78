"""Sample data that the project makes itself: short news with persons, places, organisations and dates, as tagged words.

For trying things out with no file at hand. Realistic where it matters: names have several words, the same name may be a
person or a place, names come up that were never seen before, some writers press no shift key; and some rows are as
untidy as people leave them: tags that cannot follow each other, a tag too few, an empty word, no tags, duplicates, and
the same words with other tags. Persons and firms are made up. Not for judging a method: what is learned from made-up
sentences says little about real ones.

Columns: tokens, tags (BIO), writer (for `splitting.group_column`).

    {"tokens": ["Vera", "Holt", "left", "Acme", "."], "tags": ["B-PER", "I-PER", "O", "B-ORG", "O"], "writer": "W7"}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.data.sources import _samples
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

Words = list[str]
Row = tuple[Words, Words | None, str]

COLUMNS = ("tokens", "tags", "writer")
ROWS_A_WRITER = 20
OUTSIDE = "O"
SLOT = re.compile(r"\{(\w+)\}")


def _listed(names: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(names.split(separator))


FIRST = _listed("""
    Ada Vera Iris Noor Lena Mara Tess Ruth Olga Jane Hugo Omar Paul Igor Luis Finn Karl Sven Tariq Jordan Florence
    Austin Sydney Chester Victoria Diego Amara Kofi Mei Anil""")
LAST = _listed("""
    Holt Stone Byron Marsh Vega Okoro Lindt Novak Ferro Quill Brandt Sato Haddad Moreau Silva Petrov Lincoln Wells
    London Paris Bennett Castro Duarte Egede Frost""")
TITLES = _listed("Mr. Mrs. Dr. Professor Judge")
CITIES = _listed(
    "Oslo|Lima|Rome|Cape Town|New York|Port Louis|Florence|Austin|Sydney|Victoria|San Diego|Chester|Wells|Lincoln|"
    "Graz|Izmir|Hanoi|Porto|Saint Malo|Kyoto|Novi Sad|Leeds|Ghent|Tartu|Mendoza",
    "|",
)
COUNTRIES = _listed("Norway|Peru|Jordan|South Africa|Japan|Portugal|New Zealand|Ghana|Estonia|Serbia|Chad|Georgia", "|")
FIRMS = _listed("Acme Globex Initech Hooli Vandelay Umbra Norwind Altura Ferro Quill Brandt Lumen Kestrel")
FORMS = _listed("Inc.|Group|Bank|Motors|Airlines|& Sons|Labs|Union|Press|Foods", "|")
BODIES = _listed(
    "Ministry of Health|Red Cross|University of {city}|Bank of {country}|City Council of {city}|{city} Rovers|"
    "{city} United",
    "|",
)
MONTHS = _listed("January February March April May June July August September October November December")
DAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
THINGS = _listed("prices bridges trains elections harvests exports schools museums rents wages ports films books cars")
HOW = _listed("slowly again sharply hardly twice briefly early late rarely quietly")
WHERE = _listed("in the north|in the capital|on the coast|at the border|abroad|in most towns", "|")

SENTENCES = _listed(
    """{PER} left {ORG} {DATE} .
{PER} and {PER} opened an office of {ORG} in {LOC} .
{ORG} said {DATE} that it would buy {ORG} .
The storm reached {LOC} {DATE} , where {PER} was to speak .
" We are proud , " said {PER} of {ORG} .
{LOC} beat {LOC} by {number} goals {DATE} .
Police in {LOC} arrested {PER} {DATE} .
{PER} , who was born in {LOC} , now works for {ORG} .
Shares of {ORG} fell by {number} per cent {DATE} .
{number} flights from {LOC} to {LOC} were cancelled .
{PER} moved {where} , where {things} are few .
{ORG} will close its plant in {LOC} {DATE} , its director {PER} told reporters .
Nobody knows why {PER} met {PER} {DATE} .
New rules for {things} may come {DATE} .
The {things} changed {how} , economists at {ORG} said .
The museum in {LOC} shows {number} letters that {PER} wrote .
{PER} : " I never worked for {ORG} . "
Fans of {ORG} filled the streets of {LOC} {DATE} .
{number} {things} were counted {where} , and the {things} changed {how} .
All {number} {things} {where} closed {how} .""",
    "\n",
)


class SampleEntities(Source):
    """Made-up news with tagged names and dates."""

    num_rows: int = Field(2000, ge=10, le=5_000_000)
    """How many rows, defects included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    wrong_tag_ratio: float = Field(0.02, ge=0, le=1)
    """Share of rows in which somebody gave a name the wrong type."""

    illegal_ratio: float = Field(0.02, ge=0, le=1)
    """Share of rows with a name that begins with I-."""

    missing_ratio: float = Field(0.02, ge=0, le=1)
    """Share of rows without tags, with a tag too few, or with an empty word."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    conflicting_ratio: float = Field(0.01, ge=0, le=0.5)
    """Share of rows that repeat earlier words with other tags."""

    lower_ratio: float = Field(0.1, ge=0, le=1)
    """Share of writers who press no shift key."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self)

    def columns(self) -> list[str]:
        """Return tokens, tags and writer."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        import pyarrow as pa

        return _samples.table(self, columns, self._rows(), dict.fromkeys(("tokens", "tags"), pa.list_(pa.string())))

    def _rows(self) -> Iterator[Row]:
        random = Random(self.seed)
        num_writers = max(2, self.num_rows // ROWS_A_WRITER)

        def write(written: list[Row]) -> Row:
            return self._again(random, written) or self._new(random, random.randrange(num_writers))

        return _samples.in_turn(self.num_rows, write)

    def _again(self, random: Random, written: list[Row]) -> Row | None:
        """Return an earlier row once more, perhaps with other tags; None most of the time."""
        chance = random.random()
        if not written or chance >= self.duplicate_ratio + self.conflicting_ratio:
            return None
        tokens, tags, writer = random.choice(written)
        return (tokens, tags if chance < self.duplicate_ratio else _other_type(random, tags), writer)

    def _new(self, random: Random, number: int) -> Row:
        tokens, tags = _sentence(random)
        writer = f"W{number}"
        if Random(f"{self.seed}/{number}").random() < self.lower_ratio:
            tokens = [token.lower() for token in tokens]
        if random.random() < self.wrong_tag_ratio:
            tags = _other_type(random, tags) or tags
        if random.random() < self.illegal_ratio:
            tags = [tag.replace("B-", "I-", 1) for tag in tags]
        if random.random() < self.missing_ratio:
            return random.choice((
                (tokens, None, writer), (tokens, tags[:-1], writer), ([*tokens[:-1], ""], tags, writer)))  # fmt: skip
        return tokens, tags, writer


def _sentence(random: Random) -> tuple[Words, Words]:
    tokens, tags = [], []
    for part in random.choice(SENTENCES).split():
        slot = SLOT.fullmatch(part)
        kind = slot[1] if slot else ""
        before, name = _NAMES[kind](random) if kind in _NAMES else (_plain(random, kind, part), [])
        tokens += [*before, *name]
        tags += [OUTSIDE] * len(before) + [f"{'I' if i else 'B'}-{kind}" for i in range(len(name))]
    return tokens, tags


def _other_type(random: Random, tags: Words | None) -> Words | None:
    """Return tags with one of their types, wherever it is, taken for another."""
    kinds = sorted({tag[2:] for tag in tags or () if tag != OUTSIDE})
    if not kinds or tags is None:
        return tags
    old = random.choice(kinds)
    new = random.choice([kind for kind in _NAMES if kind != old])
    return [f"{tag[:2]}{new}" if tag[2:] == old else tag for tag in tags]


# -- names ---------------------------------------------------------------------------------------------


def _person(random: Random) -> tuple[Words, Words]:
    last = random.choice(LAST) if random.random() < 0.8 else _unheard(random)
    form = random.random()
    if form < 0.2:
        return [random.choice(TITLES)], [last]
    if form < 0.4:
        return [], [random.choice((random.choice(FIRST), last))]
    middle = [f"{random.choice('ABCDEFGHJKLM')}."] if form > 0.9 else []
    return [], [random.choice(FIRST), *middle, last]


def _place(random: Random) -> tuple[Words, Words]:
    if random.random() < 0.1:
        return [], [_unheard(random)]
    return [], random.choice(CITIES if random.random() < 0.7 else COUNTRIES).split()


def _organisation(random: Random) -> tuple[Words, Words]:
    if random.random() < 0.35:
        body = random.choice(BODIES)
        filled = body.format(city=random.choice(CITIES), country=random.choice(COUNTRIES))
        return ["the"] if random.random() < 0.5 else [], filled.split()
    firm = random.choice(FIRMS) if random.random() < 0.8 else _unheard(random)
    return [], [firm, *(random.choice(FORMS).split() if random.random() < 0.6 else [])]


def _date(random: Random) -> tuple[Words, Words]:
    month, day = random.choice(MONTHS), str(random.randint(1, 28))
    year = str(random.randint(1985, 2024))
    return random.choice((
        (["on"], [random.choice(DAYS)]),
        (["on"], [day, month]),
        (["on"], [month, day, ",", year]),
        (["in"], [month, year]),
        (["in"], [year]),
        ([], ["last", random.choice(DAYS)]),
    ))  # fmt: skip


def _plain(random: Random, kind: str, part: str) -> Words:
    """Return words that are no name."""
    if kind == "number":
        return [str(random.randint(2, 900))]
    phrases = {"things": THINGS, "how": HOW, "where": WHERE}.get(kind, (part,))
    return random.choice(phrases).split()


def _unheard(random: Random) -> str:
    """Return a name that nobody has."""
    syllables = ("ka", "lo", "mir", "tan", "vel", "os", "ri", "dun", "bre", "sha", "quo", "len")
    return "".join(random.choices(syllables, k=random.randint(2, 3))).capitalize()


_NAMES: dict[str, Callable[[Random], tuple[Words, Words]]] = {
    "PER": _person,
    "LOC": _place,
    "ORG": _organisation,
    "DATE": _date,
}
