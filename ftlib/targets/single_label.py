"""One label a row: softmax and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ftlib.targets import reading as read
from ftlib.targets.base import Target
from ftlib.targets.losses import IGNORED, PLAIN, SMALLEST, LossShape, cross_entropy, softened_divergence
from ftlib.targets.metrics import SINGLE_LABEL, TWO_LABELS, Metric, clipped

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.base import Column


@dataclass(frozen=True)
class SingleLabel(Target):
    """Exactly one of the labels: softmax and cross-entropy."""

    kind: ClassVar[str] = "single_label"
    no_label: ClassVar[float | None] = IGNORED
    main_metric: ClassVar[str] = "accuracy"
    counts_right_rows: ClassVar[frozenset[str]] = frozenset({"accuracy", "f1_micro"})

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read one label a row: a name, an id, a number or a boolean."""
        import pyarrow as pa
        import pyarrow.compute as pc

        array = read.flat(column)
        names = read.names(array)
        missing = read.reason(pc.is_null(names), read.MISSING)
        if pa.types.is_nested(array.type):
            nested = read.IS_A_LIST if read.is_list(array) else read.IS_NESTED
            return names, read.reason(pc.is_valid(array), nested, missing)
        if not self.labels:
            return names, missing
        ids = read.positions(names, self.labels)
        return pa.array(self.labels).take(ids), pc.coalesce(
            missing, pc.if_else(pc.is_null(ids), read.unknown_reason(names), pa.scalar(None, pa.string()))
        )

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return the names in use, sorted."""
        return read.in_order(read.as_list(read.flat(column).unique()))

    def encode(self, column: Column) -> np.ndarray:
        """Return label ids, int64, shape (N,)."""
        return read.ids(read.flat(column), self.labels)

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the cross-entropy."""
        return cross_entropy(logits, labels, shape)

    def prior_logits(self, labels: np.ndarray, shape: LossShape = PLAIN) -> np.ndarray:
        """Return the logarithms of the labels' shares, around 0."""
        import numpy as np

        counts = self._counts(labels).astype(np.float64)
        if shape.class_weights is not None:
            weighted = counts * shape.class_weights
            counts = weighted * counts.sum() / max(weighted.sum(), SMALLEST)
        logits = np.log(counts + 1)
        return (logits - logits.mean()).astype(np.float32)

    def balanced_weights(self, labels: np.ndarray) -> tuple[float, ...]:
        """Return rows / (labels x rows of the label), as scikit-learn's "balanced"; 0 for a label without rows."""
        import numpy as np

        counts = self._counts(labels)
        return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1)) * (counts > 0)).tolist())

    def _counts(self, labels: np.ndarray) -> np.ndarray:
        """Return how many rows have each label, int64, shape (num_labels,); those whose label is not known aside."""
        import numpy as np

        return np.bincount(labels[labels >= 0], minlength=len(self.labels))

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the Kullback-Leibler divergence of softened probabilities, times the temperature squared."""
        return softened_divergence(student_logits, teacher_logits, temperature)

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities by softmax over the labels."""
        from scipy.special import softmax

        return softmax(logits.astype("float64"), axis=-1)

    def mean_logits(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logarithm of the mean probabilities."""
        import numpy as np
        from scipy.special import log_softmax, logsumexp

        stacked = np.stack([log_softmax(one.astype(np.float64), axis=-1) for one in logits])
        return logsumexp(stacked, axis=0) - np.log(len(stacked))

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Return the logarithm of the probabilities."""
        import numpy as np

        return np.log(np.maximum(scores, SMALLEST))

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the ids of the most probable labels, the first one where several are."""
        return scores.argmax(axis=-1)

    def decode(self, scores: np.ndarray) -> list[str]:
        """Return the most probable label's name a row."""
        return [self.labels[i] for i in self.predicted(scores)]

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """Return the answer's probability."""
        return scores.max(1)

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's log-loss."""
        import numpy as np

        return -np.log(np.take_along_axis(clipped(scores), references[:, None], axis=1)[:, 0])

    def _metrics(self) -> dict[str, Metric]:
        return {**SINGLE_LABEL, **(TWO_LABELS if len(self.labels) == 2 else {})}
