"""Originals: texts as they came beside the repaired ones, and where a place in one is in the other.

Cleaning changes texts: tags go, runs of white space become one space. What is said of places in a text (where an
answer begins) must follow: gold answers from the text as it came to the repaired one, served answers back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

GIVEN = "given:"
"""Before a text column's name: the text as it came."""

WORD = re.compile(r"\w+|[^\w\s]")

MOST_CHARACTERS = 2000
"""Longer stretches without a common word are not compared character by character, which would be slow."""


def with_given(rows: pa.Table, given: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return repaired rows with their texts as they came in columns `given:<name>`.

    Args:
        rows: Texts repaired.
        given: The same rows as they came, texts readable as such.
        names: The text columns.
    """
    import pyarrow as pa

    for name in names:
        rows = rows.append_column(f"{GIVEN}{name}", given[name].cast(pa.string()))
    return rows


@dataclass(frozen=True, eq=False)
class Places:
    """Where each character of a repaired text comes from.

    Attributes:
        starts: For each character, where in the text as it came its origin begins, shape (length,).
        ends: Where that ends.
    """

    starts: np.ndarray
    ends: np.ndarray

    def in_given(self, start: int, end: int) -> tuple[int, int]:
        """Return where characters [start, end) of the repaired text, at least one, are in the text as it came."""
        return int(self.starts[start]), int(self.ends[end - 1])

    def in_repaired(self, start: int, end: int) -> tuple[int, int]:
        """Return where characters [start, end) of the text as it came are in the repaired one; perhaps nothing."""
        import numpy as np

        first = int(np.searchsorted(self.ends, start, side="right"))
        return first, max(first, int(np.searchsorted(self.starts, end, side="left")))


def places(given: str, repaired: str) -> Places:
    """Return where each character of a repaired text comes from.

    Words that both texts have in the same order hold them together; between those, characters. What still differs
    counts as one replaced by the other, evenly.
    """
    import numpy as np

    starts, ends = np.arange(len(repaired)), np.arange(1, len(repaired) + 1)
    if given == repaired:
        return Places(starts, ends)
    i = j = 0
    for next_i, next_j, size in (*_common(given, repaired), (len(given), len(repaired), 0)):
        width = (next_i - i) / max(1, next_j - j)
        steps = np.arange(next_j - j)
        starts[j:next_j] = i + np.floor(steps * width)
        ends[j:next_j] = i + np.ceil((steps + 1) * width)
        i, j = next_i + size, next_j + size
        starts[next_j:j] = np.arange(next_i, i)
        ends[next_j:j] = starts[next_j:j] + 1
    return Places(starts, ends)


def _common(given: str, repaired: str) -> Iterator[tuple[int, int, int]]:
    """Yield stretches that both texts have: where they begin in each, and their length; ascending."""
    left, right = ([(m.group(), m.start()) for m in WORD.finditer(text)] for text in (given, repaired))
    i = j = 0
    for a, b, size in _matching([word for word, _ in left], [word for word, _ in right]):
        for (word, next_i), (_, next_j) in zip(left[a : a + size], right[b : b + size], strict=True):
            yield from _between(given, i, next_i, repaired, j, next_j)
            yield next_i, next_j, len(word)
            i, j = next_i + len(word), next_j + len(word)
    yield from _between(given, i, len(given), repaired, j, len(repaired))


def _between(given: str, i: int, end_i: int, repaired: str, j: int, end_j: int) -> Iterator[tuple[int, int, int]]:
    """Yield what the stretches between two words have in common, character by character."""
    if max(end_i - i, end_j - j) <= MOST_CHARACTERS:
        for a, b, size in _matching(given[i:end_i], repaired[j:end_j]):
            yield i + a, j + b, size


def _matching(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    found = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    yield from ((block.a, block.b, block.size) for block in found if block.size)
