"""Prediction: run a checkpoint over encoded rows, in the order that is fast, and give logits in theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.errors import DataError
from ftlib.files import read_table
from ftlib.progress import Progress, emit

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import nn

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.training.batches import Rows
    from ftlib.training.precision import Precision

EMIT_SECONDS = 0.25


@dataclass(frozen=True)
class Predicted:
    """What a checkpoint says of rows.

    Attributes:
        table: row_id and logits (fixed_size_list<float32>), in the order of the rows.
        figures: rows_per_second, predict_seconds.
    """

    table: pa.Table
    figures: dict[str, float]


def predict(
    checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", name: str = "predict"
) -> Predicted:
    """Return a checkpoint's logits on encoded rows.

    Args:
        checkpoint: What `checkpoints.load` gave.
        rows: row_id, input_ids and, where the model has them, token_type_ids.
        precision: float32 gives what plain transformers gives; auto may be faster and less exact.
        name: The step's name, for progress.
    """
    import pyarrow as pa

    from ftlib.training.batches import Rows

    started = time.perf_counter()
    logits = run(checkpoint.model, Rows.from_table(rows, checkpoint.tokenizer), precision=precision, name=name)
    seconds = time.perf_counter() - started
    lists = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1])
    table = pa.table({"row_id": rows.column("row_id"), "logits": lists})
    return Predicted(table, {"rows_per_second": len(rows) / max(seconds, 1e-9), "predict_seconds": seconds})


def run(model: nn.Module, rows: Rows, *, precision: Precision = "float32", name: str | None = None) -> np.ndarray:
    """Return a model's logits, float32, shape (num_rows, num_outputs), in the order of the rows.

    Args:
        model: Left in evaluation mode.
        rows: What to read; batches go by length.
        precision: What to compute in.
        name: The step's name, where progress is to be told.
    """
    import numpy as np
    import torch

    from ftlib.training.batches import reading_batches
    from ftlib.training.precision import autocast, resolve

    model.eval()
    device = next(model.parameters()).device
    outputs: np.ndarray | None = None
    told = _Teller(name, len(rows))
    with torch.inference_mode(), autocast(resolve(precision), device):
        for indices in reading_batches(rows.lengths):
            batch = {k: v.to(device) for k, v in rows.batch(indices).items() if k not in rows.targets}
            logits = model(**batch).logits.float().cpu().numpy()
            if outputs is None:
                outputs = np.empty((len(rows), *logits.shape[1:]), np.float32)
            outputs[indices] = logits
            told.add(len(indices))
    return outputs if outputs is not None else np.empty((0, model.config.num_labels), np.float32)  # type: ignore


class _Teller:
    """Tells progress at most a few times a second, and at the end."""

    def __init__(self, name: str | None, total: int) -> None:
        self.name, self.total, self.done, self.last = name, total, 0, 0.0

    def add(self, rows: int) -> None:
        self.done += rows
        now = time.monotonic()
        if self.name and (now - self.last >= EMIT_SECONDS or self.done == self.total):
            self.last = now
            emit(Progress(self.name, self.done, self.total, "rows"))


def mean_teacher(rows: pa.Table, teachers: list[Path], problem: Problem) -> pa.Table:
    """Return encoded rows with a column teacher_logits: those whose scores are the mean of the teachers'.

    Args:
        rows: Encoded training rows.
        teachers: Folders that hold a teacher's predictions.parquet on the same rows.
        problem: What is learned.

    Raises:
        DataError: If a teacher has no prediction for a row.
    """
    import numpy as np
    import pyarrow as pa

    wanted = rows.column("row_id").to_numpy()
    aligned = list(_aligned(wanted, teachers))
    logits = aligned[0] if len(aligned) == 1 else problem.target.mean_logits(aligned)
    values = pa.array(np.ascontiguousarray(logits, dtype=np.float32).reshape(-1))
    return rows.append_column("teacher_logits", pa.FixedSizeListArray.from_arrays(values, logits.shape[1]))


def _aligned(wanted: np.ndarray, teachers: list[Path]) -> Iterator[np.ndarray]:
    import numpy as np

    for folder in teachers:
        table = read_table(folder / "predictions.parquet")
        ids = table.column("row_id").to_numpy()
        order = np.argsort(ids, kind="stable")
        places = np.searchsorted(ids, wanted, sorter=order).clip(max=max(len(ids) - 1, 0))
        found = order[places] if len(ids) else np.zeros(len(wanted), int)
        if not len(ids) or (ids[found] != wanted).any():
            raise DataError("a teacher has no predictions for some training rows; run its predict step again.")
        values = table.column("logits").combine_chunks()
        yield values.flatten().to_numpy(zero_copy_only=False).reshape(len(ids), -1)[found]
