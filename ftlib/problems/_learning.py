"""How a model reads and learns: what problems share that differ in their rows alone.

A problem names a `Learning` (`Problem.learning`), and its hooks of the same names hand on to it. The one here fits a
model that reads a text and gives one vector of logits for it; others are in `_seq2seq_learning`, `_causal_learning`
and `_token_learning`. A learning holds no rows and no weights: only parameters of the problem that it goes by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.problems._texts import encode_texts
from ftlib.targets.losses import PLAIN, LossShape

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems.base import Problem
    from ftlib.training.precision import Precision


class Learning:
    """The contract of the values that problems learn by; each method is the hook of that name in `Problem`."""

    writes: ClassVar[bool] = False
    """Whether answers are written token by token, so that several models can write one together."""

    learns_tokens: ClassVar[bool] = False
    """Whether a teacher's scores are of the student's own tokens, so that both must have the same."""

    validation_metric: ClassVar[str | None] = None
    """What the best weights of a stage are chosen by; the target's main metric where it is None."""

    def check_tokenizer(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer that lacks what is needed (CheckpointError); here any will do."""

    def load_tokenizer(self, problem: Problem, folder: Path) -> Any:
        """Open a checkpoint's tokenizer."""
        from ftlib.models.checkpoints import load_tokenizer

        return load_tokenizer(folder)

    # -- rows --------------------------------------------------------------------------------------

    def encode(self, problem: Problem, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids of the texts, several joined as the tokenizer joins pairs."""
        return encode_texts(rows, problem.text_columns, tokenizer, problem.max_length)

    def encode_labels(
        self, problem: Problem, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase
    ) -> pa.Table:
        """Return encoded rows with `labels`: one a row, or a vector."""
        labels = problem.target.encode(rows[problem.label_column])
        return encoded.append_column("labels", as_column(labels))

    def teach(
        self, problem: Problem, rows: pa.Table, teachers: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None
    ) -> pa.Table:
        """Return encoded rows with teacher_logits: those whose scores are the mean of the teachers'."""
        from ftlib.ensembling import finite_logits

        logits = [finite_logits(table, problem.target.num_outputs) for table in teachers]
        mean = logits[0] if len(logits) == 1 else problem.target.mean_logits(logits)
        return rows.append_column("teacher_logits", vectors(mean.astype("float32")))

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, problem: Problem, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the model's logits."""
        return model(**{k: v for k, v in batch.items() if k not in problem.model_targets}).logits

    def loss(self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the target's loss."""
        return problem.target.loss(logits, batch["labels"], shape)

    def consistency(self, problem: Problem, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return how far two passes are apart, as the target measures it."""
        return problem.target.consistency(one, other, batch["labels"])

    def distillation_loss(
        self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], temperature: float
    ) -> Tensor:
        """Return how far a student is from its teachers' logits, as the target measures it."""
        return problem.target.distillation_loss(logits, batch["teacher_logits"], temperature)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, problem: Problem, ensemble: Ensemble, rows: Sequence[pa.Table], precision: Precision, watch: Watch | None
    ) -> pa.Table:
        """Return what a model says of encoded rows; of several, where answers are written, what they say together.

        Args:
            problem: Whose `forward` gives the logits.
            ensemble: One model; several only where `writes`.
            rows: What each one reads: the same rows, encoded.
            precision: What to compute in.
            watch: Called with every batch.

        Returns:
            One line a row: row_id, and here logits (fixed_size_list<float32>).
        """
        import numpy as np
        import pyarrow as pa

        from ftlib.models.forward import forward

        logits = np.empty((len(rows[0]), problem.target.num_outputs), np.float32)
        for indices, outputs in forward(ensemble.first, rows[0], problem, precision=precision, watch=watch):
            logits[indices] = outputs
        return pa.table({"row_id": rows[0]["row_id"], "logits": vectors(logits)})

    def measure(
        self, problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision
    ) -> dict[str, float]:
        """Return the mean loss, and the target's metrics of what is predicted."""
        from ftlib.models.forward import LossMeter, one_line_each

        meter = LossMeter(problem)
        predictions = problem.predict(checkpoint, rows, precision=precision, watch=meter)
        alone = one_line_each(rows)
        scores, layout = problem.align([predictions], alone)
        found = problem.target.over(layout).metrics(scores[0], problem.references(alone, layout))
        return {"loss": meter.mean, **found}

    def own_metrics(self, problem: Problem, predictions: pa.Table) -> dict[str, float]:
        """Return {}: scores say all."""
        return {}


def as_column(values: np.ndarray) -> pa.Array:
    """Return a number a row, shape (num_rows,), or a vector, shape (num_rows, size), as a column."""
    import pyarrow as pa

    return pa.array(values) if values.ndim == 1 else vectors(values)


def vectors(values: np.ndarray) -> pa.Array:
    """Return rows of numbers, shape (num_rows, size), as a column of vectors."""
    import numpy as np
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
