"""Fitting the learners of a stack with scikit-learn, and taking them out as arrays."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ftlib.crossfitting import deal_folds
from ftlib.fusion._stacked import Linear, Trees

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = (0.003, 0.03, 0.3, 3.0)
"""What C is chosen from: features have unit variance, so 0.003 all but ignores them and 3 hardly holds back."""

NUM_FOLDS = 3
"""Folds within which C is chosen."""

MOST_PROBLEMS = 12
"""Of more labels than this, C is chosen on about so many: it is one number for all."""


def linear(inputs: np.ndarray, wanted: np.ndarray, *, strength: float | None, seed: int) -> Linear:
    """Return a logistic regression for each problem, all with the same strength of regularisation.

    Args:
        inputs: Shape (num_problems, num_rows, num_members).
        wanted: 0 or 1, both in every problem, shape (num_problems, num_rows).
        strength: C, the inverse of regularisation's strength; None for that with the best log-loss in cross-validation.
        seed: For the folds.
    """
    import numpy as np

    mean, spread = _moments(inputs)
    scaled = (inputs - mean) / spread
    strength = _best_strength(scaled, wanted, seed) if strength is None else strength
    fitted = [_logistic(x, y, strength) for x, y in zip(scaled, wanted, strict=True)]
    coefficients = np.concatenate([model.coef_ for model in fitted]) / spread[:, 0]
    intercepts = np.concatenate([model.intercept_ for model in fitted])
    return Linear(coefficients, intercepts - (mean[:, 0] * coefficients).sum(1))


def _moments(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    spread = inputs.std(1, keepdims=True)
    return inputs.mean(1, keepdims=True), np.where(spread > 1e-9, spread, 1.0)


def _logistic(inputs: np.ndarray, wanted: np.ndarray, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separable rows and a weak C: near enough after 100 steps
        return LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8).fit(inputs, wanted)


def _best_strength(inputs: np.ndarray, wanted: np.ndarray, seed: int) -> float:
    """Return the strength whose cross-validated log-loss is lowest, summed over problems; the strongest of equals."""
    step = -(-len(inputs) // MOST_PROBLEMS)
    inputs, wanted = inputs[::step], wanted[::step]
    folds = [deal_folds(y, min(NUM_FOLDS, len(y)), seed=seed) for y in wanted]

    def loss(strength: float) -> float:
        return sum(_held_out_loss(x, y, f, strength) for x, y, f in zip(inputs, wanted, folds, strict=True))

    return min(STRENGTHS, key=loss)


def _held_out_loss(inputs: np.ndarray, wanted: np.ndarray, folds: np.ndarray, strength: float) -> float:
    """Return the log-loss of every fold by the rest; a rest of one class teaches nothing and is left out."""
    import numpy as np

    total = 0.0
    for fold in np.unique(folds):
        kept, held_out = folds != fold, folds == fold
        if len(np.unique(wanted[kept])) == 2:
            logs = _logistic(inputs[kept], wanted[kept], strength).predict_log_proba(inputs[held_out])
            total -= np.take_along_axis(logs, wanted[held_out][:, None], axis=1).sum()
    return float(total)


def ridge(inputs: np.ndarray, wanted: np.ndarray, *, alpha: float | None) -> Linear:
    """Return a ridge regression for each problem; its strength by leave-one-out unless given.

    Args:
        inputs: Shape (num_problems, num_rows, num_members).
        wanted: Shape (num_problems, num_rows).
        alpha: Strength of regularisation, for features of unit variance.
    """
    import numpy as np
    from sklearn.linear_model import RidgeCV

    mean, spread = _moments(inputs)
    strengths = np.logspace(-2, 4, 13) if alpha is None else np.array([alpha])
    scaled = (inputs - mean) / spread
    fitted = [RidgeCV(alphas=strengths).fit(x, y) for x, y in zip(scaled, wanted, strict=True)]
    coefficients = np.stack([model.coef_ for model in fitted]) / spread[:, 0]
    intercepts = np.array([model.intercept_ for model in fitted])
    return Linear(coefficients, intercepts - (mean[:, 0] * coefficients).sum(1))


def boosted(
    inputs: np.ndarray,
    wanted: np.ndarray,
    *,
    regression: bool,
    num_trees: int,
    max_depth: int,
    learning_rate: float,
    subsample: float,
    seed: int,
) -> Trees:
    """Return gradient-boosted trees for each problem, which add to the members' mean.

    Args:
        inputs: Log-odds or values, shape (num_problems, num_rows, num_members).
        wanted: 0 or 1, or values, shape (num_problems, num_rows).
        regression: Whether `wanted` are values.
        num_trees: Boosting rounds.
        max_depth: Of each tree.
        learning_rate: What share of each tree counts.
        subsample: Share of the rows each tree sees.
        seed: For the subsamples.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    make = GradientBoostingRegressor if regression else GradientBoostingClassifier
    num_rows = inputs.shape[1]
    trees = []
    for problem, (x, y) in enumerate(zip(inputs, wanted, strict=True)):
        model = make(
            init=_MembersMean(),
            n_estimators=num_trees,
            max_depth=max_depth,
            learning_rate=learning_rate,
            subsample=subsample if num_rows * subsample >= 2 else 1.0,
            min_samples_leaf=max(1, min(10, num_rows // 10)),
            random_state=seed,
        ).fit(x, y)
        trees += [(problem, tree) for tree in model.estimators_[:, 0]]
    return Trees.export(trees, learning_rate)


class _MembersMean:
    """What boosting starts from, in the form that scikit-learn asks for."""

    def fit(self, inputs: np.ndarray, wanted: np.ndarray) -> _MembersMean:
        """Learn nothing."""
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return the mean of the members' values."""
        return inputs.mean(1)

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        """Return the probabilities of the members' mean log-odds."""
        import numpy as np
        from scipy.special import expit

        odds = inputs.mean(1).astype(np.float64)
        return np.stack([expit(-odds), expit(odds)], axis=1)
