"""Slices: the metric on parts of the test rows, and where they fall behind the rest.

An average hides who is served badly. Rows are divided by columns of the source that the experiment names
(`evaluation.slices`), by the length of their input, and by the script that it is written in; of each part the report
says how good the best model is on it and on all other rows.

Whether a gap is more than luck is asked by permutation: rows are given to the slice at random, a thousand times, and
the p-value is how often that gives a gap as wide (Good 2005, "Permutation, Parametric and Bootstrap Tests of
Hypotheses", chapter 3). That holds for any metric and for small slices. Since many slices are looked at, p-values are
adjusted by Holm's method (1979, https://www.jstor.org/stable/4615733): a gap is named where the adjusted one is below
0.05. Slices of few rows are shown and not tested.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.evaluation.measures import Measure
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target

COLUMN = "slice:"
"""Before the names of the source's columns that rows are divided by, in the tables of rows."""

LENGTH, SCRIPT = "length", "script"

FEWEST = 20
"""Rows of a slice, and of the rest, from which a gap is tested."""

MOST_VALUES = 20
"""Slices of one column, the largest; numbers with more different values than `MOST_NUMBERS` are divided in quarters."""

MOST_NUMBERS = 10
LEVEL = 0.05
OTHERS = "other values"
MISSING = "no value"
SAMPLED_CHARACTERS = 400
"""Characters of a text that its script is told by."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Some of the rows.

    Attributes:
        column: What rows are divided by.
        value: What these have.
        rows: Which they are, bool, shape (num_rows,).
    """

    column: str
    value: str
    rows: np.ndarray


def divide(rows: pa.Table, problem: Problem) -> list[Slice]:
    """Return the slices of a split: by the named columns, by length, by script; a division into one part is none."""
    found = [
        piece
        for name in rows.column_names
        if name.startswith(COLUMN)
        for piece in _by_column(name.removeprefix(COLUMN), rows[name])
    ]
    found += _by_length(rows, problem)
    texts = _texts(rows, problem)
    return [*found, *(_by_value(SCRIPT, [_script(text) for text in texts]) if texts else [])]


def measured(
    slices: Sequence[Slice],
    scores: np.ndarray,
    references: np.ndarray,
    target: Target,
    *,
    metric: str,
    confidence: float,
    num_samples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return each slice's figures: gaps that are named first, then by their size.

    Args:
        slices: As `divide` gives them.
        scores: The model's, shape (num_units, num_outputs).
        references: Gold answers.
        target: Over the layout of the rows.
        metric: What is measured.
        confidence: Coverage of the intervals.
        num_samples: Resamples, and permutations.
        seed: For both.

    Returns:
        column, value, rows, metric (its value on the slice), interval, rest (the value on all other rows), gap (the
        one less the other, above 0 where the slice is better), p_value and p_adjusted (None: not tested), is_named.
    """
    from ftlib.evaluation.measures import measure

    of = measure(metric, scores, references, target)
    sign = 1 if target.higher_is_better(metric) else -1
    found = [_figures(piece, of, sign, confidence, num_samples, seed) for piece in slices]
    tested = [i for i, entry in enumerate(found) if _is_tested(entry, target.num_rows(references))]
    p_values: list[float | None] = [None] * len(found)
    drawn = _p_values([found[i] for i in tested], of, references, target, num_samples, seed)
    for i, drawn_p in zip(tested, drawn, strict=True):
        p_values[i] = drawn_p
    for entry, p, adjusted in zip(found, p_values, holm(p_values), strict=True):
        entry |= {"p_value": p, "p_adjusted": adjusted, "is_named": adjusted is not None and adjusted < LEVEL}
    return sorted(found, key=lambda e: (not e["is_named"], e["p_value"] is None, -abs(e["gap"] or 0.0)))


def _is_tested(entry: dict[str, Any], num_rows: int) -> bool:
    return entry["gap"] is not None and min(entry["rows"], num_rows - entry["rows"]) >= FEWEST


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for how many there are; None stays None."""
    there = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(there):
        highest = max(highest, min(1.0, p * (len(there) - rank)))
        adjusted[i] = highest
    return adjusted


# -- figures -------------------------------------------------------------------------------------------


def _figures(piece: Slice, of: Measure, sign: int, confidence: float, num_samples: int, seed: int) -> dict[str, Any]:
    import numpy as np

    inside = piece.rows.astype(np.float64)
    value, rest = (float(v) for v in of(np.stack([inside, 1 - inside])))
    return {
        "column": piece.column,
        "value": piece.value,
        "rows": int(piece.rows.sum()),
        "metric": _finite(value),
        "interval": _interval(piece.rows, of, confidence, num_samples, seed),
        "rest": _finite(rest),
        "gap": _finite(sign * (value - rest)),
    }


def _interval(rows: np.ndarray, of: Measure, confidence: float, num_samples: int, seed: int) -> list[float] | None:
    """Return the bootstrap interval of the metric on the slice's own rows, drawn anew from them."""
    import numpy as np

    from ftlib.evaluation.statistics import interval, resamples

    where = np.flatnonzero(rows)
    values = []
    for drawn in resamples(len(where), num_samples, seed=seed):
        for block in _blocks(drawn, len(rows)):
            counts = np.zeros((len(block), len(rows)))
            counts[:, where] = block
            values.append(of(counts))
    return interval(np.concatenate(values), confidence)


def _p_values(
    entries: Sequence[dict[str, Any]],
    of: Measure,
    references: np.ndarray,
    target: Target,
    num_samples: int,
    seed: int,
) -> list[float]:
    """Return how often a slice of as many rows, drawn at random, is as far from the rest.

    One order of the rows is drawn for all slices; each takes as many as it has from its beginning.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    number = target.num_rows(references)
    as_far, defined = np.zeros(len(entries)), np.zeros(len(entries))
    for block in _blocks(np.empty((num_samples, 0)), number) if entries else ():
        orders = random.permuted(np.tile(np.arange(number), (len(block), 1)), axis=1)
        for i, entry in enumerate(entries):
            inside = (orders < entry["rows"]).astype(np.float64)
            gaps = of(inside) - of(1 - inside)
            gaps = gaps[np.isfinite(gaps)]
            as_far[i] += (abs(gaps) >= abs(entry["gap"]) - 1e-12).sum()
            defined[i] += len(gaps)
    return ((1 + as_far) / (1 + defined)).tolist()


def _blocks(samples: np.ndarray, num_rows: int) -> list[np.ndarray]:
    """Return samples in blocks whose counts of all rows fit into memory."""
    from ftlib.evaluation.statistics import BLOCK_CELLS

    size = max(1, BLOCK_CELLS // max(1, num_rows))
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _finite(value: float) -> float | None:
    from math import isfinite

    return value if isfinite(value) else None


# -- dividing ------------------------------------------------------------------------------------------


def _by_column(name: str, column: pa.ChunkedArray) -> list[Slice]:
    import numpy as np
    import pyarrow as pa

    from ftlib.columns import as_text

    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if number and len(column.unique().drop_null()) > MOST_NUMBERS:
        return _quarters(name, column.cast(pa.float64()).to_numpy().astype(np.float64))
    return _by_value(name, as_text(column).to_pylist())


def _by_value(name: str, values: Sequence[str | None]) -> list[Slice]:
    import numpy as np

    told = [MISSING if value in (None, "") else str(value) for value in values]
    ordered = [value for value, _ in sorted(Counter(told).items(), key=lambda item: (-item[1], item[0]))]
    if len(ordered) > MOST_VALUES:
        kept = frozenset(ordered[: MOST_VALUES - 1])
        told = [value if value in kept else OTHERS for value in told]
        ordered = [*ordered[: MOST_VALUES - 1], OTHERS]
    array = np.array(told, dtype=object)
    return [Slice(name, value, array == value) for value in ordered] if len(ordered) > 1 else []


def _by_length(rows: pa.Table, problem: Problem) -> list[Slice]:
    """Divide by the characters of the texts; where there is no text, by the items of the lists."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths, unit = np.zeros(len(rows)), ""
    for name in problem.input_columns:
        kind = rows.schema.field(name).type
        if pa.types.is_string(kind) and unit != "items":
            lengths, unit = lengths + pc.fill_null(pc.utf8_length(rows[name]), 0).to_numpy(), "characters"
        elif pa.types.is_list(kind) and not unit:
            lengths, unit = lengths + pc.fill_null(pc.list_value_length(rows[name]), 0).to_numpy(), "items"
    return _quarters(LENGTH, lengths, unit) if unit else []


def _quarters(name: str, values: np.ndarray, unit: str = "") -> list[Slice]:
    """Divide numbers at their quartiles; equal numbers stay together."""
    import numpy as np

    known = np.isfinite(values)
    if not known.any():
        return []
    ends = np.unique(np.quantile(values[known], [0.25, 0.5, 0.75, 1.0], method="inverted_cdf"))
    number = np.searchsorted(ends, values)
    found = []
    for i in range(len(ends)):
        inside = known & (number == i)
        low, high = values[inside].min(), values[inside].max()
        told = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        found.append(Slice(name, f"{told} {unit}".strip(), inside))
    found += [Slice(name, MISSING, ~known)] if not known.all() else []
    return found if len(found) > 1 else []


def _texts(rows: pa.Table, problem: Problem) -> list[str]:
    """Return each row's texts, one after the other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [n for n in problem.input_columns if pa.types.is_string(rows.schema.field(n).type)]
    lists = [n for n in problem.input_columns if rows.schema.field(n).type == pa.list_(pa.string())]
    columns = [rows[n].to_pylist() for n in names]
    columns += [pc.binary_join(rows[n], " ").to_pylist() for n in lists if not names]
    return [" ".join(text or "" for text in row) for row in zip(*columns, strict=True)] if columns else []


def _script(text: str) -> str | None:
    """Return the script of most of a text's letters, as Unicode names it; None where it has no letter."""
    found = Counter(map(_script_of, text[:SAMPLED_CHARACTERS]))
    found.pop("", None)
    return max(sorted(found), key=lambda name: found[name]) if found else None


@lru_cache(maxsize=8192)
def _script_of(character: str) -> str:
    if not character.isalpha():
        return ""
    word = unicodedata.name(character, "").split(" ")[0]
    return {"CJK": "Han"}.get(word, word.capitalize())
