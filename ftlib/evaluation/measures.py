"""Metrics as functions of how often each row counts, so that a thousand resamples cost a few matrix products.

`ftlib.metrics` says what the metrics are; here each one is written so that it takes many resamples at once: the
counts of rows, shape (num_samples, num_rows), times what each row adds to the metric's sums. Every row counted
once gives `ftlib.metrics`' value (tests hold them together); a value that is undefined is NaN. Metrics not listed here
(a new target's, say) are computed resample by resample, which is right and slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target

Measure = Callable[["np.ndarray"], "np.ndarray"]
"""Row counts, float64, shape (num_samples, num_rows) -> values, shape (num_samples,)."""


@dataclass(frozen=True)
class _Rows:
    scores: np.ndarray
    predicted: np.ndarray
    references: np.ndarray
    target: Target


def measure(metric: str, scores: np.ndarray, references: np.ndarray, target: Target) -> Measure:
    """Return a metric as a function of row counts.

    Args:
        metric: One of the target's metrics.
        scores: Shape (num_rows, num_outputs).
        references: Gold answers as `Target.encode` gives them.
        target: What is predicted.

    Raises:
        ParamsError: If the target has no such metric; the message holds the near names.
    """
    check_metric(metric, target)
    own = target.measure(metric, scores, references)
    if own is not None:
        return own
    rows = _Rows(scores, target.predicted(scores), references, target)
    makers = _MAKERS.get(target.kind, {})
    return makers[metric](rows) if metric in makers else partial(_row_by_row, metric, rows)


def value_of(metric: str, scores: np.ndarray, references: np.ndarray, target: Target) -> float:
    """Return one metric of all rows, NaN where it is undefined: far quicker than `Target.metrics`."""
    import numpy as np

    return float(measure(metric, scores, references, target)(np.ones((1, target.num_rows(references))))[0])


def check_metric(metric: str, target: Target) -> None:
    """Refuse a metric that a target does not have; while its labels are not known, two labels' metrics pass.

    Raises:
        ParamsError: With the near names.
    """
    higher_is_better(metric, target)


def higher_is_better(metric: str, target: Target) -> bool:
    """Return whether a larger value of a metric is a better one, also while the target's labels are not known.

    Raises:
        ParamsError: If the target has no such metric; with the near names.
    """
    unknown_labels = target.kind == "single_label" and not target.labels
    return (replace(target, labels=("0", "1")) if unknown_labels else target).higher_is_better(metric)


def _row_by_row(metric: str, rows: _Rows, counts: np.ndarray) -> np.ndarray:
    import numpy as np

    values = np.full(len(counts), np.nan)
    for i, row in enumerate(counts):
        drawn = np.repeat(np.arange(len(row)), row.astype(np.int64))
        units = rows.target.positions(drawn)
        value = rows.target.take(drawn).metric(metric, rows.scores[units], rows.references[units])
        values[i] = np.nan if value is None else value
    return values


# -- means over rows -----------------------------------------------------------------------------------


def _mean(values: np.ndarray) -> Measure:
    import numpy as np

    values = np.asarray(values, dtype=np.float64)
    return lambda counts: counts @ values / counts.sum(1)


def _accuracy(rows: _Rows) -> Measure:
    return _mean(rows.target.row_right(rows.scores, rows.references))


def _log_loss(rows: _Rows) -> Measure:
    return _mean(rows.target.row_losses(rows.scores, rows.references))


def _hamming(rows: _Rows) -> Measure:
    return _mean((rows.predicted != rows.references).mean(1))


def _mae(rows: _Rows) -> Measure:
    return _mean(abs(rows.predicted - rows.references))


def _rmse(rows: _Rows) -> Measure:
    squared = _mean(rows.target.row_losses(rows.scores, rows.references))
    return lambda counts: squared(counts) ** 0.5


# -- from counts of hits, answers and gold labels ------------------------------------------------------


def _from_counts(
    function: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    rows: _Rows,
    labels: tuple[int, ...] | None = None,
) -> Measure:
    """Return a measure from each label's hits, answers and gold labels, each of shape (num_samples, num_labels)."""
    import numpy as np

    given, gold = _hot(rows.predicted, rows), _hot(rows.references, rows)
    if labels is not None:
        given, gold = given[:, labels], gold[:, labels]
    parts = np.concatenate([given * gold, given, gold], axis=1)

    def measured(counts: np.ndarray) -> np.ndarray:
        hits, answers, golds = np.split(counts @ parts, 3, axis=1)
        return function(hits, answers, golds)

    return measured


def _hot(answers: np.ndarray, rows: _Rows) -> np.ndarray:
    import numpy as np

    return np.asarray(answers, dtype=np.float64) if answers.ndim == 2 else np.eye(rows.scores.shape[1])[answers]


def _over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _precision(hits: np.ndarray, answers: np.ndarray, golds: np.ndarray) -> np.ndarray:
    return _over(hits, answers)


def _recall(hits: np.ndarray, answers: np.ndarray, golds: np.ndarray) -> np.ndarray:
    return _over(hits, golds)


def _f1(hits: np.ndarray, answers: np.ndarray, golds: np.ndarray) -> np.ndarray:
    return _over(2 * hits, answers + golds)


def _averaged(score: Callable[..., np.ndarray], average: str) -> Callable[[_Rows], Measure]:
    """Return the maker of a measure that averages precision, recall or F1 over labels.

    As in scikit-learn, macro counts a label that neither the answers nor the gold hold among several labels a row, and
    leaves it out where a row has one.
    """

    def function(hits: np.ndarray, answers: np.ndarray, golds: np.ndarray, *, all_labels: bool) -> np.ndarray:
        if average == "micro":
            return score(*(part.sum(1) for part in (hits, answers, golds)))
        values = score(hits, answers, golds)
        if average == "weighted":
            return (values * golds).sum(1) / golds.sum(1)
        return values.mean(1) if all_labels else values.sum(1) / (answers + golds > 0).sum(1)

    return lambda rows: _from_counts(partial(function, all_labels=rows.references.ndim == 2), rows)


def _of_second(score: Callable[..., np.ndarray]) -> Callable[[_Rows], Measure]:
    return lambda rows: _from_counts(lambda *parts: score(*parts)[:, 0], rows, (1,))


def _mcc(rows: _Rows) -> Measure:
    """Gorodkin (2004), https://doi.org/10.1016/j.compbiolchem.2004.09.006, from sums as scikit-learn has it."""
    import numpy as np

    def function(hits: np.ndarray, answers: np.ndarray, golds: np.ndarray) -> np.ndarray:
        total = golds.sum(1)
        covariance = hits.sum(1) * total - (answers * golds).sum(1)
        spread_gold = total**2 - (golds**2).sum(1)
        spread = spread_gold * (total**2 - (answers**2).sum(1))
        return np.where(spread_gold > 0, _over(covariance, np.sqrt(np.maximum(spread, 0))), np.nan)

    return _from_counts(function, rows)


# -- calibration ---------------------------------------------------------------------------------------


def _calibration(rows: _Rows) -> Measure:
    """Sum, per bin, hits minus confidence; several labels a row are pooled."""
    from ftlib.targets.metrics import bin_gaps

    if rows.references.ndim == 2:
        confidence, hit = rows.scores, rows.references > 0
    else:
        confidence, hit = rows.scores.max(1, keepdims=True), (rows.predicted == rows.references)[:, None]
    gaps = bin_gaps(confidence, hit)
    return lambda counts: abs(counts @ gaps).sum(1) / (counts.sum(1) * confidence.shape[1])


# -- ranks and moments ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """Rows sorted by a value, equal values in one group."""

    order: np.ndarray
    starts: np.ndarray
    group_of: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> _Order:
        import numpy as np

        order = np.argsort(values, kind="stable")
        _, starts, groups = np.unique(values[order], return_index=True, return_inverse=True)
        group_of = np.empty(len(values), dtype=np.int64)
        group_of[order] = groups
        return cls(order, starts, group_of)

    def per_group(self, counts: np.ndarray) -> np.ndarray:
        """Return how many rows each group counts, shape (num_samples, num_groups)."""
        import numpy as np

        ordered = counts[:, self.order]
        return ordered if len(self.starts) == ordered.shape[1] else np.add.reduceat(ordered, self.starts, axis=1)

    def ranks(self, counts: np.ndarray) -> np.ndarray:
        """Return each row's mean rank among the rows counted, shape (num_samples, num_rows)."""
        sizes = self.per_group(counts)
        return (sizes.cumsum(1) - sizes / 2 + 0.5)[:, self.group_of]


def _spearman(rows: _Rows) -> Measure:
    predicted, gold = _Order.of(rows.predicted), _Order.of(rows.references)
    return lambda counts: _correlation(counts, predicted.ranks(counts), gold.ranks(counts))


def _correlation(counts: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    total = counts.sum(1, keepdims=True)
    left = left - (counts * left).sum(1, keepdims=True) / total
    right = right - (counts * right).sum(1, keepdims=True) / total
    weighted = counts * left
    return _quotient((weighted * right).sum(1), (weighted * left).sum(1), (counts * right * right).sum(1))


def _quotient(covariance: np.ndarray, variance: np.ndarray, other_variance: np.ndarray) -> np.ndarray:
    import numpy as np

    defined = (variance > 0) & (other_variance > 0)
    spread = np.sqrt(np.where(defined, variance * other_variance, 1))
    return np.where(defined, covariance / spread, np.nan)


def _moments(rows: _Rows) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """Return variances of answers and gold and their covariance, each times the number of rows."""
    import numpy as np

    left = np.asarray(rows.predicted, dtype=np.float64)
    right = np.asarray(rows.references, dtype=np.float64)
    left, right = left - left.mean(), right - right.mean()  # keeps the differences of squares exact
    parts = np.stack([left, right, left * left, right * right, left * right], axis=1)

    def moments(counts: np.ndarray) -> tuple[np.ndarray, ...]:
        total = counts.sum(1)
        x, y, xx, yy, xy = (counts @ parts).T
        return xx - x * x / total, yy - y * y / total, xy - x * y / total

    return moments


def _pearson(rows: _Rows) -> Measure:
    moments = _moments(rows)

    def measured(counts: np.ndarray) -> np.ndarray:
        variance, other_variance, covariance = moments(counts)
        return _quotient(covariance, variance, other_variance)

    return measured


def _r2(rows: _Rows) -> Measure:
    import numpy as np

    moments, squared = _moments(rows), rows.target.row_losses(rows.scores, rows.references)

    def measured(counts: np.ndarray) -> np.ndarray:
        _, spread, _ = moments(counts)
        return np.where(spread > 0, 1 - counts @ squared / np.where(spread > 0, spread, 1), np.nan)

    return measured


def _roc_auc(rows: _Rows) -> Measure:
    """The mean over labels of one against the rest; of two labels, the second alone."""
    import numpy as np

    gold = _hot(rows.references, rows) > 0
    columns = [1] if rows.references.ndim == 1 and gold.shape[1] == 2 else range(gold.shape[1])
    areas = [partial(_area, _Order.of(rows.scores[:, k]), gold[:, k]) for k in columns]

    def measured(counts: np.ndarray) -> np.ndarray:
        values = np.stack([area(counts) for area in areas])
        defined = np.isfinite(values)
        total = np.where(defined, values, 0).sum(0)
        return np.where(defined.any(0), total / np.maximum(defined.sum(0), 1), np.nan)

    return measured


def _area(order: _Order, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The Mann-Whitney form: how often a positive row outranks a negative one, ties for a half."""
    import numpy as np

    positives, negatives = order.per_group(counts * positive), order.per_group(counts * ~positive)
    outranked = (positives * (negatives.cumsum(1) - negatives / 2)).sum(1)
    pairs = positives.sum(1) * negatives.sum(1)
    return np.where(pairs > 0, outranked / np.where(pairs > 0, pairs, 1), np.nan)


_MAKERS: dict[str, dict[str, Callable[[_Rows], Measure]]] = {
    "single_label": {
        "accuracy": _accuracy,
        "f1_micro": _accuracy,
        "precision_macro": _averaged(_precision, "macro"),
        "recall_macro": _averaged(_recall, "macro"),
        "f1_macro": _averaged(_f1, "macro"),
        "f1_weighted": _averaged(_f1, "weighted"),
        "mcc": _mcc,
        "roc_auc": _roc_auc,
        "log_loss": _log_loss,
        "calibration_error": _calibration,
        "f1": _of_second(_f1),
        "precision": _of_second(_precision),
        "recall": _of_second(_recall),
    },
    "multi_label": {
        "f1_micro": _averaged(_f1, "micro"),
        "f1_macro": _averaged(_f1, "macro"),
        "precision_micro": _averaged(_precision, "micro"),
        "precision_macro": _averaged(_precision, "macro"),
        "recall_micro": _averaged(_recall, "micro"),
        "recall_macro": _averaged(_recall, "macro"),
        "accuracy": _accuracy,
        "hamming_loss": _hamming,
        "roc_auc_macro": _roc_auc,
        "log_loss": _log_loss,
        "calibration_error": _calibration,
    },
    "value": {"rmse": _rmse, "mae": _mae, "pearson": _pearson, "spearman": _spearman, "r2": _r2},
}
