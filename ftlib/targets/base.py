"""The Target contract: what is predicted for a row, apart from what the row is.

A problem is an input (a text, a pair of texts...) and a target (one label, a set of labels, a number, a tag for each
word, one of several candidates...). All that depends on the target alone is here, so that problems and fusions share
it: reading labels, losses, scores, decoding, metrics.

Scores have one line a *unit* (`ftlib.targets.layout`). Most targets have one unit a row. Those that have more are
used `over` the layout of the rows at hand, and say by `unit_kind` what a unit's scores are, which is all
that fusions need to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ftlib.errors import ParamsError, unknown
from ftlib.targets import reading as read
from ftlib.targets.losses import PLAIN, LossShape
from ftlib.targets.metrics import LOWER_IS_BETTER, Metric, compute, per_label

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.layout import Layout

    Column: TypeAlias = "pa.ChunkedArray | pa.Array"


@dataclass(frozen=True)
class Target:
    """What is predicted for a row. Subclasses say how it is read, learned, decoded and measured."""

    kind: ClassVar[str] = "target"
    main_metric: ClassVar[str] = ""
    """What models are chosen by, unless the experiment names another."""

    proper_loss: ClassVar[str] = "log_loss"
    """The metric that scores themselves are judged by, lower is better: it breaks ties between decisions.

    Log-loss is a proper scoring rule (Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437): it sees
    every row's probability, where accuracy sees which side of a line it falls."""

    counts_right_rows: ClassVar[frozenset[str]] = frozenset({"accuracy"})
    """Metrics that are the share of rows that are right: two models are compared on them by McNemar's test."""

    has_labels: ClassVar[bool] = True
    """Whether answers are among named labels, learned from the training rows."""

    contradicts: ClassVar[bool] = True
    """Whether two rows with equal inputs and different answers contradict each other."""

    no_label: ClassVar[float | None] = None
    """What stands in encoded rows for a label that is not there; None where all rows must have one."""

    labels: tuple[str, ...] = ()
    """Label names, in the order of the model's outputs; () until they are learned from the data."""

    layout: Layout | None = field(default=None, kw_only=True, repr=False, compare=False)
    """The units of the rows at hand; None where each row is one unit, or no rows are at hand."""

    def __post_init__(self) -> None:
        read.check(self.labels)

    @property
    def num_outputs(self) -> int:
        """Scores of a unit."""
        return len(self.labels)

    # -- rows and units ----------------------------------------------------------------------------

    @property
    def unit_kind(self) -> str:
        """What a unit's scores are, for fusions.

        "single_label": probabilities that sum to 1; "multi_label": a probability each; "value": a number;
        "candidate": how far the candidate is supported, at least 0, to be compared within its row only;
        "likelihood": the probability of one thing out of too many to have them all, which only means combine.
        """
        return self.kind

    @property
    def candidate_features(self) -> tuple[str, ...]:
        """What tells good candidates from bad ones beside support, for stacks: `ftlib.targets.candidate_features`."""
        return ()

    def over(self, layout: Layout | None) -> Self:
        """Return this target for rows of that layout."""
        return replace(self, layout=layout)

    @property
    def laid_out(self) -> Layout:
        """The layout, for what makes no sense without one."""
        if self.layout is None:
            raise ValueError(f"{self.kind} is read and measured row by row; use the target over the layout of its rows")
        return self.layout

    def take(self, rows: np.ndarray) -> Self:
        """Return this target for some of its rows, given by position or by a boolean each."""
        return self.over(self.layout.take(rows)) if self.layout else self

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return where the units of some rows are, given by position or by a boolean each."""
        import numpy as np

        if self.layout:
            return self.layout.positions(rows)
        return np.flatnonzero(rows) if rows.dtype == bool else rows

    def num_rows(self, values: np.ndarray) -> int:
        """Return how many rows there are, from scores or references."""
        return self.layout.num_rows if self.layout else len(values)

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
            One line a unit: int64 ids, shape (N,); float32 multi-hot rows, shape (N, num_outputs); float32 values,
            shape (N,); or of candidates float64, shape (N, ...): first how good each one is, from 0 to 1, then
            whatever the metrics are made of.

        Raises:
            DataError: If a label is missing or not among `labels`.
        """
        raise NotImplementedError

    def no_labels(self, num_rows: int) -> np.ndarray:
        """Return what stands in encoded rows whose labels are not known, in the form of `encode`; see `no_label`."""
        import numpy as np

        return np.full(num_rows, self.no_label, np.int64 if isinstance(self.no_label, int) else np.float32)

    # -- training ----------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the scalar loss of a batch.

        Args:
            logits: Model outputs, shape (batch_size, num_outputs).
            labels: As `encode` gives them.
            shape: How labels count; of `shapes`.
        """
        raise NotImplementedError

    def consistency(self, one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
        """Return how far two passes over a batch, with other dropout, are apart: a scalar for R-Drop.

        Args:
            one: Logits, as in `loss`.
            other: Logits of the other pass.
            labels: As in `loss`.
        """
        from ftlib.targets.losses import two_way_divergence

        return two_way_divergence(one, other)

    def prior_logits(self, labels: np.ndarray, shape: LossShape = PLAIN) -> np.ndarray | None:
        """Return the logits that suit labels best where nothing is known of a row: the bias of a new head.

        Args:
            labels: As `encode` gives them, perhaps with some that are not known.
            shape: How they count; focal loss and smoothing aside.

        Returns:
            float32, shape (num_outputs,), rare labels as if they had been met once more; None where outputs have no
            meaning before a row is read.
        """
        return None

    @property
    def has_prior(self) -> bool:
        """Whether labels say something before a row is read: whether `prior_logits` is there."""
        return type(self).prior_logits is not Target.prior_logits

    @property
    def can_be_weighted(self) -> bool:
        """Whether labels may count differently: whether `balanced_weights` is there."""
        return type(self).balanced_weights is not Target.balanced_weights

    def balanced_weights(self, labels: np.ndarray) -> tuple[float, ...]:
        """Return a weight for each label, the higher the rarer it is in `labels` (as `encode` gives them, flat)."""
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

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Return logits that have these scores: the other way of `scores` (a fusion as a teacher)."""
        raise NotImplementedError

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the answers that scores stand for, in the form of `encode`."""
        raise NotImplementedError

    def decode(self, scores: np.ndarray) -> list[Any]:
        """Return the answers that scores stand for, a row each: a name, a list of names, or a float."""
        raise NotImplementedError

    def gold(self, column: Column) -> Column:
        """Return canonical labels in the form of `decode`'s answers, to be shown beside them."""
        return column.cast(self.answer_type())

    def answer_type(self) -> pa.DataType:
        """Return what column `decode`'s answers make."""
        import pyarrow as pa

        return pa.string()

    def confidence(self, scores: np.ndarray) -> np.ndarray | None:
        """Return how sure each row's answer is, a probability, shape (num_rows,); None where there is no such."""
        return None

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return which rows are wholly right, bool, shape (num_rows,)."""
        same = self.predicted(scores) == references
        return same.all(1) if same.ndim == 2 else same

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's share in `proper_loss`, shape (num_rows,)."""
        raise NotImplementedError

    def same(self, scores: np.ndarray, other_scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return on which rows two models decide alike, bool, shape (num_rows,)."""
        same = self.predicted(scores) == self.predicted(other_scores)
        return same.all(1) if same.ndim == 2 else same

    # -- strata ------------------------------------------------------------------------------------

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return each row's stratum for cross-fitting, integers, shape (num_rows,)."""
        return references

    def strata_column(self, column: Column) -> Column | None:
        """Return the canonical labels that splits keep the shares of: names, lists of names or numbers; or None."""
        return column

    # -- measures ----------------------------------------------------------------------------------

    def measure(
        self, metric: str, scores: np.ndarray, references: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a metric as a function of row counts, (num_samples, num_rows) -> (num_samples,).

        None where `ftlib.evaluation.measures` knows one, or has to compute it resample by resample.
        """
        return None

    def _of_all_rows(self, metric: str) -> Metric:
        """Return a metric as `_metrics` holds it, of a target whose `measure` knows it: every row counts once."""

        def value(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
            import numpy as np

            measured = self.measure(metric, scores, references)
            return float(measured(np.ones((1, self.num_rows(references))))[0])  # type: ignore[misc]

        return value

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
