"""What the hand-made charts are built from: SVG elements, scales with round ticks, labels that keep apart.

SVG inside the page takes its colours from the page's custom properties, so that charts follow the theme; an
image cannot. Everything here is plain arithmetic: equal input, equal bytes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """Return one element; children and attribute values are escaped, attributes that are None are left out.

    A trailing underscore is dropped and the others become hyphens: ``class_="axis"``, ``text_anchor="end"``.
    """
    given = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None}
    inside = "".join(f' {k}="{escape(digits(v) if isinstance(v, float) else v)}"' for k, v in given.items())
    content = Markup("").join(c for c in children if c is not None)
    return Markup(f"<{name}{inside}>{content}</{name}>")


def chart(width: float, height: float, *children: Any, label: str, class_: str = "") -> Markup:
    """Return a chart that scales down with the page; `label` is what a screen reader says of it."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {digits(width)} {digits(height)}",
        width=digits(width),
        height=digits(height),
        role="img",
        aria_label=label,
        class_=f"chart {class_}".strip(),
    )


def digits(value: float) -> str:
    """Return a coordinate with at most two decimals and no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=digits(x1), y1=digits(y1), x2=digits(x2), y2=digits(y2), class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, *children: Any, **attributes: Any) -> Markup:
    """Return a rectangle; a negative size is none."""
    size = {"width": digits(max(width, 0)), "height": digits(max(height, 0))}
    return tag("rect", *children, x=digits(x), y=digits(y), **size, class_=class_, **attributes)


def text(x: float, y: float, content: Any, class_: str = "", *, anchor: str = "start", turn: float = 0) -> Markup:
    """Return a text, turned about its anchor by `turn` degrees."""
    return tag(
        "text",
        content,
        x=digits(x),
        y=digits(y),
        class_=class_ or None,
        text_anchor=None if anchor == "start" else anchor,
        transform=f"rotate({digits(turn)} {digits(x)} {digits(y)})" if turn else None,
    )


def title(content: Any) -> Markup:
    """Return what shows when the pointer rests on the element it is put in."""
    return tag("title", content)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    return tag("polyline", points=" ".join(f"{digits(x)},{digits(y)}" for x, y in points), class_=class_)


def circle(x: float, y: float, radius: float, class_: str, *children: Any) -> Markup:
    """Return a circle."""
    return tag("circle", *children, cx=digits(x), cy=digits(y), r=digits(radius), class_=class_)


def diamond(x: float, y: float, radius: float, class_: str, *children: Any) -> Markup:
    """Return a square that stands on its corner."""
    r = radius * 1.25
    corners = ((x, y - r), (x + r, y), (x, y + r), (x - r, y))
    points = " ".join(f"{digits(a)},{digits(b)}" for a, b in corners)
    return tag("polygon", *children, points=points, class_=class_)


# -- scales ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5, *, whole: bool = False) -> list[tuple[float, str]]:
        """Return (value, label) of about `count` round values within the scale."""
        return ticks(self.low, self.high, count, whole=whole)


def span(values: Iterable[float], *, pad: float = 0.06, least: float = 1e-9) -> tuple[float, float]:
    """Return low and high with room around; equal values get some width all the same."""
    finite = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = max((high - low) * pad, least)
    if high - low < least:
        room = abs(high) * 0.1 or 0.5
    return low - room, high + room


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[tuple[float, str]]:
    """Return (value, label) of about `count` round values from low to high; whole numbers only, for counts."""
    raw = (high - low) / max(count, 1)
    magnitude = 10 ** math.floor(math.log10(raw))
    steps = [m * magnitude for m in (1, 2, 2.5, 5, 10)]
    if whole:
        steps = [s for s in steps if s >= 1 and s == round(s)] or [1]
    step = min(steps, key=lambda s: abs(s - raw))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) + (step < 10 and f"{step:e}".startswith("2.5"))
    return [(n * step, tick_label(n * step, decimals)) for n in range(first, last + 1)]


def tick_label(value: float, decimals: int) -> str:
    """Return a tick's text: large numbers short (12k), small ones with the step's decimals."""
    if abs(value) >= 10_000:
        return f"{digits(value / 1000)}k"
    label = f"{value:.{decimals}f}"
    return label.lstrip("-") if float(label) == 0 else label.replace("-", "−")


# -- text ------------------------------------------------------------------------------------------------


def text_width(content: str, size: float = 12) -> float:
    """Return about how wide a text is in pixels, in a proportional sans-serif."""
    return size * sum(map(_advance, content))


def clip(content: str, width: float, size: float = 12) -> str:
    """Return the text, its end replaced by an ellipsis where it is wider than `width` pixels."""
    if text_width(content, size) <= width:
        return content
    kept = content
    while kept and text_width(kept, size) + size > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def _advance(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if character in "iljtfrI.,:;|'!()[] ":
        return 0.32
    if character in "mwMW@%—":
        return 0.86
    return 0.68 if character.isupper() else 0.57


# -- labels beside points --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """A text beside a point: where it begins, and whether it is so far off that it needs a leader line."""

    x: float
    y: float
    anchor: str
    far: bool


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    frame: Box,
    *,
    size: float = 12,
    obstacles: Iterable[Box] = (),
) -> list[Label]:
    """Return a place for each point's label: near it, inside the frame, on no other point or label if possible.

    The first points choose first, so give the ones that matter most first.
    """
    taken: list[Box] = [*obstacles, *((x - 7, y - 7, x + 7, y + 7) for x, y in points)]
    placed = []
    for (x, y), content in zip(points, texts, strict=True):
        width = text_width(content, size)
        options = [
            (_overlap(box, taken, frame), rank, label, box)
            for rank, (label, box) in enumerate(_options(x, y, width, size))
        ]
        _, _, label, box = min(options, key=lambda o: (o[0], o[1]))
        taken.append(box)
        placed.append(label)
    return placed


def _options(x: float, y: float, width: float, size: float) -> Iterator[tuple[Label, Box]]:
    """Give places from the nearest on; before going far to a side, try further up and down, along a whisker."""
    near = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.8, -0.8), (0.8, 0.8), (-0.8, -0.8), (-0.8, 0.8))
    upright = [(distance, way) for distance in (17.0, 26.0, 36.0) for way in ((0, -1), (0, 1))]
    far = [(distance, way) for distance in (22.0, 38.0, 56.0, 76.0) for way in near]
    for distance, (dx, dy) in [*((10.0, way) for way in near), *upright, *far]:
        anchor = "middle" if dx == 0 else "start" if dx > 0 else "end"
        at, middle = x + dx * distance, y + dy * (distance + (5 if dx == 0 else 0))
        left = at - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (left, middle - size * 0.6, left + width, middle + size * 0.6)
        yield Label(at, middle + size * 0.35, anchor, distance > 10), box


def _overlap(box: Box, taken: Iterable[Box], frame: Box) -> float:
    inside = _common(box, frame)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return (area - inside) * 4 + sum(_common(box, other) for other in taken)


def _common(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
