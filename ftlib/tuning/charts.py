"""A search in pictures: how the scores went, which parameters matter, and where the good values lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from ftlib.params.searching import Dimension
from ftlib.report import svg, words
from ftlib.tuning.naming import shown
from ftlib.tuning.study import Trial

WIDTH, LEFT, RIGHT = 860.0, 54.0, 846.0
TOP, BOTTOM = 14.0, 236.0
SLICE_WIDTH, SLICE_LEFT, SLICE_RIGHT = 270.0, 46.0, 258.0
ROW = 30.0
"""Pixels a parameter takes in the chart of importances."""

Place = Callable[[Trial], float]


def history(trials: Sequence[Trial], best: Trial, metric: str, *, higher_is_better: bool) -> Markup:
    """Return every trial's score in the order of trying, and the best so far.

    Args:
        trials: Those that came to an end.
        best: The best one.
        metric: What the score is.
        higher_is_better: Which end of it is good.
    """
    scored = [trial for trial in trials if trial.score is not None]
    x = svg.Scale(-0.5, max(trial.number for trial in trials) + 0.5, LEFT, RIGHT)
    y = svg.Scale(*svg.span([trial.score or 0.0 for trial in scored], pad=0.1), BOTTOM, TOP)
    ticks = [svg.text(x(v), BOTTOM + 18, label, "tick", anchor="middle") for v, label in x.ticks(10, whole=True)]
    return svg.chart(
        WIDTH,
        BOTTOM + 40,
        *_grid(y, LEFT, RIGHT),
        *ticks,
        svg.text(RIGHT, BOTTOM + 36, "trial", "axis-name", anchor="end"),
        svg.polyline(_best_so_far(trials, x, y, higher_is_better=higher_is_better), "metric"),
        *(_mark(trial, best, x(trial.number), y) for trial in _best_last(scored, best)),
        label=f"Scores of {words.counted(len(trials), 'trial')}; the best {words.metric_name(metric)} is "
        f"{words.number(best.score)}.",
    )


def importances(shares: Sequence[tuple[str, float]]) -> Markup:
    """Return a bar for each parameter: its share in the variance of the scores.

    Args:
        shares: (name, share), the largest first.
    """
    left = 20 + max(svg.text_width(name) for name, _ in shares)
    x = svg.Scale(0, 1, left, WIDTH - 60)
    rows: list[Markup] = []
    for i, (name, share) in enumerate(shares):
        top = i * ROW
        rows += [
            svg.text(left - 10, top + 18, name, anchor="end"),
            svg.rect(left, top + 6, x(share) - left, 16, "bar"),
            svg.text(x(share) + 8, top + 18, words.percent(share), "tick"),
        ]
    told = ", ".join(f"{name} {words.percent(share)}" for name, share in shares)
    return svg.chart(WIDTH, len(shares) * ROW, *rows, label=f"Importance of parameters: {told}.")


def slice_of(dimension: Dimension, trials: Sequence[Trial], best: Trial) -> Markup:
    """Return the trials' scores by one parameter's value.

    Args:
        dimension: The parameter.
        trials: Those with a score.
        best: The best one.
    """
    y = svg.Scale(*svg.span([trial.score or 0.0 for trial in trials], pad=0.1), 150, 10)
    place, ticks = _axis(dimension)
    return svg.chart(
        SLICE_WIDTH,
        186,
        *_grid(y, SLICE_LEFT, SLICE_RIGHT, 4),
        *(svg.text(at, 168, svg.clip(label, 90, 11), "tick", anchor="middle") for at, label in ticks),
        *(_mark(trial, best, place(trial), y) for trial in _best_last(trials, best)),
        label=f"Scores by {dimension.path}; the best is at {shown(best.values[dimension.path])}.",
    )


def _axis(dimension: Dimension) -> tuple[Place, list[tuple[float, str]]]:
    """Return where a trial's value lies, and the ticks: choices side by side, round values on a logarithmic scale."""
    found, path = dimension.range, dimension.path
    if found.choices is not None or found.low is None or found.high is None:
        names = [shown(choice) for choice in found.choices or ()]
        x = svg.Scale(-0.5, len(names) - 0.5, SLICE_LEFT, SLICE_RIGHT)
        return lambda trial: x(names.index(shown(trial.values[path]))), [(x(i), n) for i, n in enumerate(names)]
    if not found.log:
        x = svg.Scale(*svg.span([found.low, found.high]), SLICE_LEFT, SLICE_RIGHT)
        ticks = [(x(v), label) for v, label in x.ticks(4, whole=dimension.is_whole)]
        return lambda trial: x(float(trial.values[path])), ticks
    low, high = math.log10(found.low), math.log10(found.high)
    x = svg.Scale(*svg.span([low, high]), SLICE_LEFT, SLICE_RIGHT)
    powers = range(math.floor(low), math.ceil(high) + 1)
    digits = (1,) if high - low > 2 else (1, 2, 5)
    values = [digit * 10.0**power for power in powers for digit in digits]
    labels = [(math.log10(v), f"{v:g}") for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9]
    return lambda trial: x(math.log10(trial.values[path])), [(x(v), label) for v, label in labels]


def _best_last(trials: Sequence[Trial], best: Trial) -> list[Trial]:
    """Return the trials in the order of drawing: the best over the others."""
    return sorted(trials, key=lambda trial: trial.number == best.number)


def _mark(trial: Trial, best: Trial, x: float, y: svg.Scale) -> Markup:
    values = "\n".join(f"{path}: {shown(value)}" for path, value in trial.values.items())
    told = svg.title(f"trial {trial.number}, {trial.state}: {words.number(trial.score)}\n{values}")
    at = y(trial.score or 0.0)
    if trial.number == best.number:
        return svg.circle(x, at, 6, "best-dot", told)
    if trial.state == "pruned":
        return svg.diamond(x, at, 3.4, "mark given-up", told)
    return svg.circle(x, at, 4, "mark member", told)


def _best_so_far(
    trials: Sequence[Trial], x: svg.Scale, y: svg.Scale, *, higher_is_better: bool
) -> list[tuple[float, float]]:
    """Return the corners of the line that each better trial lifts; in the picture better may be lower."""
    better = max if higher_is_better else min
    points: list[tuple[float, float]] = []
    leading: float | None = None
    for trial in trials:
        if trial.state == "complete" and trial.score is not None:
            now = trial.score if leading is None else better(leading, trial.score)
            points += [(x(trial.number), y(leading))] if leading is not None and now != leading else []
            leading = now
        points += [(x(trial.number), y(leading))] if leading is not None else []
    return points


def _grid(y: svg.Scale, left: float, right: float, count: int = 5) -> list[Markup]:
    lines = [svg.line(left, y(value), right, y(value), "grid") for value, _ in y.ticks(count)]
    names = [svg.text(left - 6, y(value) + 4, label, "tick", anchor="end") for value, label in y.ticks(count)]
    return [*lines, *names]
