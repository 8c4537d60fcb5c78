"""One of several choices: each row has its own, and any number of them.

A unit is a choice; its score by a model is its probability among the choices of its row. Fusions treat choices as
candidates, whose support is compared within the row only: whatever they give is shared out to probabilities there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.errors import DataError
from ftlib.targets import reading as read
from ftlib.targets.base import Target
from ftlib.targets.losses import PLAIN, LossShape, cross_entropy, softened_divergence
from ftlib.targets.metrics import Metric, bin_gaps, bins

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.base import Column

TEXT = "text"
"""The column of a layout's units that holds a choice's text."""

SMALLEST = 1e-15
"""Probabilities are kept this far from 0 where a logarithm is taken."""


@dataclass(frozen=True)
class Choice(Target):
    """One of the row's own choices: softmax over them and cross-entropy."""

    kind: ClassVar[str] = "choice"
    main_metric: ClassVar[str] = "accuracy"
    has_labels: ClassVar[bool] = False

    @property
    def num_outputs(self) -> int:
        """One: the choice's probability."""
        return 1

    @property
    def unit_kind(self) -> str:
        """Candidates, compared within their row."""
        return "candidate"

    @property
    def candidate_features(self) -> tuple[str, ...]:
        """The members' mean: every member has a probability for every choice, which leaves little else to tell."""
        return ("mixture",)

    # -- gold answers ------------------------------------------------------------------------------

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read the text of the right choice; which of a row's choices it is, the problem knows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        array = read.flat(column)
        names = read.names(array)
        if pa.types.is_nested(array.type):
            return names, read.reason(pc.is_valid(array), "answer is a list, expected one choice")
        return names, read.reason(pc.is_null(names), "missing answer")

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return nothing: a choice has no name beyond its row."""
        return ()

    def encode(self, column: Column) -> np.ndarray:
        """Return 1 for the right choice of each row and 0 for the others, float64, shape (num_units, 1)."""
        import numpy as np

        layout = self.laid_out
        if layout.units is None:
            raise DataError("choices have no texts here; read the answers by their positions.")
        gold = np.array(read.flat(column).to_pylist(), dtype=object)
        texts = np.array(layout.units[TEXT].to_pylist(), dtype=object)
        right = texts == gold[layout.row_of]
        found = layout.sums(right[:, None])[:, 0]
        if (found != 1).any():
            raise DataError(f"{int((found != 1).sum()):,} rows have an answer that is not one of their choices.")
        return right[:, None].astype(np.float64)

    def at_positions(self, positions: np.ndarray) -> np.ndarray:
        """Return what `encode` does, from the position of the right choice in each row, shape (num_rows,)."""
        import numpy as np

        layout = self.laid_out
        right = np.zeros((layout.num_units, 1))
        right[layout.splits[:-1] + positions] = 1
        return right

    # -- training ----------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the cross-entropy over each row's choices.

        Args:
            logits: Shape (batch_size, most choices of a row), very low where a row has fewer.
            labels: The position of the right choice, shape (batch_size,).
            shape: How rows count.
        """
        return cross_entropy(logits, labels, shape)

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the Kullback-Leibler divergence over each row's choices, times the temperature squared."""
        return softened_divergence(student_logits, teacher_logits, temperature)

    # -- scores and answers ------------------------------------------------------------------------

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return each choice's probability among those of its row, shape (num_units, 1).

        Args:
            logits: One a choice, shape (num_units,).
        """
        import numpy as np

        layout = self.laid_out
        highest = logits[layout.best(logits)] if layout.num_rows else np.zeros(0)
        return self.probabilities(np.exp(logits.astype(np.float64) - highest[layout.row_of])[:, None])[:, None]

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return what scores of any make come to: each choice's share of its row's support, shape (num_units,)."""
        import numpy as np

        layout = self.laid_out
        support = np.maximum(scores.reshape(len(scores), -1).prod(-1).astype(np.float64), 0)
        total = layout.sums(support[:, None])[:, 0]
        even = 1 / np.maximum(layout.counts, 1)
        return np.divide(support, total[layout.row_of], out=even[layout.row_of], where=total[layout.row_of] > 0)

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return where each row's most probable choice is among all units, the first of equals, shape (num_rows,)."""
        return self.laid_out.best(scores.prod(-1))

    def positions_in_rows(self, scores: np.ndarray) -> np.ndarray:
        """Return the position of each row's most probable choice among its own, from 0, shape (num_rows,)."""
        return self.predicted(scores) - self.laid_out.splits[:-1]

    def decode(self, scores: np.ndarray) -> list[Any]:
        """Return the text of the most probable choice a row; its position where texts are not known."""
        layout = self.layout
        if layout is None or not layout.num_rows:
            return []
        if layout.units is None:
            return [str(place) for place in self.positions_in_rows(scores)]
        texts = layout.units[TEXT].to_pylist()
        return [texts[place] for place in self.predicted(scores)]

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability of each row's answer."""
        import numpy as np

        return self.probabilities(scores)[self.predicted(scores)] if self.layout else np.zeros(0)

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return which rows' most probable choice is the right one."""
        return references[self.predicted(scores), 0] > 0

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's log-loss."""
        import numpy as np

        gold = self.probabilities(scores)[references[:, 0] > 0]
        return -np.log(np.maximum(gold, SMALLEST))

    # -- strata ------------------------------------------------------------------------------------

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return where the right choice stands in its row: folds get their share of each position."""
        return self.laid_out.best(references[:, 0]) - self.laid_out.splits[:-1]

    def strata_column(self, column: Column) -> None:
        """Return nothing: answers are texts of their own."""
        return

    # -- measures ----------------------------------------------------------------------------------

    def measure(
        self, metric: str, scores: np.ndarray, references: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a metric as a function of row counts."""
        if self._known(metric) == "calibration_error":
            return self._calibration(scores, references)
        rows = self.row_right if metric == "accuracy" else self.row_losses
        values = rows(scores, references).astype("float64")
        return lambda counts: counts @ values / counts.sum(1)

    def _calibration(self, scores: np.ndarray, references: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Sum, per bin of confidence, hits minus confidence."""
        confidence = self.probabilities(scores)[self.predicted(scores)]
        gaps = bin_gaps(confidence[:, None], self.row_right(scores, references)[:, None])
        return lambda counts: abs(counts @ gaps).sum(1) / counts.sum(1)

    def _metrics(self) -> dict[str, Metric]:
        def accuracy(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
            return float(self.row_right(scores, references).mean())

        def log_loss(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
            return float(self.row_losses(scores, references).mean())

        def calibration_error(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
            hits = self.row_right(scores, references)
            found = bins(self.probabilities(scores)[predicted], hits)
            return sum(abs(confidence - hit) * count for confidence, hit, count in found) / len(hits)

        return {"accuracy": accuracy, "log_loss": log_loss, "calibration_error": calibration_error}

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return nothing: there are no labels."""
        return {}

    # -- the model's config ------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return that the model gives one number for a text: how well this choice fits."""
        return {"num_labels": 1, "id2label": {0: "fit"}, "label2id": {"fit": 0}}

    def mean_logits(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits whose probabilities are the mean of several models', one a choice, shape (num_units,)."""
        import numpy as np

        mean = np.mean([self.scores(one)[:, 0] for one in logits], axis=0)
        return np.log(np.maximum(mean, SMALLEST))
