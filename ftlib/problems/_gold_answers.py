"""Gold answers: where they are in their context, which cleaning may have changed."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ftlib.data.originals import Places

SHOWN = 80
"""Characters of an answer that a reason shows."""


class Context:
    """A context in which answers are looked for.

    Args:
        text: As cleaning left it.
        given: As it came; None where that is not known.
    """

    def __init__(self, text: str, given: str | None = None) -> None:
        self.text, self.given = text, text if given is None else given
        self._places: Places | None = None

    def locate(self, answer: str, start: int) -> tuple[str, int] | str:
        """Return an answer as the repaired text has it, and where; or why that cannot be said.

        An answer that is not where it is said to be is taken to be where its text is, if that is once.

        Args:
            answer: Its text, as it came.
            start: Where it is said to begin in the text as it came; -1 where nothing is said.
        """
        begins = start + len(answer) - len(answer.lstrip())
        answer = answer.strip()
        if start >= 0 and self.given.startswith(answer, begins):
            first, last = self._in_repaired(begins, begins + len(answer))
            found = self.text[first:last]
            if found.strip():
                return found.strip(), first + len(found) - len(found.lstrip())
        for form in (answer, *_repaired(answer)):
            count = _count(self.text, form)
            if count == 1:
                return form, self.text.index(form)
            if count:
                there = f"{_misplaced(answer, start)}, but {count} times elsewhere"
                return there if start >= 0 else f"misplaced answer: {_shown(answer)} is in the context {count} times"
        return _misplaced(answer, start) + (" or elsewhere" if start >= 0 else "")

    def _in_repaired(self, start: int, end: int) -> tuple[int, int]:
        from ftlib.data.originals import places

        if self.given == self.text:
            return start, end
        self._places = self._places or places(self.given, self.text)
        return self._places.in_repaired(start, end)


def _misplaced(answer: str, start: int) -> str:
    return f"misplaced answer: {_shown(answer)} is not in the context" + (f" at {start}" if start >= 0 else "")


def _shown(answer: str) -> str:
    return repr(answer if len(answer) <= SHOWN else f"{answer[:SHOWN]}...")


def _count(text: str, wanted: str) -> int:
    """Return how often a text holds another, overlapping ones counted."""
    count, at = 0, text.find(wanted)
    while wanted and at >= 0:
        count, at = count + 1, text.find(wanted, at + 1)
    return count


def _repaired(answer: str) -> Iterator[str]:
    """Yield what cleaning may have made of an answer: by any of its repairs."""
    import pyarrow as pa

    from ftlib.data.clean import Cleaning
    from ftlib.data.normalize import normalize

    for unicode, html, white_space in product((True, False), repeat=3):
        cleaning = Cleaning(fix_unicode=unicode, strip_html=html, collapse_whitespace=white_space)
        yield normalize(pa.array([answer], pa.string()), cleaning)[0].as_py().strip()
