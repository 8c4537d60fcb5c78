"""Charts that set models beside each other: dots and whiskers for the leaderboard, gain against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from markupsafe import Markup

from ftlib.report import svg, words

SIDE = 15.0
"""Pixels between points that are set side by side."""

ROUNDS = 40
"""Rounds of pushing; a handful settles a dozen points."""

SHAPES = {"member": svg.circle, "fusion": svg.circle, "baseline": svg.diamond}


@dataclass(frozen=True)
class Whiskers:
    """Where, in percent of a track, the values, intervals and ticks of a leaderboard lie."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def at(self, value: float) -> float:
        """Return a value's place in percent of the track."""
        return round((value - self.low) / (self.high - self.low) * 100, 2)


def whiskers(values: Sequence[float]) -> Whiskers:
    """Return one scale for all values and interval ends of a leaderboard; its ends carry no tick."""
    low, high = svg.span(values, pad=0.08)
    scale = Whiskers(low, high, [])
    inside = [(scale.at(v), label) for v, label in svg.ticks(low, high, 4)]
    return Whiskers(low, high, [(at, label) for at, label in inside if 4 <= at <= 96])


@dataclass(frozen=True)
class Point:
    """A model in the gain-against-cost chart.

    Attributes:
        name: Its name.
        kind: "member", "fusion" or "baseline".
        chosen: Whether validation chose it.
        cost: Inference cost as a multiple of the best single member's.
        gain: How much better it is than the best single member; above 0 is better, whatever the metric.
        interval: The gain's interval, the same way up.
    """

    name: str
    kind: str
    chosen: bool
    cost: float
    gain: float
    interval: tuple[float, float] | None


def gain_cost(points: Sequence[Point], *, metric: str, reference: str, width: float) -> Markup:
    """Return the scatter of gain against inference cost; cost is on a doubling scale."""
    height = 330.0 if width > 500 else 300.0
    low, high = svg.span([0, *(p.gain for p in points), *(b for p in points for b in p.interval or ())], pad=0.1)
    y = svg.Scale(low, high, height - 46, 16)
    doublings = [math.log2(p.cost) for p in points]
    x = svg.Scale(min(-0.5, min(doublings) - 0.4), max(0.5, max(doublings) + 0.6), 52, width - 12)
    ordered = sorted(points, key=lambda p: (not p.chosen, p.kind == "member", p.cost, p.name))
    names = [svg.clip(p.name, width * 0.36) for p in ordered]
    spots = [(at, y(p.gain)) for p, at in zip(ordered, _apart(ordered, x, y), strict=True)]
    bars = [_reach(p, spot, y) for p, spot in zip(ordered, spots, strict=True)]
    labels = svg.place_labels(spots, names, (50, 14, width - 2, height - 48), obstacles=bars)
    return svg.chart(
        width,
        height,
        *_frame(x, y, width, height),
        svg.text(52, 10, "better than the best single member ↑", "axis-name"),
        svg.text(width - 12, height - 8, "inference cost, best single member = 1×", "axis-name", anchor="end"),
        *(_whisker(p, bar) for p, bar in zip(ordered, bars, strict=True)),
        *(_leader(spot, label) for spot, label in zip(spots, labels, strict=True)),
        *(_mark(p, spot, metric) for p, spot in reversed([*zip(ordered, spots, strict=True)])),
        *(
            svg.text(label.x, label.y, name, "name chosen" if p.chosen else "name", anchor=label.anchor)
            for p, name, label in zip(ordered, names, labels, strict=True)
        ),
        label=f"Gain in {words.metric_name(metric)} over {reference} against inference cost. "
        + "; ".join(f"{p.name}: {words.signed(p.gain)} at {words.times(p.cost)}" for p in ordered),
    )


def _frame(x: svg.Scale, y: svg.Scale, width: float, height: float) -> list[Markup]:
    bottom = height - 46
    parts = []
    for value, label in y.ticks(5):
        at = y(value)
        zero = abs(value) < 1e-12
        parts.append(svg.line(52, at, width - 12, at, "zero" if zero else "grid"))
        shown = label if zero or label.startswith("−") else f"+{label}"
        parts.append(svg.text(46, at + 4, shown, "tick", anchor="end"))
    for power in range(math.ceil(x.low), math.floor(x.high) + 1):
        at = x(power)
        parts.append(svg.line(at, 16, at, bottom, "zero" if power == 0 else "grid"))
        parts.append(svg.text(at, bottom + 17, _cost_label(power), "tick", anchor="middle"))
    return parts


def _cost_label(power: int) -> str:
    return f"{2**power}×" if power >= 0 else {-1: "½×", -2: "¼×", -3: "⅛×"}.get(power, f"1/{2**-power}×")


def _apart(points: Sequence[Point], x: svg.Scale, y: svg.Scale) -> list[float]:
    """Return each point's place on the cost axis; those that would hide each other push each other aside."""
    places = [x(math.log2(p.cost)) for p in points]
    order = sorted(range(len(points)), key=lambda i: (places[i], points[i].name))
    heights = [_reach(p, (0.0, y(p.gain)), y) for p in points]
    pairs = [(i, j) for i, j in combinations(order, 2) if _level(heights[i], heights[j])]
    for _ in range(ROUNDS):
        for i, j in pairs:
            push = (SIDE - (places[j] - places[i])) / 2
            if push > 0:
                places[i], places[j] = places[i] - push, places[j] + push
    return [min(max(place, x.start + 6), x.end - 6) for place in places]


def _level(one: svg.Box, other: svg.Box) -> bool:
    """Return whether two whiskers share a height, give or take their marks."""
    return one[1] < other[3] + 6 and other[1] < one[3] + 6


def _reach(point: Point, spot: tuple[float, float], y: svg.Scale) -> svg.Box:
    """Return the box of a point's whisker, or of its mark where it has none."""
    low, high = sorted(point.interval) if point.interval else (point.gain, point.gain)
    return spot[0] - 2, y(high), spot[0] + 2, y(low)


def _whisker(point: Point, bar: svg.Box) -> Markup | None:
    if point.interval is None:
        return None
    return svg.line(bar[0] + 2, bar[1], bar[0] + 2, bar[3], "whisker chosen" if point.chosen else "whisker")


def _leader(spot: tuple[float, float], label: svg.Label) -> Markup | None:
    return svg.line(*spot, label.x, label.y - 4, "leader") if label.far else None


def _mark(point: Point, spot: tuple[float, float], metric: str) -> Markup:
    told = f"{point.name}: {words.signed(point.gain)} {words.metric_name(metric)} at {words.times(point.cost)} the cost"
    chosen = " chosen" if point.chosen else ""
    shape: Any = SHAPES[point.kind]
    return shape(*spot, 6.0 if point.chosen else 5.0, f"mark {point.kind}{chosen}", svg.title(told))
