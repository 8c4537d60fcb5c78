"""Calibration, ranks, medians and beliefs against somebody else's numbers, or worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, softmax
from simulated import Candidates, apply, fusion, simulated

from ftlib.fusion._calibration import temperature
from ftlib.fusion._likelihood import log_likelihood
from ftlib.fusion.bayesian_combination import posterior_mean
from ftlib.fusion.rank_averaging import ranks_within_rows
from ftlib.targets.layout import Layout
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

THREE = SingleLabel(("a", "b", "c"))
CHOICE = Candidates().over(Layout.of(np.array([3, 2])))
"""Two rows: of three candidates and of two."""


def fused(method: dict, scores, references, target) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    return apply(fusion(method).fit(scores, np.asarray(references), target, seed=0), target, scores)


# -- temperatures --------------------------------------------------------------------------------------


def test_the_temperature_is_the_one_that_scikit_learn_finds():
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(600, 4)), random.integers(0, 3, 600)
    inputs[:, 0] += labels
    model = LogisticRegression(C=1e3).fit(inputs[:60] * 1.0, labels[:60])  # on few rows: too sure of itself
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(inputs, labels)
    expected = calibrated.predict_proba(inputs)
    scores = model.predict_proba(inputs)
    ours = fused({"name": "averaging", "calibrate": "temperature"}, scores[None], labels, THREE)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_member_that_shouts_is_made_as_sure_as_it_is_right():
    target, scores, references = simulated("five labels", 2000, noise=(0.8,))
    shouting = softmax(3 * np.log(scores[0]), axis=-1)
    expected = 3 * temperature(scores[0], references, target)
    assert temperature(shouting, references, target) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["two labels", "multi_label", "words", "choices", "spans"])
def test_no_other_temperature_fits_better(kind: str):
    target, scores, references = simulated(kind, 300)
    for member in scores:
        one = fusion({"name": "averaging", "calibrate": "temperature"}).fit(member[None], references, target, seed=0)
        best = log_likelihood(apply(one, target, member[None]), references, target)
        for other in (0.3, 0.7, 1.0, 1.5, 4.0):
            changed = type(one)(one.kind, one.space, one.shares, (other,))
            assert log_likelihood(apply(changed, target, member[None]), references, target) <= best + 1e-6


def test_calibrating_first_helps_a_mean_that_one_member_shouts_down():
    target, scores, references = simulated("five labels", 1500, noise=(0.8, 0.9, 2.5))
    scores[2] = softmax(6 * np.log(np.maximum(scores[2], 1e-12)), axis=-1)  # the worst is the surest
    plain, calibrated = (
        target.metrics(fused({"name": "averaging", **extra}, scores, references, target), references)["accuracy"]
        for extra in ({}, {"calibrate": "temperature"})
    )
    assert calibrated > plain + 0.02


def test_rows_that_are_all_right_leave_the_temperature_within_bounds():
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert 0.05 <= temperature(scores, np.array([0, 1]), SingleLabel(("a", "b"))) < 0.06
    assert 19 < temperature(scores, np.array([1, 0]), SingleLabel(("a", "b"))) <= 20


def test_hard_votes_cannot_be_calibrated_and_the_params_say_why():
    with pytest.raises(ValidationError, match=r"hard votes do not see; set voting: soft"):
        fusion({"name": "voting", "calibrate": "temperature"})


def test_a_calibrated_combiner_keeps_its_temperatures_and_others_have_none(tmp_path):
    import json

    target, scores, references = simulated("two labels")
    fusion({"name": "weighted", "calibrate": "temperature"}).fit(scores, references, target, seed=0).save(tmp_path)
    assert len(json.loads((tmp_path / "combiner.json").read_text())["temperatures"]) == 4
    fusion({"name": "weighted"}).fit(scores, references, target, seed=0).save(tmp_path)
    assert "temperatures" not in json.loads((tmp_path / "combiner.json").read_text())


# -- ranks ---------------------------------------------------------------------------------------------


def test_the_order_of_fused_labels_is_the_order_of_scipys_mean_ranks():
    from scipy.stats import rankdata, spearmanr

    target, scores, references = simulated("multi_label", 300)
    ours = fused({"name": "rank_averaging"}, scores, references, target)
    for label in range(ours.shape[1]):
        expected = np.mean([rankdata(member[:, label]) for member in scores], axis=0)
        assert spearmanr(ours[:, label], expected).statistic > 1 - 1e-4  # ties round apart


def test_ranks_do_not_hear_how_loud_a_member_is():
    target, scores, references = simulated("value", 400)
    loud = scores.copy()
    loud[3] = np.exp(loud[3] / 3) * 1000
    one, other = (
        target.metrics(fused({"name": "rank_averaging"}, s, references, target), references)["spearman"]
        for s in (scores, loud)
    )
    assert one == pytest.approx(other, abs=0.01)
    mean = target.metrics(fused({"name": "averaging"}, loud, references, target), references)["spearman"]
    assert other > mean


def test_the_area_under_the_curve_is_that_of_mean_ranks():
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    target, scores, references = simulated("two labels", 400)
    ours = fused({"name": "rank_averaging"}, scores, references, target)[:, 1]
    expected = np.mean([rankdata(member[:, 1]) for member in scores], axis=0)
    assert roc_auc_score(references, ours) == pytest.approx(roc_auc_score(references, expected), abs=2e-3)


def test_scores_beyond_those_of_the_held_out_rows_keep_their_order():
    random = np.random.default_rng(0)
    scores = random.normal(size=(2, 50, 1))
    combiner = fusion({"name": "rank_averaging"}).fit(scores, random.normal(size=50), Value(), seed=0)
    far = np.linspace(-50, 50, 300)
    found = combiner(np.stack([far, far])[..., None])[:, 0]
    assert (np.diff(found) > 0).all()


def test_no_more_points_are_kept_than_are_worth_it(tmp_path):
    random = np.random.default_rng(0)
    scores = random.normal(size=(2, 20_000, 1))
    combiner = fusion({"name": "rank_averaging"}).fit(scores, random.normal(size=20_000), Value(), seed=0)
    assert combiner.scores.shape[-1] <= 514
    np.testing.assert_allclose(combiner(np.repeat(scores[:1], 2, 0)).std(), scores.std(), rtol=0.01)


def test_candidates_ranks_are_scipys_within_their_row():
    from scipy.stats import rankdata

    random = np.random.default_rng(0)
    layout = Layout.of(random.integers(0, 6, 60))
    support = random.integers(0, 4, layout.num_units).astype(float)  # with ties
    ours = ranks_within_rows(support, layout)
    for start, stop in zip(layout.splits[:-1], layout.splits[1:], strict=True):
        np.testing.assert_array_equal(ours[start:stop], rankdata(-support[start:stop]))


def test_reciprocal_rank_fusion_is_the_papers_formula():
    supports = np.array([[0.7, 0.2, 0.1, 0.4, 0.6], [0.1, 0.5, 0.0, 0.9, 0.1]])
    ours = fused({"name": "rank_averaging"}, supports[..., None], np.zeros((5, 1)), CHOICE)[:, 0]
    ranks = [[1, 2, 3, 2, 1], [2, 1, None, 1, 2]]
    expected = np.array([sum(1 / (60 + r) for r in column if r) for column in zip(*ranks, strict=True)])
    np.testing.assert_allclose(ours / expected, ours[0] / expected[0])
    assert ours.max() <= 1


# -- the median ----------------------------------------------------------------------------------------


def test_the_median_of_labels_is_numpys_scaled_to_one():
    random = np.random.default_rng(0)
    scores = softmax(random.normal(size=(5, 20, 3)), axis=-1)
    middle = np.median(scores, axis=0)
    ours = fused({"name": "median"}, scores, np.zeros(20, int), THREE)
    np.testing.assert_allclose(ours, middle / middle.sum(1, keepdims=True))


def test_one_member_gone_astray_does_not_move_the_median_far():
    target, scores, references = simulated("value", 400, noise=(0.6, 0.6, 0.6, 0.6, 0.6))
    scores[0] *= 1e6
    rmse = {
        name: target.metrics(fused({"name": name}, scores, references, target), references)["rmse"]
        for name in ("median", "averaging")
    }
    assert rmse["median"] < 0.5
    assert rmse["averaging"] > 1000


def test_where_most_members_support_nothing_the_mean_decides():
    supports = [[0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.9, 0.1]]
    ours = fused({"name": "median"}, np.array(supports)[..., None], np.zeros((5, 1)), CHOICE)
    assert CHOICE.predicted(ours).tolist() == [2, 3]
    certain = [[[1.0, 0, 0]], [[0, 1.0, 0]], [[0, 0, 1.0]]]
    np.testing.assert_allclose(fused({"name": "median"}, certain, [0], THREE), [[1 / 3] * 3])


# -- beliefs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", [3, 40, 400])
@pytest.mark.parametrize("kind", ["two labels", "multi_label", "value", "choices", "spans"])
def test_the_posterior_mean_is_that_of_scipys_integral(kind: str, num_rows: int):
    """Of two members there is one weight, so that all weightings can be gone through."""
    from scipy.integrate import trapezoid

    target, scores, references = simulated(kind, num_rows, noise=(0.8, 1.0))
    weights = np.linspace(1e-6, 1 - 1e-6, 501)
    mixtures = (w * scores[0] + (1 - w) * scores[1] for w in weights)
    told = np.array([log_likelihood(mixture, references, target) for mixture in mixtures])
    density = np.exp(told - told.max())
    expected = trapezoid(weights * density, weights) / trapezoid(density, weights)
    method = fusion({"name": "bayesian_combination", "num_samples": 4000})
    found = method.fit(scores, references, target, seed=0).weights()[0]
    assert found == pytest.approx(expected, abs=0.01)


def test_without_rows_that_tell_the_members_apart_the_prior_stays():
    prior = posterior_mean(lambda weights: np.zeros(len(weights)), 4, 1.0, 2000, 0)
    np.testing.assert_allclose(prior, [0.25] * 4, atol=0.02)


def test_the_posterior_of_counts_is_the_dirichlets_own():
    """Members that are each sure of one label make the likelihood multinomial: its posterior is known."""
    counts = np.array([30, 12, 5])
    references = np.repeat([0, 1, 2], counts)
    scores = np.repeat(np.eye(3)[:, None, :], len(references), axis=1)
    weights = fusion({"name": "bayesian_combination", "num_samples": 4000}).fit(scores, references, THREE, seed=0)
    np.testing.assert_allclose(weights.weights(), (counts + 1) / (counts + 1).sum(), atol=0.01)


def test_with_more_rows_the_weights_go_to_the_optimised_ones():
    target, scores, references = simulated("five labels", 6000, noise=(0.8, 1.2, 2.0))
    believed, optimised = (
        np.array(fusion({"name": name}).fit(scores, references, target, seed=0).weights())
        for name in ("bayesian_combination", "weighted")
    )
    np.testing.assert_allclose(believed, optimised, atol=0.03)


def test_with_few_rows_the_believed_weights_are_nearer_to_equal_than_the_optimised_ones():
    spread = {"bayesian_combination": 0.0, "weighted": 0.0}
    for seed in range(10):
        target, scores, references = simulated("two labels", 20, noise=(1.0, 1.0, 1.0), seed=seed)
        for name in spread:
            weights = np.array(fusion({"name": name}).fit(scores, references, target, seed=0).weights())
            spread[name] += abs(weights - 1 / 3).sum()
    assert spread["bayesian_combination"] < 0.5 * spread["weighted"]


def test_words_of_one_text_count_once():
    """Twice the words that say the same leave the belief as it was."""
    target, scores, references = simulated("words", 60)
    layout = target.layout
    twice = np.repeat(np.arange(layout.num_units), 2)
    doubled = target.over(Layout.of(2 * layout.counts))
    one = log_likelihood(scores[0], references, target)
    assert log_likelihood(scores[0][twice], references[twice], doubled) == pytest.approx(one)


def test_the_likelihood_is_the_log_loss_of_scikit_learn():
    from sklearn.metrics import log_loss

    target, scores, references = simulated("five labels", 100)
    expected = log_loss(references, scores[0], normalize=False, labels=range(5))
    assert -log_likelihood(scores[0], references, target) == pytest.approx(expected)
    several, scores, references = simulated("multi_label", 100)
    flat = expit(np.log(scores[0] / (1 - scores[0])))
    expected = log_loss(references.ravel(), flat.ravel(), normalize=False)
    assert -log_likelihood(scores[0], references, several) == pytest.approx(expected)
    assert isinstance(several, MultiLabel)


# -- candidates ----------------------------------------------------------------------------------------


def test_a_member_that_supports_no_candidate_of_a_row_has_no_vote_there():
    supports = [[0.0, 0.0, 0.0, 0.6, 0.4], [0.1, 0.8, 0.1, 0.4, 0.6], [0.1, 0.2, 0.7, 0.3, 0.7]]
    ours = fused({"name": "voting"}, np.array(supports)[..., None], np.zeros((5, 1)), CHOICE)
    assert CHOICE.predicted(ours).tolist() == [1, 4]
    assert ours[0, 0] < 0.01


def test_candidates_weights_by_skill_take_losses_where_lower_is_better():
    target, scores, references = simulated("choices", 400)
    method = {"name": "weighted", "weights_from": "validation_scores", "metric": "lost"}
    weights = fusion(method).fit(scores, references, target, seed=0).weights()
    assert weights[0] == max(weights)
    assert weights[3] < 0.15


def test_optimised_weights_of_candidates_are_not_beaten_by_others():
    target, scores, references = simulated("spans", 400)
    combiner = fusion({"name": "weighted"}).fit(scores, references, target, seed=0)
    best = log_likelihood(apply(combiner, target, scores), references, target)
    for weights in [*np.random.default_rng(0).dirichlet(np.ones(4), 40), *np.eye(4)]:
        other = type(combiner)(combiner.kind, combiner.space, tuple(weights))
        assert log_likelihood(apply(other, target, scores), references, target) <= best + 0.5


def test_stacked_candidates_rank_by_their_quality():
    target, scores, references = simulated("choices", 800)
    combiner = fusion({"name": "stacking"}).fit(scores, references, target, seed=0)
    stacked = target.metrics(apply(combiner, target, scores), references)
    mean = target.metrics(fused({"name": "averaging"}, scores, references, target), references)
    assert stacked["quality"] >= mean["quality"]
    assert stacked["lost"] < mean["lost"]
