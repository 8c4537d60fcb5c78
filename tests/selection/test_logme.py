"""LogME against what it is the maximum of: the evidence of Bayesian linear regression, written out and maximised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import BayesianRidge

from ftlib.selection.logme import Spectrum, log_evidence, logme


def written_out(features: np.ndarray, column: np.ndarray, alpha: float, beta: float) -> float:
    """Return the log-evidence a row, as equation 2 of You et al. (2021) has it."""
    num_rows, width = features.shape
    precision = alpha * np.eye(width) + beta * features.T @ features
    mean = beta * np.linalg.solve(precision, features.T @ column)
    errors = column - features @ mean
    total = width / 2 * np.log(alpha) + num_rows / 2 * np.log(beta) - num_rows / 2 * np.log(2 * np.pi)
    total -= beta / 2 * errors @ errors + alpha / 2 * mean @ mean + np.linalg.slogdet(precision)[1] / 2
    return total / num_rows


def maximised(features: np.ndarray, column: np.ndarray) -> float:
    """Return the largest log-evidence that an optimiser finds over both precisions."""
    found = [
        minimize(lambda at: -written_out(features, column, *np.exp(at)), start, method="Nelder-Mead").fun
        for start in ([0.0, 0.0], [3.0, 2.0])
    ]
    return -min(found)


def drawn(num_rows: int, width: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(num_rows + width)
    features = random.normal(size=(num_rows, width)) * random.uniform(0.2, 3, width)
    weights = random.normal(size=width) * (np.arange(width) % 3 == 0)
    return features, features @ weights + noise * random.normal(size=num_rows)


@pytest.mark.parametrize(("num_rows", "width"), [(60, 8), (200, 24), (20, 40)])
def test_the_evidence_is_the_largest_over_both_precisions(num_rows: int, width: int):
    features, column = drawn(num_rows, width, noise=2.0)
    found = log_evidence(Spectrum.of(features), column)
    assert found == pytest.approx(maximised(features, column), abs=2e-4)


def test_it_is_what_scikit_learns_bayesian_ridge_reaches_without_priors():
    features, column = drawn(150, 12, noise=1.0)
    flat = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
    ridge = BayesianRidge(fit_intercept=False, compute_score=True, max_iter=1000, tol=1e-10, **flat)
    expected = ridge.fit(features, column).scores_[-1] / len(column)
    assert log_evidence(Spectrum.of(features), column) == pytest.approx(expected, abs=1e-4)


def test_a_score_is_the_mean_over_the_labels_that_vary():
    features, _ = drawn(80, 6, noise=1.0)
    ids = (features[:, 0] > 0).astype(int) + (features[:, 1] > 1)
    columns = np.eye(4)[ids]  # the fourth label has no row
    each = [log_evidence(Spectrum.of(features), columns[:, i]) for i in range(3)]
    assert logme(features, columns) == pytest.approx(np.mean(each))
    assert logme(features, columns[:, 3:]) is None


def test_features_that_hold_the_labels_score_above_those_that_do_not():
    features, _ = drawn(120, 10, noise=1.0)
    columns = np.eye(2)[(features[:, 2] > 0).astype(int)]
    shuffled = np.random.default_rng(0).permutation(features)
    assert logme(features, columns) > logme(shuffled, columns) + 0.1
