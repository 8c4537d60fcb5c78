"""Resampling and tests against scipy, scikit-learn and the textbook's formulas."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, softmax

from ftlib.errors import ParamsError
from ftlib.evaluation.assessment import assess, compare
from ftlib.evaluation.measures import _row_by_row, _Rows, measure, value_of
from ftlib.evaluation.statistics import bootstrap, interval, mcnemar, paired_bootstrap_p_value, resamples
from ftlib.targets.base import Target
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

TARGETS = {
    "two labels": SingleLabel(("no", "yes")),
    "four labels": SingleLabel(("a", "b", "c", "d")),
    "multi_label": MultiLabel(("a", "b", "c"), 0.4),
    "value": Value(),
}
CASES = [(kind, metric) for kind, target in TARGETS.items() for metric in target.metric_names]


def sample(kind: str, num_rows: int, seed: int = 0):
    """Return (scores, references), with ties among the scores."""
    random = np.random.default_rng(seed)
    target = TARGETS[kind]
    if kind == "value":
        scores = random.normal(size=(num_rows, 1)).round(1)
        return scores, (scores[:, 0] + random.normal(size=num_rows)).round(1).astype(np.float32)
    logits = random.normal(size=(num_rows, target.num_outputs)).round(1) * 2
    if kind == "multi_label":
        scores = expit(logits)
        return scores, (random.random(scores.shape) < scores).astype(np.float32)
    scores = softmax(logits, axis=-1)
    return scores, np.array([random.choice(target.num_outputs, p=p) for p in scores])


# -- measures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "metric"), CASES)
@pytest.mark.parametrize("num_rows", [1, 6, 200])
def test_every_row_counted_once_gives_the_metric(kind: str, metric: str, num_rows: int):
    scores, references = sample(kind, num_rows)
    expected = TARGETS[kind].metrics(scores, references).get(metric, np.nan)
    np.testing.assert_allclose(value_of(metric, scores, references, TARGETS[kind]), expected, atol=1e-9)


@pytest.mark.parametrize(("kind", "metric"), CASES)
@pytest.mark.parametrize("num_rows", [8, 60])
def test_counting_rows_is_drawing_them(kind: str, metric: str, num_rows: int):
    scores, references = sample(kind, num_rows)
    counts = np.random.default_rng(1).multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=8).astype(float)
    rows = _Rows(scores, TARGETS[kind].predicted(scores), references, TARGETS[kind])
    expected = _row_by_row(metric, rows, counts)
    np.testing.assert_allclose(measure(metric, scores, references, TARGETS[kind])(counts), expected, atol=1e-9)


def test_a_metric_of_an_unknown_target_is_computed_row_by_row():
    class Halved(SingleLabel):
        kind = "halved"

    scores, references = sample("two labels", 30)
    target = Halved(("no", "yes"))
    values = bootstrap({"f1": measure("f1_macro", scores, references, target)}, 30, 20, seed=0)["f1"]
    known = bootstrap({"f1": measure("f1_macro", scores, references, TARGETS["two labels"])}, 30, 20, seed=0)["f1"]
    np.testing.assert_allclose(values, known)


def test_an_unknown_metric_is_refused_with_the_near_names():
    scores, references = sample("value", 5)
    with pytest.raises(ParamsError, match="Did you mean 'spearman'"):
        measure("sperman", scores, references, Value())


# -- bootstrap -----------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 30), st.integers(0, 9))
@settings(deadline=None)
def test_every_resample_has_as_many_rows(num_rows: int, num_samples: int, seed: int):
    blocks = list(resamples(num_rows, num_samples, seed=seed))
    counts = np.concatenate(blocks)
    assert counts.shape == (num_samples, num_rows)
    assert (counts.sum(1) == num_rows).all()


def test_blocks_do_not_matter_to_how_many_resamples_there_are(monkeypatch):
    monkeypatch.setattr("ftlib.evaluation.statistics.BLOCK_CELLS", 70)
    assert [len(block) for block in resamples(20, 8, seed=0)] == [3, 3, 2]


def test_the_interval_of_a_mean_is_scipys():
    random = np.random.default_rng(0)
    target = TARGETS["two labels"]
    references = np.zeros(400, dtype=int)
    scores = np.where((random.random(400) < 0.8)[:, None], [0.9, 0.1], [0.1, 0.9])
    ours = assess(scores, references, target, num_samples=4000).intervals["accuracy"]
    right = (scores.argmax(1) == references).astype(float)
    theirs = stats.bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.006)


def test_the_interval_of_spearman_is_scipys():
    scores, references = sample("value", 150)
    ours = assess(scores, references, Value(), num_samples=2000).intervals["spearman"]
    theirs = stats.bootstrap(
        (scores[:, 0], references),
        lambda x, y: stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=1,
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        right = random.random(150) < 0.7
        scores = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        found = assess_accuracy(scores, seed)
        covered += found[0] <= 0.7 <= found[1]
    assert 0.88 <= covered / 200 <= 0.99


def assess_accuracy(scores: np.ndarray, seed: int) -> list[float]:
    accuracy = measure("accuracy", scores, np.zeros(len(scores), dtype=int), TARGETS["two labels"])
    found = interval(bootstrap({"accuracy": accuracy}, len(scores), 400, seed=seed)["accuracy"], 0.95)
    assert found is not None
    return found


def test_values_that_no_resample_defines_have_no_interval():
    assert interval(np.full(5, np.nan), 0.95) is None
    assert interval(np.array([np.nan, 1.0, 1.0]), 0.95) == [1.0, 1.0]


@pytest.mark.parametrize("kind", TARGETS)
def test_assessing_gives_every_metric_with_an_interval_around_it(kind: str):
    scores, references = sample(kind, 120)
    found = assess(scores, references, TARGETS[kind])
    assert next(iter(found.metrics)) == TARGETS[kind].main_metric
    assert found.metrics == TARGETS[kind].metrics(scores, references)
    assert set(found.intervals) == set(found.metrics)
    for name, (low, high) in found.intervals.items():
        assert low <= high
        if name != "calibration_error":  # resamples of a calibrated model are less calibrated: biased upwards
            assert low <= found.metrics[name] <= high


# -- paired tests --------------------------------------------------------------------------------------


def mcnemar_by_hand(gained: int, lost: int) -> float:
    tail = sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    return min(1.0, 2 * tail)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_exact_binomial_test_on_the_rows_that_differ(gained: int, lost: int, same: int):
    one = np.array([True] * gained + [False] * lost + [True] * same + [False], dtype=bool)
    other = np.array([False] * gained + [True] * lost + [True] * same + [False], dtype=bool)
    p_value = mcnemar(one, other)
    assert p_value == pytest.approx(mcnemar_by_hand(gained, lost))
    assert p_value == pytest.approx(mcnemar(other, one))


def test_mcnemar_of_ten_rows_gained_and_two_lost():
    """2 * (C(12, 0) + C(12, 1) + C(12, 2)) / 2**12 = 158 / 4096."""
    one = np.array([True] * 10 + [False] * 2)
    assert mcnemar(one, ~one) == pytest.approx(0.03857421875)


def test_equal_models_have_a_p_value_of_one():
    for kind, target in TARGETS.items():
        scores, references = sample(kind, 40)
        for metric in target.metric_names:
            assert compare(scores, scores, references, target, metric=metric, num_samples=100).p_value == 1


@pytest.mark.parametrize("kind", TARGETS)
def test_a_clearly_better_model_is_found_better(kind: str):
    target = TARGETS[kind]
    scores, references = sample(kind, 300)
    random = np.random.default_rng(5)
    worse = random.permutation(scores)
    found = compare(scores, worse, references, target)
    assert found.p_value < 0.01
    assert found.gain == pytest.approx(found.values[0] - found.values[1])
    assert found.interval is not None
    assert 0 < found.interval[0] < found.gain < found.interval[1]
    assert found.test == ("exact McNemar" if "labels" in kind else "paired bootstrap")
    mirrored = compare(worse, scores, references, target)
    assert mirrored.gain == -found.gain
    assert mirrored.p_value == pytest.approx(found.p_value, abs=0.01)


def test_the_paired_bootstrap_of_a_mean_is_close_to_the_t_test():
    random = np.random.default_rng(0)
    gold = np.zeros(200, dtype=np.float32)
    one = random.normal(0, 1, (200, 1))
    other = one + random.normal(0.05, 0.5, (200, 1))
    found = compare(one, other, gold, Value(), metric="mae", num_samples=4000)
    expected = stats.ttest_rel(abs(one[:, 0]), abs(other[:, 0])).pvalue
    assert found.p_value == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_models_of_equal_quality_are_seldom_called_different(metric: str):
    target: Target = TARGETS["two labels"]
    random = np.random.default_rng(0)
    called = 0
    for seed in range(150):
        references = random.integers(0, 2, 120)
        one, other = (
            np.eye(2)[np.where(random.random(120) < 0.75, references, 1 - references)] * 0.8 + 0.1 for _ in range(2)
        )
        called += compare(one, other, references, target, metric=metric, num_samples=200, seed=seed).p_value < 0.05
    assert called / 150 < 0.1


def test_no_p_value_is_zero():
    assert paired_bootstrap_p_value(np.full(99, 0.5), 0.5) == 0.01
