"""Prediction: run a checkpoint over encoded rows, once for all that follows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.errors import DataError
from ftlib.files import read_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.problems.base import Problem
    from ftlib.training.precision import Precision


@dataclass(frozen=True)
class Predicted:
    """What a checkpoint says of rows.

    Attributes:
        table: What the problem's `predict` gives, one line a row.
        figures: rows_per_second, predict_seconds.
    """

    table: pa.Table
    figures: dict[str, float]


def predict(
    checkpoint: Checkpoint,
    rows: pa.Table,
    problem: Problem,
    *,
    precision: Precision = "float32",
    name: str = "predict",
) -> Predicted:
    """Return a checkpoint's predictions on encoded rows.

    Args:
        checkpoint: What `checkpoints.load` gave.
        rows: As `ftlib.data.encode` gives them; labels are not read.
        problem: What is learned, its labels filled in.
        precision: float32 gives what plain transformers gives; auto may be faster and less exact.
        name: The step's name, for progress.
    """
    from ftlib.models.forward import Teller

    started = time.perf_counter()
    table = problem.predict(checkpoint, rows, precision=precision, watch=Teller(name, len(rows)))
    return _timed(table, started)


def predict_jointly(
    ensemble: Ensemble,
    rows: Sequence[pa.Table],
    problem: Problem,
    *,
    precision: Precision = "float32",
    name: str = "predict",
) -> Predicted:
    """Return the one prediction of several checkpoints that answer together.

    Args:
        ensemble: The checkpoints.
        rows: What each one reads: the same rows, encoded.
        problem: As `predict` takes it, like all that follows.
        precision: Likewise.
        name: Likewise.
    """
    from ftlib.models.forward import Teller

    started = time.perf_counter()
    table = problem.predict_jointly(ensemble, rows, precision=precision, watch=Teller(name, len(rows[0])))
    return _timed(table, started)


def _timed(table: pa.Table, started: float) -> Predicted:
    seconds = time.perf_counter() - started
    return Predicted(table, {"rows_per_second": len(table) / max(seconds, 1e-9), "predict_seconds": seconds})


def with_teachers(
    rows: pa.Table, teachers: list[Path], problem: Problem, tokenizer: PreTrainedTokenizerBase | None = None
) -> pa.Table:
    """Return encoded training rows with what a student learns from its teachers: see `Problem.teach`.

    Args:
        rows: Encoded training rows.
        teachers: Folders that hold a teacher's predictions.parquet on the same rows.
        problem: What is learned.
        tokenizer: The student's.

    Raises:
        DataError: If a teacher has no prediction for a row.
    """
    wanted = rows.column("row_id").to_numpy()
    tables = [_at(wanted, read_table(folder / "predictions.parquet")) for folder in teachers]
    return problem.teach(rows, tables, tokenizer)


def _at(wanted: np.ndarray, table: pa.Table) -> pa.Table:
    """Return the lines of a table with the wanted row ids, in their order; windows of a row ask for it repeatedly."""
    import numpy as np
    import pyarrow as pa

    ids = table.column("row_id").to_numpy()
    order = np.argsort(ids, kind="stable")
    places = np.searchsorted(ids, wanted, sorter=order).clip(max=max(len(ids) - 1, 0))
    found = order[places] if len(ids) else np.zeros(len(wanted), int)
    if not len(ids) or (ids[found] != wanted).any():
        raise DataError("a teacher has no predictions for some training rows; run its predict step again.")
    return table.take(pa.array(found))
