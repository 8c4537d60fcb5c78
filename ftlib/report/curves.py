"""Learning curves: one small card a member, its training loss above its validation metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from ftlib.report import svg, words

WIDTH, LEFT, RIGHT = 400.0, 46.0, 388.0
LOSS_TOP, LOSS_BOTTOM = 22.0, 96.0
METRIC_TOP, METRIC_BOTTOM = 132.0, 228.0
MOST_POINTS = 160
"""Points drawn of a curve; longer ones are averaged into as many."""

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Course:
    """How one member's training went.

    Attributes:
        name: The member.
        loss: (step, training loss).
        metric: (step, validation metric).
        best: The kept checkpoint's (step, validation metric).
        steps: The last step.
    """

    name: str
    loss: Curve
    metric: Curve
    best: tuple[float, float] | None
    steps: float


def course(name: str, history: Sequence[dict[str, Any]], metric: str, *, higher_is_better: bool) -> Course | None:
    """Return a member's course from the rows of its history, or nothing where it has none.

    Args:
        name: The member.
        history: Rows with "step" and "loss", and rows with "step" and "validation_<metric>".
        metric: Which validation metric to follow.
        higher_is_better: Which end of it is good: the best row is found by it where none is marked.
    """
    key = f"validation_{metric}"
    loss = [(float(r["step"]), float(r["loss"])) for r in history if r.get("loss") is not None]
    checks = [r for r in history if r.get(key) is not None]
    curve = [(float(r["step"]), float(r[key])) for r in checks]
    if not loss and not curve:
        return None
    marked = [(float(r["step"]), float(r[key])) for r in checks if r.get("best")]
    best = marked[-1] if marked else _best(checks, key, higher_is_better)
    return Course(name, loss, curve, best, max(step for step, _ in [*loss, *curve]))


def learning_curve(course: Course, others: Sequence[Course], *, metric: str, bounds: tuple[float, float]) -> Markup:
    """Return a member's card; the other members' validation curves are behind its own, in grey.

    Args:
        course: The member's.
        others: The other members'.
        metric: The validation metric's name.
        bounds: Low and high of the metric, the same for every card.
    """
    x = svg.Scale(0, max(course.steps, 1), LEFT, RIGHT)
    loss, metrics = _loss_scale(course), svg.Scale(*bounds, METRIC_BOTTOM, METRIC_TOP)
    return svg.chart(
        WIDTH,
        262,
        svg.text(0, 10, "training loss", "axis-name"),
        svg.text(0, METRIC_TOP - 12, f"validation {words.metric_name(metric)}", "axis-name"),
        *_grid(loss, 3),
        *_grid(metrics, 4),
        *_steps(x),
        *_loss_lines(course.loss, x, loss),
        *(_ghost(other, x, metrics) for other in others),
        *_metric_line(course, x, metrics),
        _best_note(course),
        label=_told(course, metric),
    )


def metric_bounds(courses: Sequence[Course]) -> tuple[float, float]:
    """Return low and high of all validation curves, so that the cards can be compared."""
    return svg.span([value for course in courses for _, value in course.metric], pad=0.08)


def smoothed(curve: Curve) -> Curve:
    """Return the curve's moving average, each point in the middle of its window, so that it does not lag behind."""
    reach = len(curve) // 24
    values = [value for _, value in curve]
    result = []
    for i, (step, _) in enumerate(curve):
        own = min(reach, i, len(curve) - 1 - i)
        window = values[i - own : i + own + 1]
        result.append((step, sum(window) / len(window)))
    return result


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """Return at most `most` points, each the mean of its neighbours."""
    if len(curve) <= most:
        return curve
    bounds = [round(i * len(curve) / most) for i in range(most + 1)]
    parts = [curve[a:b] for a, b in pairwise(bounds)]
    return [(sum(s for s, _ in p) / len(p), sum(v for _, v in p) / len(p)) for p in parts]


def _best(checks: Sequence[dict[str, Any]], key: str, higher_is_better: bool) -> tuple[float, float] | None:
    """Return the best check's (step, value); of equals that with the lower loss, as training keeps them."""
    sign = 1 if higher_is_better else -1
    best = max(checks, key=lambda r: (sign * r[key], -r.get("validation_loss", 0.0), -r["step"]), default=None)
    return None if best is None else (float(best["step"]), float(best[key]))


def _loss_scale(course: Course) -> svg.Scale:
    values = [value for _, value in thinned(course.loss)] or [0.0, 1.0]
    low, high = svg.span([0, *values] if min(values) >= 0 and min(values) < max(values) * 0.6 else values, pad=0.04)
    return svg.Scale(max(low, 0.0) if min(values) >= 0 else low, high, LOSS_BOTTOM, LOSS_TOP)


def _grid(scale: svg.Scale, count: int) -> list[Markup]:
    parts = []
    for value, label in scale.ticks(count):
        parts.append(svg.line(LEFT, scale(value), RIGHT, scale(value), "grid"))
        parts.append(svg.text(LEFT - 6, scale(value) + 4, label, "tick", anchor="end"))
    return parts


def _steps(x: svg.Scale) -> list[Markup]:
    parts = []
    for value, label in x.ticks(4, whole=True):
        anchor = "start" if value == 0 else "end" if x(value) > RIGHT - 12 else "middle"
        parts.append(svg.text(x(value), METRIC_BOTTOM + 17, label, "tick", anchor=anchor))
    return [*parts, svg.text(RIGHT, METRIC_BOTTOM + 32, "step", "axis-name", anchor="end")]


def _loss_lines(curve: Curve, x: svg.Scale, y: svg.Scale) -> list[Markup]:
    points = [(x(s), y(v)) for s, v in thinned(curve)]
    if len(curve) < 24:
        return [svg.polyline(points, "loss")]
    smooth = [(x(s), y(v)) for s, v in thinned(smoothed(curve))]
    return [svg.polyline(points, "loss-raw"), svg.polyline(smooth, "loss")]


def _ghost(other: Course, x: svg.Scale, y: svg.Scale) -> Markup:
    """Return another member's validation curve, cut where this card ends."""
    inside = [(s, v) for s, v in other.metric if s <= x.high]
    beyond = next(((s, v) for s, v in other.metric if s > x.high), None)
    if inside and beyond:
        (s0, v0), (s1, v1) = inside[-1], beyond
        inside.append((x.high, v0 + (v1 - v0) * (x.high - s0) / (s1 - s0)))
    points = [(x(s), y(v)) for s, v in inside]
    return svg.tag("g", svg.polyline(points, "ghost"), svg.title(other.name))


def _metric_line(course: Course, x: svg.Scale, y: svg.Scale) -> list[Markup]:
    dots = [
        svg.circle(x(s), y(v), 2.2, "check", svg.title(f"step {words.count(s)}: {words.number(v)}"))
        for s, v in course.metric
    ]
    parts = [svg.polyline(((x(s), y(v)) for s, v in course.metric), "metric"), *dots]
    if course.best is None:
        return parts
    at = x(course.best[0])
    return [
        svg.line(at, METRIC_TOP, at, METRIC_BOTTOM, "best-line"),
        *parts,
        svg.circle(at, y(course.best[1]), 5, "best-dot"),
    ]


def _best_note(course: Course) -> Markup | None:
    if course.best is None:
        return None
    content = f"best {words.number(course.best[1])} at step {words.count(course.best[0])}"
    return svg.text(RIGHT, METRIC_TOP - 12, content, "name chosen", anchor="end")


def _told(course: Course, metric: str) -> str:
    told = f"Learning curve of {course.name} over {words.counted(course.steps, 'step')}."
    if course.loss:
        first, last = course.loss[0][1], smoothed(course.loss)[-1][1]
        told += f" Training loss from {words.number(first)} to {words.number(last)}."
    if course.best:
        value, step = words.number(course.best[1]), words.count(course.best[0])
        told += f" Best validation {words.metric_name(metric)} {value} at step {step}."
    return told
