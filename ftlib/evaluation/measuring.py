"""Measure a served model on labelled rows: every metric of its target, with bootstrap intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from ftlib.serving.answering import Served
    from ftlib.serving.reading import Rows
    from ftlib.targets.base import Target


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
    labels, reasons = problem.target.parse(rows.needed[problem.label_column])
    answers = served.predict(rows.needed.select(list(problem.text_columns)))
    reasons = pc.coalesce(rows.unreadable.combine_chunks(), reasons, _column(answers["reason"]))
    fine = pc.is_null(reasons)
    rejected = dict(Counter(reasons.drop_null().to_pylist()).most_common())
    usable = fine.to_numpy(zero_copy_only=False)
    if not usable.any():
        raise DataError(f"no row can be measured: {_told(rejected)}.")
    scores = _scores(answers[usable], problem.target)
    found = assess(scores, problem.target.encode(labels.filter(fine)), problem.target, seed=seed)
    intervals = {name: list(bounds) for name, bounds in found.intervals.items()}
    return Measured(int(usable.sum()), rejected, found.metrics, intervals)


def _column(reasons: pd.Series) -> pa.Array:
    import pyarrow as pa

    return pa.array(reasons.tolist(), pa.string())


def _told(rejected: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in rejected.items()) or "the file has no rows"


def _scores(answers: pd.DataFrame, target: Target) -> np.ndarray:
    """Return the scores that the answers were decided by, shape (num_rows, num_outputs)."""
    columns = [f"score:{label}" for label in target.labels] or ["prediction"]
    scores: np.ndarray = answers[columns].to_numpy(dtype="float64")
    return scores
