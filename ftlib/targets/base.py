"""Targets: what is predicted for a row, apart from what the row is.

A problem is an input (a text, a pair of texts...) and a target (one label, a set of labels, a number). All
that depends on the target alone is here, so that problems and fusions share it: reading labels, losses,
scores, decoding, metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ftlib.errors import ParamsError, unknown
from ftlib.targets import reading as read
from ftlib.targets.metrics import (
    LOWER_IS_BETTER,
    MULTI_LABEL,
    SINGLE_LABEL,
    TWO_LABELS,
    VALUE,
    Metric,
    compute,
    per_label,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    Column: TypeAlias = "pa.ChunkedArray | pa.Array"


@dataclass(frozen=True)
class Target:
    """What is predicted for a row. Subclasses say how it is read, learned, decoded and measured."""

    kind: ClassVar[str] = "target"
    main_metric: ClassVar[str] = ""
    """What models are chosen by, unless the experiment names another."""

    labels: tuple[str, ...] = ()
    """Label names, in the order of the model's outputs; () until they are learned from the data."""

    def __post_init__(self) -> None:
        read.check(self.labels)

    @property
    def num_outputs(self) -> int:
        """Numbers that the model gives a row."""
        return len(self.labels)

    # -- labels in ---------------------------------------------------------------------------------

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read a label column as a source has it: names, ids (positions in `labels`), numbers, booleans, lists.

        Returns:
            The canonical column (names, lists of names, or float64; null where a row has no usable label), and
            the reasons for rejecting rows (string; null where the label is fine). Both as long as the column.
        """
        raise NotImplementedError

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return the names in use in a canonical column, sorted: as numbers where all are integers."""
        raise NotImplementedError

    def encode(self, column: Column) -> np.ndarray:
        """Return a canonical column as models and metrics take it.

        Returns:
            int64 ids, shape (N,); float32 multi-hot rows, shape (N, num_outputs); or float32 values, shape (N,).

        Raises:
            DataError: If a label is missing or not among `labels`.
        """
        raise NotImplementedError

    # -- training ----------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of a batch.

        Args:
            logits: Model outputs, shape (batch_size, num_outputs).
            labels: As `encode` gives them.
        """
        raise NotImplementedError

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return how far a student is from its teacher, both softened by `temperature`.

        Hinton et al. (2015), "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531,
        section 2: multiplied by the temperature squared, so that gradients keep their size beside `loss`.

        Args:
            student_logits: Shape (batch_size, num_outputs).
            teacher_logits: The same shape; no gradient is taken through them.
            temperature: Softness, > 0; numbers have none and ignore it.
        """
        raise NotImplementedError

    # -- scores and answers ------------------------------------------------------------------------

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities (or the numbers themselves) as float64, shape (..., num_outputs) like `logits`."""
        raise NotImplementedError

    def mean_logits(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits whose scores are the mean of the scores of several models (an ensemble as a teacher)."""
        raise NotImplementedError

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the answers that scores stand for, in the form of `encode`."""
        raise NotImplementedError

    def decode(self, scores: np.ndarray) -> list[Any]:
        """Return the answers that scores stand for, a row each: a name, a list of names, or a float."""
        raise NotImplementedError

    # -- measures ----------------------------------------------------------------------------------

    def _metrics(self) -> dict[str, Metric]:
        raise NotImplementedError

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Every metric of this target, the main one first."""
        return tuple(sorted(self._metrics(), key=lambda name: name != self.main_metric))

    def metrics(self, scores: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Return every metric that is defined for these rows; never NaN.

        Args:
            scores: As `scores` gives them, shape (N, num_outputs).
            references: Gold answers as `encode` gives them.
        """
        return compute(self._metrics(), scores, self.predicted(scores), references)

    def metric(self, name: str, scores: np.ndarray, references: np.ndarray) -> float | None:
        """Return one metric alone, None where it is undefined: for resampling, where `metrics` would be slow."""
        chosen = {self._known(name): self._metrics()[name]}
        return compute(chosen, scores, self.predicted(scores), references).get(name)

    def higher_is_better(self, metric: str) -> bool:
        """Return whether a larger value of a metric is a better one."""
        return self._known(metric) not in LOWER_IS_BETTER

    def _known(self, metric: str) -> str:
        if metric not in self._metrics():
            raise ParamsError(unknown("metric", metric, self.metric_names))
        return metric

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return precision, recall, f1 and support (rows that have it) of each label; {} for numbers."""
        measured = per_label(self.predicted(scores), references, len(self.labels))
        return dict(zip(self.labels, measured, strict=True))

    # -- the model's config ------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return what the transformers config holds: num_labels, id2label, label2id, problem_type."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": f"{self.kind}_classification",
        }


@dataclass(frozen=True)
class SingleLabel(Target):
    """Exactly one of the labels: softmax and cross-entropy."""

    kind: ClassVar[str] = "single_label"
    main_metric: ClassVar[str] = "accuracy"

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

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy."""
        from torch.nn import functional as F

        return F.cross_entropy(logits.float(), labels)

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the Kullback-Leibler divergence of softened probabilities, times the temperature squared."""
        from torch.nn import functional as F

        student = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
        return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2

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

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the ids of the most probable labels, the first one where several are."""
        return scores.argmax(axis=-1)

    def decode(self, scores: np.ndarray) -> list[str]:
        """Return the most probable label's name a row."""
        return [self.labels[i] for i in self.predicted(scores)]

    def _metrics(self) -> dict[str, Metric]:
        return {**SINGLE_LABEL, **(TWO_LABELS if len(self.labels) == 2 else {})}


@dataclass(frozen=True)
class MultiLabel(Target):
    """Any number of the labels, each decided on its own: sigmoid and binary cross-entropy."""

    kind: ClassVar[str] = "multi_label"
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

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the binary cross-entropy, mean over rows and labels."""
        from torch.nn import functional as F

        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())

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

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return multi-hot rows, float32: 1 where a probability reaches the threshold."""
        return (scores >= self.threshold).astype("float32")

    def decode(self, scores: np.ndarray) -> list[list[str]]:
        """Return the names of the labels that reach the threshold, in the order of `labels`."""
        return [[self.labels[i] for i in row.nonzero()[0]] for row in self.predicted(scores)]

    def _metrics(self) -> dict[str, Metric]:
        return MULTI_LABEL


@dataclass(frozen=True)
class Value(Target):
    """A number: mean squared error."""

    kind: ClassVar[str] = "value"
    main_metric: ClassVar[str] = "spearman"

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

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error."""
        from torch.nn import functional as F

        return F.mse_loss(logits.float().squeeze(-1), labels.float())

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

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers, shape (N,)."""
        return scores[..., 0]

    def decode(self, scores: np.ndarray) -> list[float]:
        """Return the numbers as floats."""
        return self.predicted(scores).astype("float64").tolist()

    def _metrics(self) -> dict[str, Metric]:
        return VALUE

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return {}: a number has no labels."""
        return {}

    def config(self) -> dict[str, Any]:
        """Return the config of a model with one output."""
        return {"num_labels": 1, "id2label": {0: "value"}, "label2id": {"value": 0}, "problem_type": "regression"}
