"""Spans in texts: tagged words, and answers in the text that they were looked for in."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from ftlib.report import words

AROUND = 110
"""Characters shown on each side of an answer."""

MOST_WORDS = 60
"""A longer row of words is shown around the spans in which it errs."""

NEAR = 8
"""Words shown on each side of these."""

Span = tuple[int, int, str]
"""The first word of a span, its last, and its type."""


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Return the spans that BIO tags make; of plain tags each word is one."""
    if any(tag != "O" and tag[:2] not in ("B-", "I-") for tag in tags):
        return [(i, i, tag) for i, tag in enumerate(tags)]
    found: list[Span] = []
    for i, tag in enumerate(tags):
        goes_on = tag[:2] == "I-" and found and found[-1][1] == i - 1 and found[-1][2] == tag[2:]
        if goes_on:
            found[-1] = (found[-1][0], i, tag[2:])
        elif tag != "O":
            found.append((i, i, tag[2:]))
    return found


def tagged(given: Sequence[str], tags: Sequence[str], others: Sequence[str], kind: str) -> Markup:
    """Return words with their spans marked: those that the other tags have too, and those that they don't.

    Args:
        given: The words.
        tags: Their tags.
        others: The tags that these are compared with.
        kind: How spans that only these tags have are marked: "right" or "wrong".
    """
    plain = any(tag != "O" and tag[:2] not in ("B-", "I-") for tag in (*tags, *others))
    own, shared = spans_of(tags), set(spans_of(others))
    differ = sorted(shared.symmetric_difference(own))
    if plain:  # all words have a tag: only those are marked in which the two differ
        own = [span for span in own if span not in shared]
    kept = _near(len(given), differ) if len(given) > MOST_WORDS else [True] * len(given)
    starts = {span[0]: span for span in own}
    parts: list[Markup] = []
    i = 0
    while i < len(given):
        span = starts.get(i)
        last = span[1] if span else i
        if any(kept[i : last + 1]):
            text = " ".join(given[i : last + 1])
            parts.append(_mark(text, span[2], "both" if span in shared else kind) if span else escape(text))
        elif not parts or parts[-1] != "…":
            parts.append(Markup("…"))
        i = last + 1
    return Markup(" ").join(parts)


def listed(given: Sequence[str], tags: Sequence[str]) -> str:
    """Return a row's spans in words; of plain tags, the tags."""
    found = spans_of(tags)
    if len(found) == len(tags) and any(tag[:2] not in ("B-", "I-") for tag in tags):
        return " ".join(tags[:MOST_WORDS])
    return ", ".join(f"{' '.join(given[a : b + 1])} ({kind})" for a, b, kind in found) or "no span"


def in_context(text: str, golds: Sequence[str], predicted: str | None) -> tuple[Markup, str]:
    """Return a text around its answers, the gold one and the predicted one marked, and the whole where that is more."""
    gold = next((place for answer in golds if answer and (place := _place(text, answer))), None)
    wrong = _place(text, predicted) if predicted else None
    marks = sorted({(*place, kind) for place, kind in ((gold, "right"), (wrong, "wrong")) if place})
    if len(marks) == 2 and marks[1][0] < marks[0][1]:  # one over the other: both ends are in the longer one
        marks = [(marks[0][0], max(marks[0][1], marks[1][1]), "wrong")]
    if not marks:
        short = len(text) <= 2 * AROUND
        return (escape(text), "") if short else (escape(f"{text[: 2 * AROUND]}…"), text)
    parts, done = [], max(0, marks[0][0] - AROUND)
    parts.append(escape("…" if done else ""))
    for start, end, kind in marks:
        between = text[done:start]
        if len(between) > 2 * AROUND:
            between = f"{between[:AROUND]} … {between[-AROUND:]}"
        parts += [escape(between), _mark(text[start:end], "", kind)]
        done = end
    rest = text[done:]
    parts.append(escape(rest if len(rest) <= AROUND else f"{rest[:AROUND]}…"))
    shown = Markup("").join(parts)
    return shown, text if len(text) > len(shown.striptags()) else ""


def _place(text: str, answer: str) -> tuple[int, int] | None:
    start = text.find(answer)
    return (start, start + len(answer)) if start >= 0 else None


def _near(number: int, differ: Sequence[Span]) -> list[bool]:
    """Return which words are near a span of these; the first ones where there is none."""
    if not differ:
        return [i < MOST_WORDS for i in range(number)]
    return [any(first - NEAR <= i <= last + NEAR for first, last, _ in differ) for i in range(number)]


def _mark(text: str, kind: str, side: str) -> Markup:
    told = {"both": "found", "right": "gold", "wrong": "wrong"}[side]
    small = Markup("<small>{}</small>").format(kind) if kind else ""
    return Markup('<mark class="{}" title="{}">{}{}</mark>').format(side, words.sentence(told), text, small)
