"""Fitting the learners of a stack with scikit-learn, and taking them out as arrays."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ftlib.crossfitting import deal_folds
from ftlib.fusion._stacked import Linear, Trees, shared_out

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.layout import Layout

STRENGTHS = (0.003, 0.03, 0.3, 3.0)
"""What C is chosen from: features have unit variance, so 0.003 all but ignores them and 3 hardly holds back."""

NUM_FOLDS = 3
"""Folds within which C is chosen."""

MOST_PROBLEMS = 12
"""Of more labels than this, C is chosen on about so many: it is one number for all."""


def linear(inputs: np.ndarray, wanted: np.ndarray, *, strength: float | None, seed: int) -> Linear:
    """Return a logistic regression for each problem, all with the same strength of regularisation.

    Args:
        inputs: Shape (num_problems, num_rows, num_features).
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
        inputs: Shape (num_problems, num_rows, num_features).
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


def choosing(inputs: np.ndarray, quality: np.ndarray, layout: Layout, *, strength: float | None, seed: int) -> Linear:
    """Return the linear learner under whose softmax over a row's candidates good ones are most probable.

    A row's likelihood is the mean quality under the softmax: with one right candidate that is the conditional logit of
    McFadden (1974), "Conditional Logit Analysis of Qualitative Choice Behavior",
    https://eml.berkeley.edu/reprints/mcfadden/zarembka.pdf; for reranking: Collins & Koo (2005),
    https://aclanthology.org/J05-1003, section 3.2. Unlike a regression of each candidate's quality it learns nothing
    of how hard a row is, which makes no candidate better than its neighbours.

    Args:
        inputs: Shape (num_units, num_features).
        quality: From 0 to 1, shape (num_units,).
        layout: Which candidates each row has.
        strength: C, as in `linear`.
        seed: For the folds.
    """
    import numpy as np

    spread = _moments(inputs[None])[1][0]
    scaled = inputs / spread  # only differences within a row count: no mean to take off
    strength = _best_choosing(scaled, quality, layout, seed) if strength is None else strength
    return Linear((_chooser(scaled, quality, layout, strength) / spread[0])[None], np.zeros(1))


def _best_choosing(inputs: np.ndarray, quality: np.ndarray, layout: Layout, seed: int) -> float:
    """Return the strength with the best cross-validated likelihood; the strongest of equals."""
    import numpy as np

    folds = deal_folds(np.zeros(layout.num_rows, np.int64), min(NUM_FOLDS, layout.num_rows), seed=seed)

    def loss(strength: float) -> float:
        total = 0.0
        for fold in np.unique(folds):
            (kept, rest), (held_out, part) = (
                (layout.positions(rows), layout.take(rows)) for rows in (folds != fold, folds == fold)
            )
            coefficients = _chooser(inputs[kept], quality[kept], rest, strength)
            total += _choice_loss(coefficients, inputs[held_out], quality[held_out], part)[0]
        return total

    return min(STRENGTHS, key=loss)


def _chooser(inputs: np.ndarray, quality: np.ndarray, layout: Layout, strength: float) -> np.ndarray:
    """Return the coefficients, shape (num_features,), from zero on by L-BFGS."""
    import numpy as np
    from scipy.optimize import minimize

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _choice_loss(coefficients, inputs, quality, layout)
        return value + coefficients @ coefficients / (2 * strength), slope + coefficients / strength

    start = np.zeros(inputs.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x


def _choice_loss(
    coefficients: np.ndarray, inputs: np.ndarray, quality: np.ndarray, layout: Layout
) -> tuple[float, np.ndarray]:
    """Return the rows' negative log-likelihood and its slope; a row without any good candidate says nothing."""
    import numpy as np

    chosen = shared_out(inputs @ coefficients, layout)
    good = layout.sums(chosen * quality)
    tells = good > 0
    likelihood = np.where(tells, good, 1.0)
    towards = (chosen * quality) / likelihood[layout.row_of] - chosen
    return float(-np.log(likelihood).sum()), -(towards * tells[layout.row_of]) @ inputs


def boosted(
    inputs: np.ndarray,
    wanted: np.ndarray,
    *,
    num_scores: int,
    regression: bool,
    num_trees: int,
    max_depth: int,
    learning_rate: float,
    subsample: float,
    seed: int,
) -> Trees:
    """Return gradient-boosted trees for each problem, which add to the members' mean.

    Args:
        inputs: Log-odds or values, shape (num_problems, num_rows, num_features).
        wanted: 0 or 1, or values, shape (num_problems, num_rows).
        num_scores: How many of the features, from the first, are members' scores.
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
            init=_MembersMean(num_scores),
            n_estimators=num_trees,
            max_depth=max_depth,
            learning_rate=learning_rate,
            subsample=subsample if num_rows * subsample >= 2 else 1.0,
            min_samples_leaf=max(1, min(10, num_rows // 10)),
            random_state=seed,
        ).fit(x, y)
        trees += [(problem, tree) for tree in model.estimators_[:, 0]]
    return Trees.export(trees, learning_rate, num_scores)


class _MembersMean:
    """What boosting starts from, in the form that scikit-learn asks for.

    Args:
        num_scores: How many of the features, from the first, are members' scores.
    """

    def __init__(self, num_scores: int) -> None:
        self.num_scores = num_scores

    def fit(self, inputs: np.ndarray, wanted: np.ndarray) -> _MembersMean:
        """Learn nothing."""
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return the mean of the members' values."""
        return inputs[:, : self.num_scores].mean(1)

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        """Return the probabilities of the members' mean log-odds."""
        import numpy as np
        from scipy.special import expit

        odds = self.predict(inputs).astype(np.float64)
        return np.stack([expit(-odds), expit(odds)], axis=1)
