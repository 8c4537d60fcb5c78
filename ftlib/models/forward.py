"""Forward passes: a model reads encoded rows, in the order that is fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from ftlib.progress import Progress, emit

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.training.batches import Rows
    from ftlib.training.precision import Precision

    Watch: TypeAlias = Callable[[Mapping[str, Tensor], Tensor], None]

EMIT_SECONDS = 0.25


def forward(
    checkpoint: Checkpoint,
    rows: pa.Table,
    problem: Problem,
    *,
    precision: Precision = "float32",
    watch: Watch | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of similar length: their positions in `rows`, and what the problem's `forward` gives of them.

    Args:
        checkpoint: Its model is left in evaluation mode.
        rows: Encoded rows.
        problem: What is learned.
        precision: float32 gives what plain transformers gives; auto may be faster and less exact.
        watch: Called with every batch and its logits.

    Returns:
        Positions, shape (batch_size,), and outputs, float32, shape (batch_size, ...); places beyond a row's own
        length hold what the model makes of padding.
    """
    from ftlib.training.batches import Rows

    return forward_rows(
        checkpoint.model,
        Rows.from_table(rows, checkpoint.tokenizer, problem),
        problem,
        precision=precision,
        watch=watch,
    )


def forward_rows(
    model: Any, rows: Rows, problem: Problem, *, precision: Precision = "float32", watch: Watch | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `forward` does, of rows that are arrays already."""

    from ftlib.models import narrowing
    from ftlib.training.batches import reading_batches
    from ftlib.training.precision import reading

    model.eval()
    device = next(model.parameters()).device

    def run(batch: Mapping[str, Tensor]) -> Tensor:
        return problem.forward(model, {name: values.to(device) for name, values in batch.items()}).float()

    narrowed = narrowing.found(model, rows, run) if len(rows) >= narrowing.FEWEST_ROWS else None
    for indices in reading_batches(rows.lengths):
        batch = rows.batch(indices)
        applied = narrowed.applied() if narrowed else nullcontext()
        with reading(precision, device), applied:
            logits = run(batch)
        if watch:
            watch(batch, logits)
        yield indices, logits.cpu().numpy()


def row_vectors(model: Any, rows: Rows, problem: Problem) -> np.ndarray:
    """Return what a model without its head's last layer gives of each row, shape (num_rows, width), float64."""
    import numpy as np

    parts = list(forward_rows(model, rows, problem))
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    return np.concatenate([vectors for _, vectors in parts])[order].astype(np.float64)


def text_vectors(checkpoint: Checkpoint, texts: Sequence[str], problem: Problem) -> np.ndarray:
    """Return `row_vectors` of texts that are no rows of the data."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ftlib.problems._learning import Learning
    from ftlib.training.batches import Rows

    encoded = Learning().encode(problem, pa.table({problem.text_columns[0]: list(texts)}), checkpoint.tokenizer)
    lengths = pc.list_value_length(encoded["input_ids"]).cast(pa.int32())
    rows = Rows.from_table(encoded.append_column("length", lengths), checkpoint.tokenizer, problem)
    return row_vectors(checkpoint.model, rows, problem)


def one_line_each(rows: pa.Table) -> pa.Table:
    """Return the first line of each row: encoded rows may have several, one a window."""
    import numpy as np
    import pyarrow as pa

    ids = rows["row_id"].to_numpy()
    _, first = np.unique(ids, return_index=True)
    return rows if len(first) == len(ids) else rows.take(pa.array(np.sort(first)))


class LossMeter:
    """Watches the mean loss of batches, each counting by its rows.

    Args:
        problem: Whose loss it is.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.total, self.rows = problem, 0.0, 0

    def __call__(self, batch: Mapping[str, Tensor], logits: Tensor) -> None:
        """Add a batch."""
        size = len(batch["labels"])
        self.total += float(self.problem.loss(logits, batch)) * size
        self.rows += size

    @property
    def mean(self) -> float:
        """The mean so far."""
        return self.total / max(1, self.rows)


class Teller:
    """Watches how many rows are done: tells it at most a few times a second, and at the end.

    Args:
        name: The step's name.
        total: Rows in all.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done, self.last = name, total, 0, 0.0

    def __call__(self, batch: Mapping[str, Tensor], logits: Tensor) -> None:
        """Count a batch."""
        self.done += len(logits)
        now = time.monotonic()
        if now - self.last >= EMIT_SECONDS or self.done == self.total:
            self.last = now
            emit(Progress(self.name, self.done, self.total, "rows"))
