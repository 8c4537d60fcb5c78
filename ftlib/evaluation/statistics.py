"""How far a figure can be trusted: bootstrap intervals and paired tests.

Nothing here runs a model: rows are drawn, not predicted, and a metric is a function of how often each row is drawn
(`ftlib.measures`), so a thousand resamples are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ftlib.evaluation.measures import Measure

BLOCK_CELLS = 2_000_000
"""Resamples are drawn in blocks of so many counts (16 MB)."""


def resamples(num_rows: int, num_samples: int, *, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of bootstrap resamples as row counts, shape (block_size, num_rows), `num_samples` in all."""
    import numpy as np

    random = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // max(1, num_rows))
    for start in range(0, num_samples, block):
        size = min(block, num_samples - start)
        drawn = random.integers(0, num_rows, size=(size, num_rows)) + num_rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * num_rows).reshape(size, num_rows).astype(np.float64)


def bootstrap(measures: Mapping[str, Measure], num_rows: int, num_samples: int, *, seed: int) -> dict[str, np.ndarray]:
    """Return each measure's values over the same resamples, shape (num_samples,): so differences are paired.

    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 13 and 16. A value that a resample leaves
    undefined (no row of a label, say) is NaN.
    """
    import numpy as np

    blocks: dict[str, list[np.ndarray]] = {name: [] for name in measures}
    for counts in resamples(num_rows, num_samples, seed=seed):
        for name, measure in measures.items():
            blocks[name].append(measure(counts))
    return {name: np.concatenate(values) for name, values in blocks.items()}


def interval(values: np.ndarray, confidence: float) -> list[float] | None:
    """Return the percentile interval [low, high] of bootstrap values; None where none is defined.

    Efron & Tibshirani (1993), section 13.3.
    """
    import numpy as np

    defined = values[np.isfinite(values)]
    if len(defined) == 0:
        return None
    tail = (1 - confidence) / 2
    return np.quantile(defined, [tail, 1 - tail]).tolist()


def mcnemar(correct: np.ndarray, other_correct: np.ndarray) -> float:
    """Return the exact two-sided p-value of two models being right equally often on the same rows.

    Only rows on which exactly one of them is right tell them apart; if they are equally good, each such row is a
    fair coin. McNemar (1947), https://doi.org/10.1007/BF02295996, with the binomial distribution instead of its
    approximation; recommended for two trained models by Dietterich (1998),
    https://doi.org/10.1162/089976698300017197, section 3.1.

    Args:
        correct: Whether the one model is right, bool, shape (num_rows,).
        other_correct: Whether the other one is.
    """
    import numpy as np
    from scipy.stats import binomtest

    only_one = int(np.sum(correct & ~other_correct))
    only_other = int(np.sum(other_correct & ~correct))
    discordant = only_one + only_other
    return float(binomtest(only_one, discordant, 0.5).pvalue) if discordant else 1.0


def paired_bootstrap_p_value(differences: np.ndarray, observed: float) -> float:
    """Return the two-sided p-value of a difference in any metric being 0 in truth.

    The bootstrap differences, shifted to mean 0, are what chance alone would give; the p-value is how often they are
    as far out as the observed one. Efron & Tibshirani (1993), section 16.4; Berg-Kirkpatrick, Burkett & Klein (2012),
    "An Empirical Investigation of Statistical Significance in NLP", https://aclanthology.org/D12-1091, section 2,
    there one-sided. One is added to both counts, so that no p-value is 0 (Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585).

    Args:
        differences: One model's value minus the other's on each resample, shape (num_samples,).
        observed: The difference on all rows.
    """
    import numpy as np

    defined = differences[np.isfinite(differences)]
    rounding = 1e-12
    as_far = np.sum(np.abs(defined - observed) >= abs(observed) - rounding)
    return float((1 + as_far) / (1 + len(defined)))
