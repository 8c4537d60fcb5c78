"""Matrices as heatmaps: which label is taken for which, and where members disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ftlib.report import svg, words
from ftlib.report.palette import shade

MOST_NAMED = 40
"""Labels with their names on the axes; a larger matrix is a picture, and the table beside it names its peaks."""


TAIL = 44.0
"""Pixels beside a triangle, for the names that stand on its steps."""

CALM = 0.75
"""Share of the ramp that mistakes and differences use: the largest is seen, and does not shout."""


@dataclass(frozen=True)
class Grid:
    """Where the cells of a square matrix lie."""

    size: int
    cell: float
    left: float
    top: float

    @property
    def side(self) -> float:
        """Return the length of the whole square's side."""
        return self.size * self.cell

    def x(self, column: int) -> float:
        """Return a column's left edge."""
        return self.left + column * self.cell

    def y(self, row: int) -> float:
        """Return a row's top edge."""
        return self.top + row * self.cell


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]], *, name: str, width: float) -> Markup:
    """Return the confusion matrix: right answers in blue, mistakes in orange, darker for a larger share of the row.

    Mistakes have their own shades, up to the most frequent one: they are what the eye is to find.

    Args:
        labels: Label names.
        matrix: Counts; a row is a gold label, a column a predicted one.
        name: The model.
        width: Most pixels the chart may take.
    """
    gutter = 170.0 if width > 500 else 96.0
    grid, turned = _layout(labels, width, gutter=gutter, most=72)
    totals = [sum(row) for row in matrix]
    wrong = [
        c / t for i, (row, t) in enumerate(zip(matrix, totals, strict=True)) for j, c in enumerate(row) if i != j and t
    ]
    worst = max(wrong, default=0) or 1
    faintest = 1 if grid.cell >= 12 else 3  # a small cell has only its colour to be seen by
    cells = []
    for i, (row, total) in enumerate(zip(matrix, totals, strict=True)):
        for j, number in enumerate(row):
            if number:
                share = number / total
                heat = f"b{shade(share)}" if i == j else f"o{max(shade(share / worst * CALM), faintest)}"
                told = f"{labels[i]} read as {labels[j]}: {words.count(number)} ({words.percent(share)} of the row)"
                cells.append(_cell(grid, i, j, heat, words.count(number), words.percent(share, 0), told))
    return svg.chart(
        grid.left + grid.side + (_tail(labels[-1], gutter) if turned else 2),
        grid.top + grid.side + 4,
        svg.rect(grid.left, grid.top, grid.side, grid.side, "matrix-frame"),
        *cells,
        *_names(grid, labels, turned),
        svg.text(grid.left, 11, "predicted →", "axis-name"),
        svg.text(grid.left - 8, grid.top - 7, "gold ↓", "axis-name", anchor="end"),
        label=f"Confusion matrix of {name}: {len(labels)} labels, gold in rows, predicted in columns.",
    )


def disagreement(names: Sequence[str], matrix: Sequence[Sequence[float]], *, width: float) -> Markup:
    """Return the lower triangle of the members' pairwise disagreement, as shares of the test rows."""
    grid, _ = _layout(names, width, gutter=150 if width > 500 else 104, most=76, heads=False)
    most = max((matrix[i][j] for i in range(len(names)) for j in range(i)), default=0) or 1
    cells = [
        _cell(
            grid,
            i - 1,
            j,
            f"b{shade(matrix[i][j] / most * CALM)}",
            words.percent(matrix[i][j]),
            "",
            f"{names[i]} and {names[j]} differ on {words.percent(matrix[i][j])} of the test rows",
        )
        for i in range(1, len(names))
        for j in range(i)
    ]
    rows = [
        svg.text(
            grid.left - 8, grid.y(i - 1) + grid.cell / 2 + 4, svg.clip(names[i], grid.left - 10), "name", anchor="end"
        )
        for i in range(1, len(names))
    ]
    heads = [
        svg.text(grid.x(j) + 6, grid.y(j) - 7, svg.clip(names[j], grid.side - grid.x(j) + grid.left + 40), "name")
        for j in range(len(names) - 1)
    ]
    return svg.chart(
        grid.left + grid.side + TAIL,
        grid.top + grid.side - grid.cell + 4,
        *cells,
        *rows,
        *heads,
        label="Share of test rows on which two members decide differently. "
        + "; ".join(
            f"{names[i]} and {names[j]} {words.percent(matrix[i][j])}" for i in range(len(names)) for j in range(i)
        ),
    )


def frequent_mistakes(
    labels: Sequence[str], matrix: Sequence[Sequence[int]], most: int = 12
) -> list[tuple[str, str, int, float]]:
    """Return the most frequent mistakes: gold, predicted, count, share of the gold label's rows."""
    found = [
        (labels[i], labels[j], int(number), number / sum(row))
        for i, row in enumerate(matrix)
        for j, number in enumerate(row)
        if i != j and number
    ]
    return sorted(found, key=lambda mistake: (-mistake[2], -mistake[3], mistake[0], mistake[1]))[:most]


def _layout(names: Sequence[str], width: float, *, gutter: float, most: float, heads: bool = True) -> tuple[Grid, bool]:
    """Return the cells' places, and whether the column names have to be turned."""
    if len(names) > MOST_NAMED:
        return Grid(len(names), max((width - 60) / len(names), 2.0), 58, 40), False
    longest = min(max(svg.text_width(n) for n in names), gutter)
    left = max(52.0, longest + 12)
    if not heads:
        return Grid(len(names), min(most, (width - left - TAIL) / len(names)), left, 24), False
    cell = min(most, (width - left - 6) / len(names))
    turned = longest > cell - 6
    if turned:
        cell = max(min(cell, (width - left - _tail(names[-1], gutter)) / len(names)), 18.0)
    return Grid(len(names), cell, left, 26 + (longest * 0.72 if turned else 16)), turned


def _tail(name: str, gutter: float) -> float:
    """Return how far the last column's turned name reaches beyond the square."""
    return max(6.0, min(svg.text_width(name), gutter) * 0.72 - 6)


def _names(grid: Grid, labels: Sequence[str], turned: bool) -> list[Markup]:
    if len(labels) > MOST_NAMED:
        return []
    parts = []
    for i, label in enumerate(labels):
        middle = grid.cell / 2
        shown = svg.clip(label, grid.left - 12)
        parts.append(svg.text(grid.left - 8, grid.y(i) + middle + 4, shown, "name", anchor="end"))
        if turned:
            parts.append(svg.text(grid.x(i) + middle + 2, grid.top - 7, shown, "name", turn=-45))
        else:
            parts.append(svg.text(grid.x(i) + middle, grid.top - 7, shown, "name", anchor="middle"))
    return parts


def _cell(grid: Grid, row: int, column: int, heat: str, first: str, second: str, told: str) -> Markup:
    """Return one cell: two lines of text where there is room, one where there is little, none in a small one."""
    x, y, size = grid.x(column), grid.y(row), grid.cell
    gap = 1.0 if size >= 12 else 0.0
    middle = x + size / 2
    lines = []
    if second and size >= 46:
        lines.append(svg.text(middle, y + size / 2 - 1, first, f"count {heat}", anchor="middle"))
        lines.append(svg.text(middle, y + size / 2 + 14, second, f"share {heat}", anchor="middle"))
    elif svg.text_width(first, 11) <= size - 4:
        lines.append(svg.text(middle, y + size / 2 + 4, first, f"share {heat}", anchor="middle"))
    return svg.tag("g", svg.rect(x + gap / 2, y + gap / 2, size - gap, size - gap, heat), *lines, svg.title(told))
