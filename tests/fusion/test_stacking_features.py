"""What a stack is told of candidates, against the words of each feature, and what it learns of that."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sacrebleu
from scipy.optimize import approx_fprime
from scipy.stats import rankdata
from simulated import Candidates, apply, fusion, main_metric, simulated, some

from ftlib.ensembling import References, Scores, fit
from ftlib.fusion._learners import _choice_loss, choosing
from ftlib.fusion._stacked import Stacked
from ftlib.targets.candidate_features import FEATURES, describe
from ftlib.targets.choice import Choice
from ftlib.targets.layout import Layout
from ftlib.targets.span import Span
from ftlib.targets.text_metrics import Measuring
from ftlib.targets.texts import Texts, candidates

ROWS = (
    [(["two dogs run", "two cats"], [0.6, 0.3]), ([""], [0.9]), (["a", "b"], [0.0, 0.0])],
    [(["two dogs ran", "two cats"], [0.5, 0.4]), (["yes", "no"], [0.2, 0.1]), (["a"], [0.0])],
    [(["an old house"], [0.95]), (["no"], [0.3]), (["c"], [0.0])],
)
"""Three members' texts and their support, row by row; nobody supports anything in the last row."""

SPANS = pa.table({"start": [0, 0, 6, -1, 3, 20], "end": [5, 9, 9, -1, 7, 22], "text": ["a"] * 3 + [""] + ["b"] * 2})
SPAN_LAYOUT = Layout.of(np.array([4, 2]), SPANS)


def feature(name: str) -> tuple[np.ndarray, np.ndarray, Layout]:
    scores, layout = candidates(ROWS)
    return describe((name,), scores, layout)[:, 0], scores[..., 0], layout


def rows(layout: Layout) -> list[slice]:
    return [slice(a, b) for a, b in zip(layout.splits[:-1], layout.splits[1:], strict=True)]


# -- features ------------------------------------------------------------------------------------------


def test_the_mixture_is_the_share_in_the_mean_support():
    found, support, layout = feature("mixture")
    for row in rows(layout)[:2]:
        np.testing.assert_allclose(np.exp(found[row]), support[:, row].mean(0) / support[:, row].mean(0).sum())
    np.testing.assert_allclose(found[rows(layout)[2]], math.log(1e-6))


def test_the_mixture_of_two_factors_is_what_averaging_ranks_by():
    scores = np.random.default_rng(0).random((3, 6, 2))
    found = describe(("mixture",), scores, SPAN_LAYOUT)[:, 0]
    mean = scores.mean(0).prod(-1)
    for row in rows(SPAN_LAYOUT):
        np.testing.assert_allclose(np.exp(found[row]), mean[row] / mean[row].sum())


def test_the_rank_is_the_mean_reciprocal_one_where_equals_share_the_better():
    found, support, layout = feature("rank")
    for row in rows(layout):
        ranks = np.stack([rankdata(-member[row], method="min") for member in support])
        np.testing.assert_allclose(found[row], np.where(support[:, row] > 0, 1 / ranks, 0).mean(0))


def test_proposals_and_votes_are_shares_of_members():
    proposals, _, layout = feature("proposals")
    votes, _, _ = feature("votes")
    told = {
        text: (round(3 * p), round(3 * v))
        for text, p, v in zip(layout.units["text"].to_pylist(), proposals, votes, strict=True)
    }
    assert told["two cats"] == (2, 0)
    assert told["two dogs run"] == told["two dogs ran"] == told["an old house"] == (1, 1)
    assert told["no"] == (2, 1)
    assert told["a"] == told["c"] == (0, 0)


def test_the_length_is_that_against_the_rows_mean_and_an_empty_text_has_one():
    found, _, layout = feature("length")
    texts = np.array(layout.units["text"].to_pylist(), object)
    for row in rows(layout):
        lengths = np.array([1 + len(text) for text in texts[row]])
        np.testing.assert_allclose(found[row], np.log(lengths / lengths.mean()))
    np.testing.assert_array_equal(feature("empty")[0], [text == "" for text in texts])


def test_likeness_is_sacrebleus_expected_chrf():
    found, support, layout = feature("likeness:chrf")
    texts = layout.units["text"].to_pylist()
    for row in rows(layout)[:1]:
        shares = support[:, row].mean(0) / support[:, row].mean(0).sum()
        for i, text in enumerate(texts[row]):
            alike = [sacrebleu.sentence_chrf(text, [other]).score / 100 for other in texts[row]]
            assert found[row][i] == pytest.approx(shares @ alike)
    assert np.isfinite(found).all()


def test_overlap_is_the_expected_f1_of_characters():
    scores = np.random.default_rng(1).random((2, 6, 2))
    found = describe(("overlap",), scores, SPAN_LAYOUT)[:, 0]
    mean = scores.mean(0).prod(-1)
    places = [
        set(range(s, e)) or {"none"} for s, e in zip(*(SPANS[n].to_pylist() for n in ("start", "end")), strict=True)
    ]
    for row in rows(SPAN_LAYOUT):
        shares = mean[row] / mean[row].sum()
        for i, place in enumerate(places[row]):
            f1 = [2 * len(place & other) / (len(place) + len(other)) for other in places[row]]
            assert found[row][i] == pytest.approx(shares @ f1)


@pytest.mark.parametrize("target", [Texts(measuring=Measuring("rougeL")), Span(no_answer=True), Choice()], ids=str)
def test_targets_name_features_that_there_are_and_rows_are_described_alike_in_any_batch(target):
    assert {name.partition(":")[0] for name in target.candidate_features} <= {*FEATURES, "likeness"}
    scores = np.random.default_rng(2).random((3, 6, target.num_outputs))
    whole = describe(target.candidate_features, scores, SPAN_LAYOUT)
    part = describe(target.candidate_features, scores[:, 4:], SPAN_LAYOUT.take(np.array([1])))
    np.testing.assert_array_equal(part, whole[4:])


# -- the learner ---------------------------------------------------------------------------------------


def choices(num_rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Layout]:
    """Return (inputs, quality, layout): one right candidate a row, drawn from a softmax with known coefficients."""
    random = np.random.default_rng(seed)
    layout = Layout.of(random.integers(2, 6, num_rows))
    inputs = random.normal(size=(layout.num_units, 3)) * [1, 10, 0.1]
    noisy = inputs @ [1.5, -0.2, 0.0] + random.gumbel(size=layout.num_units)
    quality = np.zeros(layout.num_units)
    quality[layout.best(noisy)] = 1
    return inputs, quality, layout


def test_the_slope_is_that_of_the_likelihood_written_out():
    inputs, quality, layout = choices(20)
    quality = np.random.default_rng(1).random(len(quality)) * (np.arange(len(quality)) > 6)  # the first rows: all bad

    def loss(coefficients):
        total = 0.0
        for row in rows(layout):
            odds = np.exp(inputs[row] @ coefficients)
            if quality[row].any():
                total -= math.log((odds / odds.sum()) @ quality[row])
        return total

    at = np.array([0.3, -0.1, 2.0])
    value, slope = _choice_loss(at, inputs, quality, layout)
    assert value == pytest.approx(loss(at))
    np.testing.assert_allclose(slope, approx_fprime(at, loss, 1e-6), atol=1e-3)


def test_the_coefficients_by_which_candidates_were_chosen_are_found():
    inputs, quality, layout = choices(3000)
    learner = choosing(inputs, quality, layout, strength=1e4, seed=0)
    np.testing.assert_allclose(learner.coefficients[0] / [1, 0.1, 10], [1.5, -2.0, 0.0], atol=0.2)


def test_of_pairs_it_is_scikit_learns_logistic_regression_of_their_difference():
    """With two candidates a row, one of them right, the conditional logit is a logit of the difference."""
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    inputs, layout = random.normal(size=(400, 3)), Layout.of(np.full(200, 2))
    right = (inputs[::2] - inputs[1::2]) @ [1.0, -0.5, 0.2] + random.logistic(size=200) > 0
    quality = np.stack([right, ~right], axis=1).ravel().astype(float)
    spread = inputs.std(0)
    difference = (inputs[::2] - inputs[1::2]) / spread
    expected = LogisticRegression(C=0.3, fit_intercept=False, tol=1e-10).fit(difference, right).coef_ / spread
    found = choosing(inputs, quality, layout, strength=0.3, seed=0).coefficients
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_all_candidates_of_a_row_share_changes_nothing():
    inputs, quality, layout = choices()
    shifted = inputs + np.random.default_rng(1).normal(size=(layout.num_rows, 3))[layout.row_of] * inputs.std(0)
    one, other = (choosing(x, quality, layout, strength=1e4, seed=0).coefficients for x in (inputs, shifted))
    np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)


# -- the stack -----------------------------------------------------------------------------------------


def texts(num_rows: int = 240, seed: int = 0):
    """Return (target, scores, references): a member's surest text is odd; the good ones are alike."""
    random = np.random.default_rng(seed)
    words = ["the", "old", "house", "stands", "by", "a", "long", "river", "under", "tall", "green", "trees"]
    members, gold = ([], [], []), []
    for _ in range(num_rows):
        said = list(random.choice(words, 6))
        gold.append(" ".join(said))
        for member in members:
            near = [" ".join(word if random.random() < 0.8 else "x" for word in said) for _ in range(2)]
            far = " ".join(random.choice(list("qzjkvw"), 6))
            given = dict(zip([*near, far], random.dirichlet([1, 1, 2]).tolist(), strict=True))
            member.append((list(given), list(given.values())))
    scores, layout = candidates(members)
    target = Texts().over(layout)
    return target, scores, target.encode(pa.array(gold))


def test_likeness_finds_the_good_texts_that_support_alone_cannot():
    target, scores, references = texts()
    known, known_scores, known_references = some(target, scores, references, np.arange(120))
    rest, rest_scores, rest_references = some(target, scores, references, np.arange(120, 240))
    stack = fusion({"name": "stacking"})
    told = stack.fit(known_scores, known_references, known, seed=0)
    assert told.described == target.candidate_features
    alone = Candidates().over(known.layout)  # names no features
    untold = stack.fit(known_scores, known_references, alone, seed=0)
    assert untold.described == ()
    found = {
        n: main_metric(rest, apply(c, rest, rest_scores), rest_references) for n, c in (("told", told), ("not", untold))
    }
    best = max(main_metric(rest, member, rest_references) for member in rest_scores)
    assert found["told"] > max(found["not"], best) + 5


@pytest.mark.parametrize("learner", ["logistic_regression", "gradient_boosting"])
def test_a_loaded_stack_is_told_the_same(learner: str, tmp_path: Path):
    target, scores, references = texts(60)
    combiner = fusion({"name": "stacking", "learner": learner, "num_trees": 5}).fit(scores, references, target, seed=0)
    combiner.save(tmp_path)
    loaded = Stacked.load(tmp_path)
    assert loaded.described == target.candidate_features
    np.testing.assert_array_equal(apply(loaded, target, scores), apply(combiner, target, scores))
    whole = apply(combiner, target, scores)
    part, given, _ = some(target, scores, references, np.arange(7, 9))
    np.testing.assert_array_equal(apply(combiner, part, given), whole[target.positions(np.arange(7, 9))])


def test_stacked_choices_are_as_probable_as_they_are_right():
    target, scores, references = simulated("choices", 1000)
    known, known_scores, known_references = some(target, scores, references, np.arange(500))
    rest, rest_scores, rest_references = some(target, scores, references, np.arange(500, 1000))
    fused = apply(fusion({"name": "stacking"}).fit(known_scores, known_references, known, seed=0), rest, rest_scores)
    np.testing.assert_allclose(rest.layout.sums(fused[:, 0]), 1)
    best = rest.predicted(fused)
    assert fused[best, 0].mean() == pytest.approx(rest_references[best, 0].mean(), abs=0.05)


# -- nothing to learn ----------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["logistic_regression", "gradient_boosting"])
def test_candidates_as_good_as_their_neighbours_leave_the_mean_though_rows_differ(learner: str, caplog):
    target, scores, references = simulated("spans", 60)
    references = references.copy()
    references[:, 0] = (target.layout.row_of % 3) / 3
    with caplog.at_level(logging.WARNING):
        combiner = fusion({"name": "stacking", "learner": learner}).fit(scores, references, target, seed=0)
    assert "60 fitting rows tell no answer from another" in caplog.text
    np.testing.assert_allclose(apply(combiner, target, scores), scores.mean(0))


def test_rows_without_any_candidate_leave_the_mean():
    target, scores, references = simulated("spans", 30)
    nothing, none, nobody = some(target, scores, references, np.flatnonzero(target.layout.counts == 0))
    combiner = fusion({"name": "stacking"}).fit(none, nobody, nothing, seed=0)
    np.testing.assert_allclose(apply(combiner, target, scores), scores.mean(0))


@pytest.mark.parametrize("kind", ["choices", "spans", "two labels", "multi_label"])
def test_a_run_in_which_nothing_can_be_learned_ends_with_the_mean_in_every_fold(kind: str):
    target, scores, references = simulated(kind, 40)
    references = np.zeros_like(references)
    ids = np.arange(40)
    found = fit(
        fusion({"name": "stacking"}),
        Scores(ids, scores, target.layout),
        References(ids, references),
        validation=None,
        target=target,
        seed=0,
    )
    assert "members' mean" in found.combiner.note
    fused = found.validation["scores"].combine_chunks().flatten().to_numpy()
    np.testing.assert_allclose(fused.reshape(scores.shape[1:]), scores.mean(0))


def test_a_label_that_is_missing_is_in_the_figures(tmp_path: Path):
    target, scores, references = simulated("five labels", 200)
    kept = references != 3
    combiner = fusion({"name": "stacking"}).fit(scores[:, kept], references[kept], target, seed=0)
    combiner.save(tmp_path)
    assert "['d'] cannot be learned" in Stacked.load(tmp_path).note
    assert not fusion({"name": "stacking"}).fit(scores, references, target, seed=0).note
