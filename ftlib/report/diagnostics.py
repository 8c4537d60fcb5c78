"""Charts of how right one model is: reliability of its confidence, gold against predicted values, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
        svg.circle(
            x(gold),
            y(predicted),
            3,
            "dot",
            svg.title(f"gold {words.number(gold)}, predicted {words.number(predicted)}"),
        )
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
    number = min(31, max(7, round(len(errors) ** 0.5) | 1))  # odd, so that one bar stands on 0
    counts = [0] * number
    for error in errors:
        counts[min(int((error + reach) / (2 * reach) * number), number - 1)] += 1
    edges = [-reach + i * 2 * reach / number for i in range(number + 1)]
    told = [f"{words.signed(a, 2)} to {words.signed(b, 2)}" for a, b in pairwise(edges)]
    label = f"Histogram of the errors of {name}: predicted minus gold, over {words.counted(len(errors), 'row')}."
    return _bars(edges, counts, told, unit="predicted − gold", width=412, label=label, zero=True)


def lengths(edges: Sequence[float], counts: Sequence[int], *, width: float) -> Markup:
    """Return the histogram of row lengths in tokens."""
    told = [f"{words.number(a, 0)} to {words.number(b, 0)} tokens" for a, b in pairwise(edges)]
    return _bars(edges, counts, told, unit="tokens", width=width, label="Histogram of row lengths in tokens.")


def _bars(
    edges: Sequence[float],
    counts: Sequence[int],
    told: Sequence[str],
    *,
    unit: str,
    width: float,
    label: str,
    zero: bool = False,
) -> Markup:
    """Return a histogram; `zero` marks 0, and gives the ticks their signs."""
    x, y = svg.Scale(edges[0], edges[-1], 44, width - 12), svg.Scale(0, max(*counts, 1) * 1.06, 206, 16)
    grid = [
        part
        for value, tick in y.ticks(3, whole=True)
        for part in (
            svg.line(44, y(value), x.end, y(value), "grid"),
            svg.text(38, y(value) + 4, tick, "tick", anchor="end"),
        )
    ]
    bars = [
        svg.rect(x(a) + 0.6, y(n), x(b) - x(a) - 1.2, 206 - y(n), "bar", svg.title(f"{t}: {words.counted(n, 'row')}"))
        for (a, b), n, t in zip(pairwise(edges), counts, told, strict=True)
    ]
    ticks = [
        svg.text(x(value), 223, f"+{tick}" if zero and value > 0 else tick, "tick", anchor="middle")
        for value, tick in x.ticks(5)
    ]
    return svg.chart(
        width,
        244,
        *grid,
        *bars,
        svg.line(x(0), 16, x(0), 206, "zero") if zero else None,
        *ticks,
        svg.text(x.end, 240, unit, "axis-name", anchor="end"),
        svg.text(48, 12, "rows", "axis-name"),
        label=label,
    )


def _every(pairs: Sequence[Sequence[float]], most: int) -> Sequence[Sequence[float]]:
    """Return at most `most` pairs, spread evenly over the given ones."""
    return pairs if len(pairs) <= most else [pairs[i * len(pairs) // most] for i in range(most)]
