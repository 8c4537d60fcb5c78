"""Sample data that the project makes itself: short local news, and a headline for each.

For trying summarization with no file at hand, with a small model that learns from scratch. A headline takes what
happened, to what and where from the report, and leaves out the rest: the weekday, who said what, other towns that are
mentioned, what is planned. Where people were hurt, it says so. Some rows are damaged as rows from the web are:
duplicates, missing texts, markup, headlines of another report. Towns and people are made up. Not for judging a method:
real headlines are written by people with something to say.

Columns: text, summary.

    {"text": "A fire damaged a warehouse in Oldport on Monday. Nobody was hurt. Repairs will take until spring.",
     "summary": "Fire damages warehouse in Oldport"}
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

COLUMNS = ("text", "summary")

TOWNS = (
    "Oldport", "Harwick", "Sandbury", "Millford", "Eastmere", "Norwell", "Kingsley", "Ashdown", "Westbrook", "Ferndale",
    "Redhill", "Stonegate",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
BUILDINGS = ("warehouse", "school", "library", "bakery", "theatre", "hotel", "factory", "museum", "farm", "station")
HARM = (
    ("A fire damaged a {building}", "Fire damages {building}"),
    ("Heavy rain flooded a {building}", "Rain floods {building}"),
    ("A storm tore the roof off a {building}", "Storm unroofs {building}"),
    ("A truck crashed into a {building}", "Truck hits {building}"),
)
NEWS = (
    ("The mayor opened a new {building}", "New {building} opens"),
    ("The council decided to close a {building}", "Council closes {building}"),
    ("A company plans to build a {building}", "Company to build {building}"),
    ("Volunteers have repaired an old {building}", "Volunteers repair {building}"),
)
HURT = (
    ("Two people were hurt", "two hurt"),
    ("One person was hurt", "one hurt"),
    ("Three people were hurt", "three hurt"),
)
UNHURT = ("Nobody was hurt", "No one was inside at the time", "All who were there got out in time")
ASIDES = (
    "Repairs will take until {month}", "The police asked witnesses to call", "Neighbours said they had heard nothing",
    "Visitors from {town} were among the first to arrive", "The work cost about {number},000 crowns",
    "A similar {building} stands in {town}", "The mayor of {town} sent a letter", "More will be known by {day}",
)  # fmt: skip
MONTHS = ("March", "May", "June", "August", "October", "spring", "autumn")


class SampleSummaries(Source):
    """Made-up reports and their headlines."""

    num_rows: int = Field(4000, ge=10, le=5_000_000)
    """How many rows, damaged ones included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    missing_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows without one of the texts."""

    html_ratio: float = Field(0.04, ge=0, le=0.3)
    """Share of rows with tags and entities left from a web page."""

    wrong_ratio: float = Field(0.01, ge=0, le=0.2)
    """Share of rows with the headline of another report."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self, _defects)

    def columns(self) -> list[str]:
        """Return text and summary."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        defects = _defects.Defects(self.duplicate_ratio, self.missing_ratio, self.html_ratio, self.wrong_ratio)
        return _samples.table(self, columns, _defects.pairs(Random(self.seed), self.num_rows, report, defects))


def report(random: Random) -> tuple[str, str]:
    """Return a report and its headline."""
    town, building, day = random.choice(TOWNS), random.choice(BUILDINGS), random.choice(DAYS)
    harmful = random.random() < 0.6
    event, headline = random.choice(HARM if harmful else NEWS)
    event = event.format(building=building)
    first = random.choice((f"{event} in {town} on {day}", f"On {day}, {event[0].lower()}{event[1:]} in {town}"))
    headline = f"{headline.format(building=building)} in {town}"
    sentences = [_aside(random) for _ in range(random.randint(1, 3))]
    if harmful and random.random() < 0.5:
        said, told = random.choice(HURT)
        sentences.insert(random.randint(0, len(sentences)), said)
        headline = f"{headline}, {told}"
    elif harmful:
        sentences.insert(random.randint(0, len(sentences)), random.choice(UNHURT))
    return f"{'. '.join([first, *sentences])}.", headline


def _aside(random: Random) -> str:
    return random.choice(ASIDES).format(
        month=random.choice(MONTHS),
        town=random.choice(TOWNS),
        day=random.choice(DAYS),
        building=random.choice(BUILDINGS),
        number=random.randint(2, 900),
    )
