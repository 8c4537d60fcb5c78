"""A number: mean squared error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.targets import reading as read
from ftlib.targets.base import Target
from ftlib.targets.losses import PLAIN, LossShape
from ftlib.targets.metrics import VALUE, Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.base import Column

CLOSE = 0.5
"""Of the gold values' standard deviation: values closer than this count as the same decision."""


@dataclass(frozen=True)
class Value(Target):
    """A number: mean squared error."""

    kind: ClassVar[str] = "value"
    no_label: ClassVar[float | None] = nan
    main_metric: ClassVar[str] = "spearman"
    proper_loss: ClassVar[str] = "rmse"
    has_labels: ClassVar[bool] = False
    contradicts: ClassVar[bool] = False

    @property
    def num_outputs(self) -> int:
        """Always one."""
        return 1

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read numbers, or text that is one ("3.8"); nothing infinite."""
        return read.numbers(read.flat(column))

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return (): a number has no labels."""
        return ()

    def encode(self, column: Column) -> np.ndarray:
        """Return the numbers, float32, shape (N,)."""
        import numpy as np

        array = read.flat(column)
        read.check_complete(array)
        return np.asarray(array, dtype=np.float32)

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the mean squared error."""
        from torch.nn import functional as F

        return F.mse_loss(logits.float().squeeze(-1), labels.float())

    def consistency(self, one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared difference."""
        return (one.float() - other.float()).square().mean()

    def prior_logits(self, labels: np.ndarray, shape: LossShape = PLAIN) -> np.ndarray | None:
        """Return the mean of the numbers; None where none is known."""
        import numpy as np

        known = labels[~np.isnan(labels)]
        return np.array([known.mean(dtype=np.float64)], np.float32) if len(known) else None

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the mean squared error to the teacher's numbers."""
        from torch.nn import functional as F

        return F.mse_loss(student_logits.float(), teacher_logits.detach().float())

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return the numbers themselves, as float64."""
        return logits.astype("float64")

    def mean_logits(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean."""
        import numpy as np

        return np.mean([one.astype(np.float64) for one in logits], axis=0)

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers themselves."""
        return scores

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers, shape (N,)."""
        return scores[..., 0]

    def decode(self, scores: np.ndarray) -> list[float]:
        """Return the numbers as floats."""
        return self.predicted(scores).astype("float64").tolist()

    def answer_type(self) -> pa.DataType:
        """Return numbers."""
        import pyarrow as pa

        return pa.float64()

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return which numbers are close to the gold ones."""
        return self._close(self.predicted(scores), references, references)

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's squared error."""
        return (scores[:, 0] - references) ** 2

    def same(self, scores: np.ndarray, other_scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return on which rows two models give numbers that are close to each other."""
        return self._close(self.predicted(scores), self.predicted(other_scores), references)

    @staticmethod
    def _close(one: np.ndarray, other: np.ndarray, references: np.ndarray) -> np.ndarray:
        return abs(one - other) <= CLOSE * float(references.std())

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return neighbours of like size."""
        import numpy as np

        rank = np.argsort(np.argsort(references, kind="stable"), kind="stable")
        return rank // num_folds

    def _metrics(self) -> dict[str, Metric]:
        return VALUE

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return {}: a number has no labels."""
        return {}

    def config(self) -> dict[str, Any]:
        """Return the config of a model with one output."""
        return {"num_labels": 1, "id2label": {0: "value"}, "label2id": {"value": 0}, "problem_type": "regression"}
