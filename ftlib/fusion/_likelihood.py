"""How probable fused scores make the gold answers: what temperatures, weights and beliefs are fitted by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.fusion._logarithms import log

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target


def log_likelihood(scores: np.ndarray, references: np.ndarray, target: Target) -> float:
    """Return the log-likelihood of the gold answers, summed over rows; of numbers, that of their errors.

    Words of one text go together, so a row of several units counts once: by its units' mean. Numbers have normal
    errors, whose spread is the one that fits best. Of candidates the good ones are right in part, by their
    quality: a row's likelihood is the mean quality under its support.

    Args:
        scores: Shape (num_units, num_outputs).
        references: As `Target.encode` gives them; of candidates, the first column is the quality.
        target: Over the layout of these rows.
    """
    import numpy as np

    if target.unit_kind == "value":
        spread = np.mean((scores[:, 0] - references) ** 2)
        return float(-len(references) / 2 * log(spread))
    if target.unit_kind == "candidate":
        return float(log(quotient(*candidate_sums(scores.prod(-1), references, target))).sum())
    return float(per_row(log(gold_probabilities(scores, references, target)), target).sum())


def gold_probabilities(scores: np.ndarray, references: np.ndarray, target: Target) -> np.ndarray:
    """Return the probability of each gold label, shape (num_units,) or, each label on its own, (num_units, labels)."""
    import numpy as np

    if target.unit_kind == "multi_label":
        return np.where(references > 0, scores, 1 - scores)
    return np.take_along_axis(scores, references[:, None], axis=1)[:, 0]


def per_row(values: np.ndarray, target: Target) -> np.ndarray:
    """Return the sum over labels and the mean over a row's units, shape (num_rows,)."""
    import numpy as np

    values = values.reshape(len(values), -1).sum(1)
    if target.layout is None:
        return values
    return target.layout.sums(values) / np.maximum(target.layout.counts, 1)


def candidate_sums(support: np.ndarray, references: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's support times quality, and its support, summed over candidates: shape (num_rows,) each.

    Args:
        support: One a candidate, shape (num_units,).
        references: The candidates' quality first.
        target: Over the layout of these rows.
    """
    if target.layout is None:
        raise ValueError("candidates are compared within their row; the layout is needed")
    quality = references.reshape(len(references), -1)[:, 0]
    return target.layout.sums(support * quality), target.layout.sums(support)


def quotient(good: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return rows' mean quality from `candidate_sums`; 1 where nothing is supported: that says nothing of anybody."""
    import numpy as np

    return np.where(total > 0, good / np.where(total > 0, total, 1.0), 1.0)
