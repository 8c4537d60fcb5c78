"""Measure a served model on labelled rows: every metric of its target, with bootstrap intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.serving.answering import Served
    from ftlib.serving.reading import Rows

MOST_REASONS = 8
"""Reasons that are told one by one."""


@dataclass(frozen=True)
class Measured:
    """What measuring gave.

    Attributes:
        num_rows: Rows that were measured.
        rejected: Reason -> rows that were not: no usable label, or nothing to answer.
        metrics: Name -> value, the main metric first.
        intervals: Name -> 95 % interval; a metric that the resamples leave undefined has none.
    """

    num_rows: int
    rejected: dict[str, int]
    metrics: dict[str, float]
    intervals: dict[str, list[float]]


def measure_model(served: Served, rows: Rows, *, seed: int = 0) -> Measured:
    """Return a model's metrics on labelled rows.

    Args:
        served: The model.
        rows: With the problem's text columns and its label column, in any form that training reads.
        seed: For the resamples.

    Raises:
        DataError: If no row can be measured; the message counts the reasons.
    """
    import pyarrow.compute as pc

    from ftlib.evaluation.assessment import assess

    problem = served.problem
    scored = served.score(rows.needed.select(list(problem.input_columns)))
    labelled = scored.rows
    if problem.label_column not in problem.input_columns:
        labelled = labelled.append_column(problem.label_column, rows.needed[problem.label_column])
    labels, reasons = problem.read_labels(labelled)
    labelled = labelled.set_column(labelled.column_names.index(problem.label_column), problem.label_column, labels)
    reasons = pc.coalesce(rows.unreadable.combine_chunks(), reasons, scored.reasons)
    fine = pc.is_null(reasons).to_numpy(zero_copy_only=False)
    rejected = _counts(reasons)
    if not fine.any():
        raise DataError(f"no row can be measured: {_told(rejected)}.")
    found_in_scored = fine[scored.is_answered]
    answered = problem.target.over(scored.layout)
    units, layout = answered.positions(found_in_scored), answered.take(found_in_scored).layout
    references = problem.references(labelled.filter(fine), layout)
    found = assess(scored.scores[units], references, problem.target.over(layout), seed=seed)
    intervals = {name: list(bounds) for name, bounds in found.intervals.items()}
    return Measured(int(fine.sum()), rejected, found.metrics, intervals)


def _counts(reasons: pa.Array) -> dict[str, int]:
    """Return how many rows each reason has, the most frequent first; each kind of reason, where there are many."""
    from ftlib.data._rejections import counts_by_kind

    found = dict(Counter(reasons.drop_null().to_pylist()).most_common())
    return found if len(found) <= MOST_REASONS else counts_by_kind(reasons)


def _told(rejected: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in rejected.items()) or "the file has no rows"
