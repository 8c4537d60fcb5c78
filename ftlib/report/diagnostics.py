"""Charts of how right one model is: reliability of its confidence, gold against predicted values, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ftlib.report import svg, words

MOST_DOTS = 1200
"""Dots drawn of a gold-predicted sample."""


def reliability(bins: Sequence[dict[str, Any]], *, name: str) -> Markup:
    """Return the reliability diagram: how often answers given with a confidence are right, and how many there are.

    Guo et al. (2017), "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, figure 1.

    Args:
        bins: With "confidence" and "accuracy" (means of the bin) and "count".
        name: The model.
    """
    used = [b for b in bins if b.get("count")]
    x, y = svg.Scale(0, 1, 40, 248), svg.Scale(0, 1, 214, 10)
    most = max((b["count"] for b in used), default=1)
    parts: list[Markup] = []
    for value, label in svg.ticks(0, 1, 4):
        parts += [
            svg.line(x(0), y(value), x(1), y(value), "grid"),
            svg.text(34, y(value) + 4, label, "tick", anchor="end"),
            svg.text(x(value), 274, label, "tick", anchor="middle"),
        ]
    parts.append(svg.line(x(0), y(0), x(1), y(1), "diagonal"))
    for b in used:
        at = x(b["confidence"])
        told = (
            f"confidence {words.number(b['confidence'], 2)}: right {words.percent(b['accuracy'])} "
            f"of {words.counted(b['count'], 'answer')}"
        )
        over = b["accuracy"] < b["confidence"]
        height = max(30 * b["count"] / most, 1.0)
        parts += [
            svg.line(at, y(b["confidence"]), at, y(b["accuracy"]), "gap over" if over else "gap"),
            svg.circle(at, y(b["accuracy"]), 4.2, "mark bin over" if over else "mark bin", svg.title(told)),
            svg.rect(at - 4, 256 - height, 8, height, "counts", svg.title(told)),
        ]
    label = f"Reliability diagram of {name}. " + "; ".join(
        f"confidence {words.number(b['confidence'], 2)}, right {words.percent(b['accuracy'])}, {b['count']} answers"
        for b in used
    )
    return svg.chart(
        260,
        292,
        *parts,
        svg.line(x(0), 256, x(1), 256, "grid"),
        svg.text(34, 250, "rows", "tick", anchor="end"),
        svg.text(x(1), 289, "confidence", "axis-name", anchor="end"),
        svg.text(x(0) + 4, 12, "share right", "axis-name"),
        label=label,
    )


def gold_predicted(pairs: Sequence[Sequence[float]], *, name: str) -> Markup:
    """Return predicted values against gold ones; on the line, they are equal."""
    shown = _every(pairs, MOST_DOTS)
    low, high = svg.span([v for pair in pairs for v in pair], pad=0.04)
    x, y = svg.Scale(low, high, 44, 400), svg.Scale(low, high, 366, 10)
    parts: list[Markup] = []
    for value, label in svg.ticks(low, high, 5):
        parts += [
            svg.line(x.start, y(value), x.end, y(value), "grid"),
            svg.text(38, y(value) + 4, label, "tick", anchor="end"),
            svg.text(x(value), 384, label, "tick", anchor="middle"),
        ]
    dots = [
        svg.circle(x(gold), y(predicted), 3, "dot", svg.title(f"gold {words.number(gold)}, predicted {words.number(predicted)}"))
        for gold, predicted in shown
    ]
    return svg.chart(
        412,
        404,
        *parts,
        svg.line(x(low), y(low), x(high), y(high), "diagonal"),
        *dots,
        svg.text(400, 401, "gold", "axis-name", anchor="end"),
        svg.text(48, 14, "predicted", "axis-name"),
        label=f"Predicted against gold values of {name}, {words.counted(len(shown), 'row')}.",
    )


def residuals(pairs: Sequence[Sequence[float]], *, name: str) -> Markup:
    """Return the histogram of predicted minus gold: its place shows bias, its width the error."""
    errors = [predicted - gold for gold, predicted in pairs]
    reach = max(map(abs, errors)) or 1.0
    number = min(31, max(7, round(len(errors) ** 0.5) | 1))
    counts = [0] * number
    for error in errors:
        counts[min(int((error + reach) / (2 * reach) * number), number - 1)] += 1
    x, y = svg.Scale(-reach, reach, 44, 400), svg.Scale(0, max(counts) * 1.06, 206, 16)
    bars = []
    for i, total in enumerate(counts):
        start, end = -reach + i * 2 * reach / number, -reach + (i + 1) * 2 * reach / number
        told = f"{words.signed(start, 2)} to {words.signed(end, 2)}: {words.counted(total, 'row')}"
        bars.append(svg.rect(x(start) + 0.75, y(total), x(end) - x(start) - 1.5, 206 - y(total), "bar", svg.title(told)))
    ticks = [svg.text(x(v), 223, label if v <= 0 else f"+{label}", "tick", anchor="middle") for v, label in x.ticks(5)]
    rows = [
        part
        for v, label in y.ticks(3)
        for part in (svg.line(44, y(v), 400, y(v), "grid"), svg.text(38, y(v) + 4, label, "tick", anchor="end"))
    ]
    return svg.chart(
        412,
        244,
        *rows,
        *bars,
        svg.line(x(0), 16, x(0), 206, "zero"),
        *ticks,
        svg.text(400, 240, "predicted − gold", "axis-name", anchor="end"),
        svg.text(48, 12, "rows", "axis-name"),
        label=f"Histogram of the errors of {name}: predicted minus gold, over {words.counted(len(errors), 'row')}.",
    )


def histogram(edges: Sequence[float], counts: Sequence[float], *, unit: str, limit: float | None, width: float) -> Markup:
    """Return a histogram of row lengths; `limit` is where longer rows are cut."""
    high = max(edges[-1], limit or 0)
    x, y = svg.Scale(edges[0], high if high > edges[0] else edges[0] + 1, 44, width - 12), svg.Scale(0, max(counts) * 1.06 or 1, 166, 16)
    bars = [
        svg.rect(x(a) + 0.5, y(n), x(b) - x(a) - 1, 166 - y(n), "bar", svg.title(f"{words.number(a, 0)} to {words.number(b, 0)} {unit}: {words.counted(n, 'row')}"))
        for a, b, n in zip(edges, edges[1:], counts, strict=False)
    ]
    grid = [
        part
        for v, label in y.ticks(3)
        for part in (svg.line(44, y(v), width - 12, y(v), "grid"), svg.text(38, y(v) + 4, label, "tick", anchor="end"))
    ]
    ticks = [svg.text(x(v), 183, label, "tick", anchor="middle") for v, label in x.ticks(6)]
    cut = [svg.line(x(limit), 8, x(limit), 166, "best-line")] if limit else []
    return svg.chart(
        width,
        204,
        *grid,
        *bars,
        *cut,
        *ticks,
        svg.text(width - 12, 200, unit, "axis-name", anchor="end"),
        svg.text(48, 12, "rows", "axis-name"),
        label=f"Histogram of row lengths in {unit}.",
    )


def _every(pairs: Sequence[Sequence[float]], most: int) -> Sequence[Sequence[float]]:
    """Return at most `most` pairs, spread evenly over the given ones."""
    return pairs if len(pairs) <= most else [pairs[i * len(pairs) // most] for i in range(most)]
