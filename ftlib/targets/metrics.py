"""Metrics: how good scores are, by scikit-learn and scipy; what the rows leave undefined is left out, never NaN.

Every function takes `scores` as a target gives them, the `predicted` answers and the `references`, and returns a
number, or None where it is undefined (one class only, constant values...).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from ftlib.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

NUM_BINS = 15
"""Bins of the calibration error, as in Guo et al. (2017)."""

Metric = Callable[["np.ndarray", "np.ndarray", "np.ndarray"], "float | None"]
"""(scores, predicted, references) -> value, or None where it is undefined."""

LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "hamming_loss", "rmse", "mae"})


def compute(
    metrics: dict[str, Metric], scores: np.ndarray, predicted: np.ndarray, references: np.ndarray
) -> dict[str, float]:
    """Return every metric that is defined for these rows.

    Raises:
        CheckpointError: If a score is NaN or infinite: then the model has diverged.
    """
    import numpy as np

    if not len(references):
        return {}
    broken = int((~np.isfinite(scores).all(axis=-1)).sum())
    if broken:
        raise CheckpointError(
            f"the model answers {broken:,} of {len(references):,} rows with NaN or infinity, not with a number: "
            "its training has diverged. Lower learning_rate, or add warm-up."
        )
    values = {name: metric(scores, predicted, references) for name, metric in metrics.items()}
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def clipped(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities kept away from 0 and 1, so that one sure and wrong row leaves a log-loss finite."""
    import numpy as np

    smallest = np.finfo(np.float64).eps
    return np.clip(probabilities, smallest, 1 - smallest)


def accuracy(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the share of rows that are right; of several labels a row, all must be."""
    from sklearn.metrics import accuracy_score

    return accuracy_score(references, predicted)


def averaged(score: str, average: str) -> Metric:
    """Return scikit-learn's precision, recall or F1, averaged over labels; 0 where nothing was predicted or to find."""

    def metric(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
        from sklearn import metrics

        # scikit-learn takes a single multi-hot column for two classes
        over = "binary" if references.shape[1:] == (1,) else average
        return getattr(metrics, f"{score}_score")(references, predicted, average=over, zero_division=0)

    return metric


def of_second_label(score: str) -> Metric:
    """Return scikit-learn's precision, recall or F1 of label 1, the positive one of two."""

    def metric(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
        from sklearn import metrics

        return getattr(metrics, f"{score}_score")(references == 1, predicted == 1, zero_division=0)

    return metric


def per_label(predicted: np.ndarray, references: np.ndarray, num_labels: int) -> list[dict[str, float]]:
    """Return scikit-learn's precision, recall, f1 and support of each label, ids or multi-hot rows given."""
    from sklearn.metrics import precision_recall_fscore_support

    ids = [1] if references.shape[1:] == (1,) else range(num_labels)
    columns = precision_recall_fscore_support(references, predicted, labels=ids, zero_division=0)
    keys = ("precision", "recall", "f1", "support")
    return [dict(zip(keys, map(float, row), strict=True)) for row in zip(*columns, strict=True)]


def matthews(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
    """Return Matthews' correlation coefficient; undefined where the references hold one label only."""
    from sklearn.metrics import matthews_corrcoef

    if (references == references[0]).all():
        return None
    return matthews_corrcoef(references, predicted)


def roc_auc(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
    """Return the area under the ROC curve: plain for two labels, else the mean of one label against the rest."""
    import numpy as np

    if scores.shape[-1] == 2:
        return _auc(references == 1, scores[:, 1])
    return roc_auc_macro(scores, predicted, references[:, None] == np.arange(scores.shape[-1]))


def roc_auc_macro(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
    """Return the mean over labels of the area under the ROC curve, over the labels for which it is defined."""
    areas = [_auc(references[:, label] > 0, scores[:, label]) for label in range(scores.shape[-1])]
    defined = [area for area in areas if area is not None]
    return sum(defined) / len(defined) if defined else None


def _auc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    if positive.all() or not positive.any():
        return None
    return roc_auc_score(positive, scores)


def log_loss(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the mean negative log-probability of the right label, probabilities clipped as scikit-learn does.

    Not scikit-learn's function itself: that warns where fused float32 scores sum to one only nearly.
    """
    import numpy as np

    smallest = np.finfo(np.float64).eps
    right = np.take_along_axis(scores.astype(np.float64), references[:, None], axis=1)
    return float(-np.log(np.clip(right, smallest, 1 - smallest)).mean())


def binary_log_loss(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the binary cross-entropy, mean over rows and labels."""
    import numpy as np

    smallest = np.finfo(np.float64).eps
    clipped = np.clip(scores.astype(np.float64), smallest, 1 - smallest)
    return float(-np.where(references > 0, np.log(clipped), np.log1p(-clipped)).mean())


def calibration_error(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the expected calibration error of the predicted label's probability, 15 bins of equal width.

    Guo et al. (2017), "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, equation 3.
    """
    return _expected_gap(scores.max(axis=-1), predicted == references)


def binary_calibration_error(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the calibration error of every label's own probability, all rows and labels pooled."""
    return _expected_gap(scores.ravel(), references.ravel() > 0)


def _expected_gap(confidences: np.ndarray, hits: np.ndarray) -> float:
    total = sum(count * abs(hit - confidence) for confidence, hit, count in bins(confidences, hits))
    return total / len(confidences)


def bin_gaps(confidences: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Return hits minus confidence of each row, per bin of confidence, shape (num_rows, num_bins).

    So the calibration error of any resample is |counts @ gaps|, summed over bins, over how many answers there are.

    Args:
        confidences: Probabilities, shape (num_rows, num_answers).
        hits: Whether each answer is right, the same shape.
        num_bins: As `bins` has them.
    """
    import numpy as np

    number = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], confidences, side="left")
    gaps = np.zeros((len(confidences), num_bins))
    np.add.at(gaps, (np.arange(len(confidences))[:, None], number), hits - confidences)
    return gaps


def bins(confidences: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS) -> list[tuple[float, float, int]]:
    """Return the bins of a reliability diagram that hold rows: mean confidence, share of hits, count.

    Args:
        confidences: Probabilities, shape (N,); bin m holds those in ((m - 1) / num_bins, m / num_bins].
        hits: Whether each came true, shape (N,).
        num_bins: How many bins of equal width there are between 0 and 1.
    """
    import numpy as np

    inner = np.linspace(0, 1, num_bins + 1)[1:-1]
    numbers = np.searchsorted(inner, confidences, side="left")
    counts = np.bincount(numbers, minlength=num_bins)
    confidence = np.bincount(numbers, weights=confidences, minlength=num_bins)
    hit = np.bincount(numbers, weights=hits, minlength=num_bins)
    return [(float(confidence[i] / n), float(hit[i] / n), int(n)) for i, n in enumerate(counts) if n]


def hamming_loss(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the share of row-label decisions that are wrong."""
    from sklearn.metrics import hamming_loss as hamming

    return hamming(references, predicted)


def rmse(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the root of the mean squared error."""
    from sklearn.metrics import root_mean_squared_error

    return root_mean_squared_error(references, predicted)


def mae(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
    """Return the mean absolute error."""
    from sklearn.metrics import mean_absolute_error

    return mean_absolute_error(references, predicted)


def r2(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
    """Return the share of the references' variance that is explained; undefined where they are constant."""
    from sklearn.metrics import r2_score

    if len(references) < 2 or (references == references[0]).all():
        return None
    return r2_score(references, predicted)


def correlation(method: str) -> Metric:
    """Return scipy's correlation, "pearson" or "spearman"; undefined where either side is constant."""

    def metric(scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
        from scipy import stats

        if len(references) < 2 or (references == references[0]).all() or (predicted == predicted[0]).all():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nearly constant input: the value is still the best there is
            return float(getattr(stats, f"{method}r")(references, predicted).statistic)

    return metric


SINGLE_LABEL: dict[str, Metric] = {
    "accuracy": accuracy,
    "precision_macro": averaged("precision", "macro"),
    "recall_macro": averaged("recall", "macro"),
    "f1_macro": averaged("f1", "macro"),
    "f1_micro": averaged("f1", "micro"),
    "f1_weighted": averaged("f1", "weighted"),
    "mcc": matthews,
    "roc_auc": roc_auc,
    "log_loss": log_loss,
    "calibration_error": calibration_error,
}
TWO_LABELS: dict[str, Metric] = {
    "f1": of_second_label("f1"),
    "precision": of_second_label("precision"),
    "recall": of_second_label("recall"),
}
"""Beside the others, where there are two labels: the second one is the positive one."""

MULTI_LABEL: dict[str, Metric] = {
    "f1_micro": averaged("f1", "micro"),
    "f1_macro": averaged("f1", "macro"),
    "precision_micro": averaged("precision", "micro"),
    "recall_micro": averaged("recall", "micro"),
    "precision_macro": averaged("precision", "macro"),
    "recall_macro": averaged("recall", "macro"),
    "accuracy": accuracy,
    "hamming_loss": hamming_loss,
    "roc_auc_macro": roc_auc_macro,
    "log_loss": binary_log_loss,
    "calibration_error": binary_calibration_error,
}
VALUE: dict[str, Metric] = {
    "rmse": rmse,
    "mae": mae,
    "pearson": correlation("pearson"),
    "spearman": correlation("spearman"),
    "r2": r2,
}
