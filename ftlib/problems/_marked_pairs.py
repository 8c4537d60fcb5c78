"""Two entities in a text: read in every form that sources have, marked, and kept when the text is cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

TAGS = re.compile(r"<(/?)e([12])>")
UNIT = re.compile(r"\s*(?:[^\W\u2e80-\u9fff\uac00-\ud7af]+|.)", re.DOTALL)
"""What a text is cut between: words, single signs, and characters of scripts that have no spaces."""

Mark: TypeAlias = tuple[str, str]
Marks: TypeAlias = tuple[Mark, Mark]
"""What stands before and after an entity, for head and tail."""


@dataclass(frozen=True)
class Entity:
    """Where an entity is in its text, in characters, and of what type it is."""

    start: int
    end: int
    type: str = ""


@dataclass(frozen=True)
class Pair:
    """A text and its two entities."""

    text: str
    head: Entity
    tail: Entity


# -- reading -------------------------------------------------------------------------------------------


def read_pair(text: str | None, head: Any, tail: Any, *, typed: bool = False) -> Pair | str:
    """Return a text with its entities, or why they cannot be used.

    Args:
        text: The text; with <e1> and <e2> around the entities, these count and the tags go.
        head: [start, end], an object with start, end and perhaps type, the JSON of either, or the entity's words.
        tail: The same.
        typed: Whether entities must have a type.
    """
    tagged = _untagged(text or "")
    if tagged is not None:
        return tagged if isinstance(tagged, str) or not typed else "head has no type, which markers: typed needs"
    found = []
    for name, value in (("head", head), ("tail", tail)):
        entity = _entity(text or "", value, name)
        if isinstance(entity, str):
            return entity
        if typed and not entity.type:
            return f"{name} has no type, which markers: typed needs"
        found.append(entity)
    first, second = sorted(found, key=lambda e: e.start)
    return "head and tail overlap" if second.start < first.end else Pair(text or "", *found)


def _entity(text: str, value: Any, name: str) -> Entity | str:
    value = _parsed(value)
    if isinstance(value, str):
        return _words(text, value, name)
    kind = ""
    if isinstance(value, Mapping):
        kind = str(value.get("type") or "")
        value = [value.get("start"), value.get("end")]
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(_is_place(v) for v in value):
        return f"unreadable {name}: not [start, end], not an object with start and end, no words"
    start, end = map(int, value)
    if start == end:
        return f"{name} is empty"
    if not 0 <= start < end <= len(text):
        return f"misplaced {name}: {start} to {end} of {len(text)} characters"
    return Entity(start, end, kind) if text[start:end].strip() else f"{name} is empty"


def _words(text: str, words: str, name: str) -> Entity | str:
    words = words.strip()
    times = text.count(words) if words else 0
    if times == 1:
        return Entity(text.index(words), text.index(words) + len(words))
    if not words:
        return f"{name} is empty"
    shown = repr(words if len(words) <= 40 else f"{words[:37]}...")
    return f"misplaced {name}: {shown} is {f'in the text {times} times' if times else 'not in the text'}"


def _parsed(value: Any) -> Any:
    """Return what JSON text holds, where it is an entity in some form; other texts as they are."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_place(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().isdecimal()
    return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()


def _untagged(text: str) -> Pair | str | None:
    """Return a text without its tags and the entities inside them, why it cannot be read, or None without tags."""
    tags = list(TAGS.finditer(text))
    if not tags:
        return None
    places: dict[str, int] = {}
    plain, last = "", 0
    for tag in tags:
        plain += text[last : tag.start()]
        places.setdefault(tag.group(1) + tag.group(2), len(plain))
        last = tag.end()
    if len(tags) != 4 or set(places) != {"1", "/1", "2", "/2"}:
        return "unreadable tags: not one <e1>...</e1> and one <e2>...</e2>"
    return read_pair(plain + text[last:], [places["1"], places["/1"]], [places["2"], places["/2"]])


# -- after a repair ------------------------------------------------------------------------------------


def moved(repaired: str | None, given: Any, head: Any, tail: Any) -> tuple[str | None, str | None, str | None]:
    """Return a repaired text without tags, and its entities there as JSON; unreadable ones as they came, as text.

    Args:
        repaired: The text after cleaning.
        given: The text as it came: entities count in it, and it may hold tags that cleaning took for markup.
        head: The head as it came.
        tail: The tail as it came.
    """
    from ftlib.data.originals import places

    pair = read_pair("" if given is None else str(given), head, tail)
    if repaired is None or isinstance(pair, str):
        return repaired, _as_text(head), _as_text(tail)
    text = TAGS.sub("", repaired)
    where = places(pair.text, text)
    told = [_dumped(_trimmed(text, *where.in_repaired(e.start, e.end)), e.type) for e in (pair.head, pair.tail)]
    return text, told[0], told[1]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave white space at the ends of an entity out."""
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), max(start, end - len(inner) + len(inner.rstrip()))


def _dumped(span: tuple[int, int], kind: str) -> str:
    return json.dumps({"start": span[0], "end": span[1], **({"type": kind} if kind else {})})


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


# -- marking -------------------------------------------------------------------------------------------


def marked(pair: Pair, marks: Marks) -> str:
    """Return the text with marks around its entities."""
    return "".join(_pieces(pair, marks))


def window(pair: Pair, marks: Marks, fits: Callable[[str], bool]) -> str:
    """Return as much of a marked text as fits: the entities, what is between them, then what is around them.

    Entities that are too long together lose their ends, alike, and keep their marks.

    Args:
        pair: The text and its entities.
        marks: What stands around the entities.
        fits: Whether a text is short enough.
    """
    before, first, between, second, after = _pieces(pair, marks)
    left, middle, right = (UNIT.findall(piece) for piece in (before, between, after))

    def text(size: int) -> str:
        around = size - min(size, len(middle))
        at_left = min(len(left), max(around - len(right), around - around // 2))
        kept = "".join(left[len(left) - at_left :])
        return f"{kept}{first}{_ends(middle, size)}{second}{''.join(right[: around - at_left])}".strip()

    size = _most(len(left) + len(middle) + len(right), lambda n: fits(text(n)))
    return text(size) if size >= 0 else _shortened(pair, marks, fits)


def _ends(units: list[str], size: int) -> str:
    """Return what is between the entities, or, where it is too much, its first and its last units."""
    if size >= len(units):
        return "".join(units)
    return "".join(units[: size - size // 2]) + " ... " + "".join(units[len(units) - size // 2 :])


def _shortened(pair: Pair, marks: Marks, fits: Callable[[str], bool]) -> str:
    head, tail = (pair.text[e.start : e.end] for e in (pair.head, pair.tail))

    def text(size: int) -> str:
        parts = [f"{a}{words[:size].strip()}{b}" for (a, b), words in zip(marks, (head, tail), strict=True)]
        return " ... ".join(parts if pair.head.start < pair.tail.start else parts[::-1])

    return text(max(1, _most(max(len(head), len(tail)), lambda n: fits(text(n)))))


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that fits, by halving; -1 where 0 does not."""
    low, high = -1, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _pieces(pair: Pair, marks: Marks) -> tuple[str, str, str, str, str]:
    """Return the text before, the first entity marked, the text between, the second one marked, the text after."""
    (one, one_marks), (two, two_marks) = sorted(
        zip((pair.head, pair.tail), marks, strict=True), key=lambda entity: (entity[0].start, entity[0].end)
    )
    text = pair.text
    inside = [f"{a}{text[e.start : e.end]}{b}" for e, (a, b) in ((one, one_marks), (two, two_marks))]
    return text[: one.start], inside[0], text[one.end : two.start], inside[1], text[two.end :]
