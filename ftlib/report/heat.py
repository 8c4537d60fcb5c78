"""Words on the colour of what they add to an answer's score: blue speaks for it, orange against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from ftlib.report import words
from ftlib.report.palette import STEPS, shade

Weighed = tuple[int, int, float]
"""Where a word begins and ends in its text, and what it adds."""

CALM = 0.75
"""Share of the ramp that is used: the strongest word is seen, and does not shout."""


def heated(text: str, weighed: Sequence[Weighed], most: float) -> Markup:
    """Return a text with its words coloured.

    Args:
        text: The text.
        weighed: Its words, in order, none over another.
        most: What the strongest word adds, either way: it has the strongest colour.
    """
    parts, done = [], 0
    for start, end, value in weighed:
        parts += [escape(text[done:start]), _word(text[start:end], value, most)]
        done = end
    return Markup("").join([*parts, escape(text[done:])])


def strongest(values: Iterable[float]) -> float:
    """Return the largest value, whatever its sign; 1 where all are 0."""
    return max(map(abs, values), default=0.0) or 1.0


def step(value: float, most: float) -> int:
    """Return the step of the ramp for a value; 0, no colour, below half a step."""
    share = min(abs(value) / most, 1.0) * CALM
    return shade(share) if share * (STEPS - 1) >= 0.5 else 0


def _word(word: str, value: float, most: float) -> Markup:
    if not (level := step(value, most)):
        return escape(word)
    ramp = "b" if value > 0 else "o"
    return Markup('<span class="{}{} heat" title="{}">{}</span>').format(ramp, level, words.signed(value), word)
