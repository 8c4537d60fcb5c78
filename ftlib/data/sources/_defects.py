"""What is wrong with the rows of made-up pairs of texts: what cleaning should find, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from ftlib.data.sources import _samples

Pair = tuple[str | None, str | None]


@dataclass(frozen=True)
class Defects:
    """How often what happens to a row, as ratios.

    Attributes:
        duplicate: An exact copy of an earlier row.
        missing: Without the one or the other text.
        markup: With tags and entities left from a web page.
        wrong: With the answer of another row.
    """

    duplicate: float
    missing: float
    markup: float
    wrong: float


def pairs(
    random: Random, num_rows: int, write: Callable[[Random], tuple[str, str]], defects: Defects
) -> Iterator[Pair]:
    """Return made-up pairs, some of them damaged.

    Args:
        random: Draws everything.
        num_rows: How many.
        write: Makes a sound pair.
        defects: How often what happens.
    """
    return _samples.with_copies(
        random, num_rows, defects.duplicate, lambda written: _damaged(random, *write(random), written, defects)
    )


def _damaged(random: Random, text: str, answer: str, written: list[Pair], defects: Defects) -> Pair:
    drawn = random.random()
    if drawn < defects.missing:
        return random.choice(((text, None), (None, answer), (text, ""), ("  ", answer)))
    if drawn < defects.missing + defects.markup:
        return f"<p>{text.replace('.', '.&nbsp;', 1)}</p>", answer
    if written and drawn < defects.missing + defects.markup + defects.wrong:
        return text, random.choice(written)[1] or answer
    return text, answer
