"""Any number of labels a row, each decided on its own: sigmoid and binary cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, ClassVar

from ftlib.errors import ParamsError
from ftlib.targets import reading as read
from ftlib.targets.base import Target
from ftlib.targets.losses import PLAIN, SMALLEST, LossShape, binary_cross_entropy, binary_two_way_divergence
from ftlib.targets.metrics import MULTI_LABEL, Metric, clipped

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.base import Column


@dataclass(frozen=True)
class MultiLabel(Target):
    """Any number of the labels, each decided on its own: sigmoid and binary cross-entropy."""

    kind: ClassVar[str] = "multi_label"
    no_label: ClassVar[float | None] = nan
    main_metric: ClassVar[str] = "f1_micro"

    threshold: float = 0.5
    """A label is given where its probability is at least this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ParamsError(f"threshold: {self.threshold} is not a probability between 0 and 1, both excluded.")

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read lists of names or ids, or text in which comma, semicolon or bar part them; [] is a row without any."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        names, rows, missing = read.lists(read.flat(column))
        known = self.labels or self.learn(names)
        ids = read.positions(names, known)
        strange = np.asarray(pc.is_null(ids))
        first_row, first = np.unique(rows[strange], return_index=True)  # a row's first strange label names the reason
        complaints = np.full(len(missing), None, dtype=object)
        complaints[first_row] = read.unknown_reason(names.filter(pa.array(strange)).take(pa.array(first))).to_pylist()
        reasons = read.reason(missing, read.MISSING, pa.array(complaints, pa.string()))
        kept = ~strange & np.asarray(pc.is_null(reasons))[rows]
        ids = np.asarray(pc.fill_null(ids, 0))[kept]
        return read.gather(known, rows[kept], ids, pc.is_valid(reasons)), reasons

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return the names in use, sorted."""
        array = read.flat(column)
        return read.in_order(read.as_list((array.flatten() if read.is_list(array) else array).unique()))

    def encode(self, column: Column) -> np.ndarray:
        """Return multi-hot rows, float32, shape (N, num_outputs)."""
        import numpy as np
        import pyarrow.compute as pc

        array = read.flat(column)
        read.check_complete(array)
        rows = np.repeat(np.arange(len(array)), np.asarray(pc.list_value_length(array)))
        hot = np.zeros((len(array), len(self.labels)), np.float32)
        hot[rows, read.ids(array.flatten(), self.labels)] = 1
        return hot

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the binary cross-entropy, mean over rows and labels."""
        return binary_cross_entropy(logits, labels, shape)

    def consistency(self, one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
        """Return both divergences between each label's probabilities, mean over rows and labels."""
        return binary_two_way_divergence(one, other)

    def prior_logits(self, labels: np.ndarray, shape: LossShape = PLAIN) -> np.ndarray:
        """Return the logarithms of each label's odds."""
        import numpy as np

        counts, total = self._counts(labels)
        weights = 1.0 if shape.class_weights is None else np.asarray(shape.class_weights)
        return np.log((weights * counts + 1) / (total - counts + 1)).astype(np.float32)

    def balanced_weights(self, labels: np.ndarray) -> tuple[float, ...]:
        """Return rows without a label / rows with it; 1 for a label without rows."""
        import numpy as np

        counts, total = self._counts(labels)
        return tuple(np.where(counts > 0, (total - counts) / np.maximum(counts, 1), 1.0).tolist())

    def _counts(self, labels: np.ndarray) -> tuple[np.ndarray, int]:
        """Return how many rows have each label, float64, and how many rows there are whose labels are known."""
        import numpy as np

        known = labels.reshape(-1, len(self.labels))
        known = known[~np.isnan(known).any(1)]
        return known.sum(0, dtype=np.float64), len(known)

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the binary cross-entropy with softened sigmoids, label by label, times the temperature squared."""
        from torch.nn import functional as F

        soft = (teacher_logits.detach().float() / temperature).sigmoid()
        return F.binary_cross_entropy_with_logits(student_logits.float() / temperature, soft) * temperature**2

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return each label's probability by sigmoid."""
        from scipy.special import expit

        return expit(logits.astype("float64"))

    def mean_logits(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the log-odds of the mean probabilities."""
        import numpy as np
        from scipy.special import log_expit, logsumexp

        stacked = np.stack([one.astype(np.float64) for one in logits])
        return logsumexp(log_expit(stacked), axis=0) - logsumexp(log_expit(-stacked), axis=0)

    def no_labels(self, num_rows: int) -> np.ndarray:
        """Return rows that say nothing of any label."""
        import numpy as np

        return np.full((num_rows, len(self.labels)), self.no_label, np.float32)

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-odds of the probabilities."""
        import numpy as np
        from scipy.special import logit

        return logit(np.clip(scores, SMALLEST, 1 - SMALLEST))

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return multi-hot rows, float32: 1 where a probability reaches the threshold."""
        return (scores >= self.threshold).astype("float32")

    def decode(self, scores: np.ndarray) -> list[list[str]]:
        """Return the names of the labels that reach the threshold, in the order of `labels`."""
        return [[self.labels[i] for i in row.nonzero()[0]] for row in self.predicted(scores)]

    def answer_type(self) -> pa.DataType:
        """Return lists of names."""
        import pyarrow as pa

        return pa.list_(pa.string())

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability of each row's least sure decision."""
        import numpy as np

        return np.where(self.predicted(scores) > 0, scores, 1 - scores).min(1)

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's log-loss, the mean over labels."""
        import numpy as np

        near = clipped(scores)
        return -np.where(references > 0, np.log(near), np.log1p(-near)).mean(1)

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return the rarest label that each row holds, -1 where it holds none."""
        import numpy as np

        frequency = references.sum(0)
        rarity = np.where(references > 0, frequency, np.inf)
        return np.where(references.any(1), rarity.argmin(1), -1)

    def _metrics(self) -> dict[str, Metric]:
        return MULTI_LABEL
