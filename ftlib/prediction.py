"""Prediction: run a checkpoint over encoded rows, once for all that follows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.errors import DataError
from ftlib.files import read_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.problems.base import Problem
    from ftlib.strategies.base import Lesson
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


def describe(
    checkpoint: Checkpoint,
    rows: pa.Table,
    problem: Problem,
    lesson: Lesson,
    folder: Path,
    *,
    precision: Precision = "auto",
    name: str = "describe",
) -> Predicted:
    """Return a teacher's predictions on encoded rows; what its layers make of them is written down in the same pass.

    Args:
        checkpoint: The teacher.
        rows: As `predict` takes them.
        problem: Likewise.
        lesson: What of the layers its student reads.
        folder: Where the files go: see `ftlib.training.layer_states`.
        precision: Likewise.
        name: Likewise.

    Raises:
        UnsupportedError: If the teacher's layers cannot be read.
    """
    from ftlib.models.forward import Teller
    from ftlib.training.layer_states import Writer

    started = time.perf_counter()
    tell = Teller(name, len(rows))
    with Writer.of(checkpoint, rows, problem, folder, lesson) as write:

        def watch(batch: Mapping[str, Tensor], logits: Tensor) -> None:
            write(batch, logits)
            tell(batch, logits)

        table = problem.predict(checkpoint, rows, precision=precision, watch=watch)
    predicted = _timed(table, started)
    return Predicted(table, {**predicted.figures, **write.figures()})


def _timed(table: pa.Table, started: float) -> Predicted:
    seconds = time.perf_counter() - started
    return Predicted(table, {"rows_per_second": len(table) / max(seconds, 1e-9), "predict_seconds": seconds})


TEACHING = {"train": "teacher_", "unlabelled": "unlabelled_"}
"""Split -> how the inputs of a training step are called that hold teachers' predictions on it, before a number."""


def training_rows(
    encoded: Path,
    splits: Sequence[str],
    inputs: Mapping[str, Path],
    problem: Problem,
    tokenizer: PreTrainedTokenizerBase,
) -> pa.Table:
    """Return the rows that a stage trains on, with what it learns from its teachers where it has any.

    Args:
        encoded: The folder of encoded splits.
        splits: Which ones.
        inputs: Of the training step; those of `TEACHING` are teachers' predictions.
        problem: What is learned.
        tokenizer: The student's.
    """
    import pyarrow as pa

    from ftlib.data.encode import read_encoded

    parts = []
    for split in splits:
        rows = read_encoded(encoded / f"{split}.parquet")
        teachers = [folder for name, folder in inputs.items() if name.startswith(TEACHING[split])]
        parts.append(with_teachers(rows, teachers, problem, tokenizer) if teachers else rows)
    return pa.concat_tables(parts)


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
