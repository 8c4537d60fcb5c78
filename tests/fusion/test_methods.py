"""Each fusion against the paper's or a library's own numbers."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.special import expit, softmax
from simulated import fusion, main_metric, simulated

from ftlib.evaluation.measures import value_of
from ftlib.fusion._learners import boosted, linear, ridge
from ftlib.fusion.greedy import _objective, select
from ftlib.fusion.stacking import best_f1_threshold
from ftlib.fusion.weighted import skill
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

TWO = SingleLabel(("no", "yes"))
BY_SKILL = {"name": "weighted", "weights_from": "validation_scores"}


def fused(method: dict, scores, references, target) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    return fusion(method).fit(scores, np.asarray(references), target, seed=0)(scores)


# -- averaging -----------------------------------------------------------------------------------------


def test_averaging_scores_is_the_arithmetic_mean():
    scores = [[[0.9, 0.1]], [[0.5, 0.5]]]
    np.testing.assert_allclose(fused({"name": "averaging"}, scores, [0], TWO), [[0.7, 0.3]])


def test_averaging_logits_is_the_normalised_geometric_mean():
    scores = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    geometric = np.sqrt(scores.prod(0))
    expected = geometric / geometric.sum()
    np.testing.assert_allclose(fused({"name": "averaging", "space": "logits"}, scores, [0], TWO), expected)


def test_averaging_logits_of_labels_each_on_its_own_is_the_mean_log_odds():
    target = MultiLabel(("a", "b"))
    logits = np.array([[[2.0, -1.0]], [[0.0, 3.0]]])
    result = fused({"name": "averaging", "space": "logits"}, expit(logits), np.zeros((1, 2)), target)
    np.testing.assert_allclose(result, expit(logits.mean(0)))


def test_a_member_that_rules_a_label_out_does_not_make_averaged_logits_undefined():
    result = fused({"name": "averaging", "space": "logits"}, [[[1.0, 0.0]], [[0.0, 1.0]]], [0], TWO)
    np.testing.assert_allclose(result, [[0.5, 0.5]])


# -- weighted ------------------------------------------------------------------------------------------


def test_weights_are_in_proportion_to_skill_over_a_constant_answer():
    references = np.array([0] * 6 + [1] * 4)
    right, wrong = np.eye(2)[references], np.eye(2)[1 - references]
    good = np.where(np.arange(10)[:, None] < 8, right, wrong)  # 8 of 10 right: skill (0.8 - 0.6) / 0.4
    scores = np.stack([right, good, wrong])
    weights = fusion(BY_SKILL).fit(scores, references, TWO, seed=0).weights()
    np.testing.assert_allclose(weights, [1 / 1.5, 0.5 / 1.5, 0])


def test_sharpness_moves_from_the_plain_mean_to_the_best_member():
    target, scores, references = simulated("two labels")
    flat, sharp = (
        fusion({**BY_SKILL, "sharpness": s}).fit(scores, references, target, seed=0).weights() for s in (0.0, 60.0)
    )
    np.testing.assert_allclose(flat, [0.25] * 4)
    assert sharp[0] > 0.95


def test_skill_in_a_metric_where_lower_is_better():
    references = np.array([1.0, 3.0], dtype=np.float32)
    assert skill(np.array([[1.0], [3.0]]), references, Value(), "rmse") == 1
    assert skill(np.array([[2.0], [2.0]]), references, Value(), "rmse") == 0
    assert skill(np.array([[1.5], [2.5]]), references, Value(), "rmse") == pytest.approx(0.5)


def test_members_without_skill_count_the_same_and_it_is_said(caplog):
    references = np.array([0, 1, 0, 1])
    scores = np.full((3, 4, 2), 0.5)
    with caplog.at_level(logging.WARNING):
        assert fusion(BY_SKILL).fit(scores, references, TWO, seed=0).weights() == [1 / 3] * 3
    assert "constant answer" in caplog.text


def test_optimised_weights_of_values_are_scipys_non_negative_least_squares():
    """With the weights' sum held to one by a heavy row, as is done with nnls."""
    _, scores, references = simulated("value", 500)
    weights = fusion({"name": "weighted"}).fit(scores, references, Value(), seed=0).weights()
    heavy = 1e5
    expected, _ = nnls(
        np.concatenate([scores[..., 0].T, np.full((1, len(scores)), heavy)]),
        np.append(references, np.float32(heavy)).astype(float),
    )
    np.testing.assert_allclose(weights, expected, atol=2e-3)


@pytest.mark.parametrize("space", ["scores", "logits"])
@pytest.mark.parametrize("kind", ["two labels", "five labels", "multi_label"])
def test_optimised_weights_are_not_beaten_by_others(kind: str, space: str):
    target, scores, references = simulated(kind, 400)
    combiner = fusion({"name": "weighted", "space": space}).fit(scores, references, target, seed=0)
    best = value_of("log_loss", combiner(scores), references, target)
    random = np.random.default_rng(0)
    for weights in [*random.dirichlet(np.ones(4), 40), *np.eye(4)]:
        other = type(combiner)(combiner.kind, combiner.space, tuple(weights))
        assert value_of("log_loss", other(scores), references, target) >= best - 1e-3


# -- voting --------------------------------------------------------------------------------------------


def test_hard_votes_are_shares_of_the_members_answers():
    scores = [[[0.6, 0.4]], [[0.55, 0.45]], [[0.0, 1.0]]]
    result = fused({"name": "voting"}, scores, [0], TWO)
    np.testing.assert_allclose(result, [[2 / 3, 1 / 3]], atol=1e-3)
    assert TWO.decode(result) == ["no"]
    assert TWO.decode(fused({"name": "voting", "voting": "soft"}, scores, [0], TWO)) == ["yes"]


def test_a_tie_goes_to_the_higher_mean_score():
    result = fused({"name": "voting"}, [[[0.6, 0.4]], [[0.1, 0.9]]], [0], TWO)
    assert TWO.decode(result) == ["yes"]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_a_label_needs_more_than_half_of_the_members_whatever_the_threshold(threshold: float):
    target = MultiLabel(("a", "b", "c", "d"), threshold)
    above, below = threshold + 0.1, threshold - 0.1
    far = 0.95
    scores = np.array([[[above, above, below, far]], [[above, below, below, below]], [[below, below, below, below]]])
    decided = target.predicted(fused({"name": "voting"}, scores, np.zeros((1, 4)), target))
    np.testing.assert_array_equal(decided, [[1, 0, 0, 0]])
    tied = target.predicted(fused({"name": "voting"}, scores[:2], np.zeros((1, 4)), target))
    mean_reaches = scores[:2, 0].mean(0) >= threshold - 1e-12
    assert tied[0, 0] == 1
    assert tied[0, 2] == 0
    assert bool(tied[0, 3]) == bool(mean_reaches[3])


def test_the_vote_of_values_is_their_median():
    scores = [[[1.0]], [[2.0]], [[90.0]]]
    np.testing.assert_array_equal(fused({"name": "voting"}, scores, np.array([1.0]), Value()), [[2.0]])


# -- greedy --------------------------------------------------------------------------------------------


def test_greedy_selection_adds_what_helps_most_with_replacement():
    """Members of one value each: the mean nearest to 1 is 3 x 0.8 + 1 x 1.6, found by adding, not by any pair."""
    references = np.ones(1, dtype=np.float32)
    scores = np.array([0.8, 1.6]).reshape(2, 1, 1)
    counts = select(scores, _objective("rmse", references, Value()), rounds=6)
    np.testing.assert_array_equal(counts, [3, 1])


def test_the_start_is_the_best_few_members():
    references = np.array([0.0, 1.0, 2.0], dtype=np.float32)
    off = np.array([1.0, -2.0, 1.0])
    scores = np.stack([references + off, references - off, references + 9 * off])[..., None]
    counts = select(scores, _objective("rmse", references, Value()), rounds=3)
    np.testing.assert_array_equal(counts, [1, 1, 0])


def test_greedy_leaves_a_useless_member_out():
    target, scores, references = simulated("five labels", 600, noise=(0.5, 0.5, 30.0))
    assert fusion({"name": "greedy"}).fit(scores, references, target, seed=0).weights()[2] == 0


def test_equal_members_are_told_apart_by_log_loss():
    references = np.array([0, 1])
    timid, sure = np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([[0.9, 0.1], [0.1, 0.9]])
    assert fusion({"name": "greedy"}).fit(np.stack([timid, sure]), references, TWO, seed=0).weights() == [0, 1]


def test_a_large_library_is_bagged_by_its_seed():
    target, scores, references = simulated("two labels", 300, noise=tuple(np.linspace(0.8, 3, 12)))
    one, two, plain = (
        fusion(method).fit(scores, references, target, seed=seed).weights()
        for method, seed in (({"name": "greedy"}, 1), ({"name": "greedy"}, 2), ({"name": "greedy", "bags": 1}, 1))
    )
    assert one != two
    assert np.count_nonzero(one) > np.count_nonzero(plain)


def test_greedy_can_go_by_another_metric():
    target, scores, references = simulated("five labels", 300)
    combiner = fusion({"name": "greedy", "metric": "log_loss"}).fit(scores, references, target, seed=0)
    loss = target.metrics(combiner(scores), references)["log_loss"]
    assert loss <= min(target.metrics(member, references)["log_loss"] for member in scores)


# -- stacking ------------------------------------------------------------------------------------------


def test_exported_logistic_regressions_are_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    inputs = random.normal(3, 4, (2, 200, 3))
    wanted = (inputs.sum(-1) + random.normal(0, 5, (2, 200)) > 9).astype(int)
    learner = linear(inputs, wanted, strength=0.5, seed=0)
    for i, (x, y) in enumerate(zip(inputs, wanted, strict=True)):
        scaled = (x - x.mean(0)) / x.std(0)
        expected = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(scaled, y).decision_function(scaled)
        np.testing.assert_allclose(learner.outputs(inputs)[:, i], expected, atol=1e-4)


def test_exported_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(0)
    inputs = random.normal(3, 4, (1, 80, 3))
    wanted = inputs.sum(-1) + random.normal(size=(1, 80))
    scaled = (inputs[0] - inputs[0].mean(0)) / inputs[0].std(0)
    expected = Ridge(alpha=7.0).fit(scaled, wanted[0]).predict(scaled)
    np.testing.assert_allclose(ridge(inputs, wanted, alpha=7.0).outputs(inputs)[:, 0], expected)


@pytest.mark.parametrize("regression", [True, False])
def test_exported_trees_are_scikit_learns(regression: bool):
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    from ftlib.fusion._learners import _MembersMean

    random = np.random.default_rng(0)
    inputs = random.normal(size=(1, 300, 4))
    noisy = inputs.mean(-1) + inputs[..., 0] * inputs[..., 1] + 0.3 * random.normal(size=(1, 300))
    wanted = noisy if regression else (noisy > 0).astype(int)
    settings = {"max_depth": 3, "learning_rate": 0.2, "subsample": 0.6}
    learner = boosted(inputs, wanted, num_scores=3, regression=regression, num_trees=15, seed=3, **settings)
    make = GradientBoostingRegressor if regression else GradientBoostingClassifier
    model = make(init=_MembersMean(3), n_estimators=15, min_samples_leaf=10, random_state=3, **settings).fit(
        inputs[0], wanted[0]
    )
    expected = model.predict(inputs[0]) if regression else model.decision_function(inputs[0])
    np.testing.assert_allclose(learner.outputs(inputs)[:, 0], expected, atol=1e-5)


def test_stacking_corrects_what_no_weighting_can():
    """One member has the two labels exchanged; the other knows nothing."""
    random = np.random.default_rng(0)
    references = random.integers(0, 2, 300)
    exchanged = softmax(2 * np.eye(2)[1 - references] + random.normal(size=(300, 2)), axis=-1)
    useless = softmax(random.normal(size=(300, 2)), axis=-1)
    scores = np.stack([exchanged, useless])
    for learner in ("logistic_regression", "gradient_boosting"):
        method = {"name": "stacking", "learner": learner, "num_trees": 200}
        assert main_metric(TWO, fused(method, scores, references, TWO), references) > 0.8


def test_a_label_that_never_occurs_keeps_the_members_mean_and_it_is_said(caplog):
    target, scores, references = simulated("five labels", 200)
    kept = references != 3
    with caplog.at_level(logging.WARNING):
        combiner = fusion({"name": "stacking"}).fit(scores[:, kept], references[kept], target, seed=0)
    assert "['d']" in caplog.text
    assert combiner.seen == (0, 1, 2, 4)
    np.testing.assert_allclose(combiner(scores)[:, 3], scores.mean(0)[:, 3])
    np.testing.assert_allclose(combiner(scores).sum(1), 1)


@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_a_label_that_no_row_or_every_row_has_keeps_the_members_mean(filled: float, caplog):
    target, scores, references = simulated("multi_label", 200)
    references = references.copy()
    references[:, 1] = filled
    combiner = fusion({"name": "stacking"}).fit(scores, references, target, seed=0)
    assert combiner.seen == (0, 2, 3)
    np.testing.assert_allclose(combiner(scores)[:, 1], scores.mean(0)[:, 1])


@pytest.mark.parametrize("learner", ["logistic_regression", "gradient_boosting"])
@pytest.mark.parametrize("kind", ["two labels", "five labels", "multi_label", "value", "words", "choices", "spans"])
def test_rows_that_tell_no_answer_from_another_leave_the_members_mean_and_it_is_said(
    kind: str, learner: str, caplog, tmp_path
):
    target, scores, references = simulated(kind)
    same = np.repeat(references[:1], len(references), axis=0)
    method = fusion({"name": "stacking", "learner": learner})
    with caplog.at_level(logging.WARNING):
        combiner = method.fit(scores, same, target, seed=0)
    assert "members' mean instead" in caplog.text
    combiner.save(tmp_path)
    loaded = type(method).load(tmp_path)
    assert "members' mean instead" in loaded.note
    np.testing.assert_allclose(loaded(scores, target.layout), scores.mean(0))


def test_moved_decisions_have_a_better_f1_than_calibrated_ones():
    target, scores, references = simulated("multi_label", 1000, noise=(2.0, 2.5))
    references = references * (np.random.default_rng(1).random(references.shape) < 0.5)  # rarer than they look
    best, calibrated = (
        target.metrics(fused({"name": "stacking", "decisions": d}, scores, references, target), references)
        for d in ("best_f1", "calibrated")
    )
    assert best["f1_micro"] > calibrated["f1_micro"] + 0.02
    assert calibrated["log_loss"] < best["log_loss"]


def test_the_best_threshold_is_half_the_best_expected_f1():
    """By trying every cut, on probabilities that are true."""
    random = np.random.default_rng(0)
    probabilities = random.beta(0.5, 2, (4000, 2))
    gold = random.random(probabilities.shape) < probabilities
    found = best_f1_threshold(probabilities)

    def f1(threshold: float) -> float:
        given = probabilities >= threshold
        return 2 * (given & gold).sum() / (given.sum() + gold.sum())

    assert found == pytest.approx(f1(found) / 2, abs=0.01)
    assert f1(found) >= max(f1(t) for t in np.linspace(0.05, 0.9, 60)) - 0.01


@pytest.mark.parametrize("name", ["greedy", "weighted"])
def test_an_unknown_metric_is_refused_before_any_work(name: str):
    from ftlib.errors import ParamsError

    with pytest.raises(ParamsError, match="Did you mean 'f1_macro'"):
        fusion({"name": name, "metric": "f1_makro"}).check(TWO)
    fusion({"name": name, "metric": "f1"}).check(SingleLabel())  # labels not known yet: there may be two
    fusion({"name": name}).check(Value())
