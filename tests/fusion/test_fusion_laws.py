"""Laws that hold for any scores, by Hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from simulated import KINDS, METHODS, Candidates, apply, fusion, goes, named, simulated

from ftlib.ensembling import References, Scores, fit
from ftlib.fusion._mean import pool
from ftlib.targets.layout import Layout
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

TARGETS = {
    "single_label": SingleLabel(("a", "b", "c")),
    "multi_label": MultiLabel(("a", "b", "c")),
    "value": Value(),
    "candidate": Candidates(factors=2),
}
MEANS = (
    {"name": "averaging"},
    {"name": "weighted"},
    {"name": "weighted", "weights_from": "validation_scores"},
    {"name": "voting", "voting": "soft"},
    {"name": "greedy"},
    {"name": "bayesian_combination", "num_samples": 50},
)
GIVE_THE_MEMBER = (
    {"name": "averaging", "space": "logits"},
    {"name": "rank_averaging"},
    {"name": "median"},
)
"""Within rounding."""
few = settings(max_examples=25, deadline=None)


@st.composite
def rows(draw, kind: str, num_members: int | None = None):
    """Return (target, scores of members, references)."""
    target = TARGETS[kind]
    members, size = num_members or draw(st.integers(1, 4)), draw(st.integers(4, 12))
    if kind == "value":
        values = st.floats(-100, 100, allow_subnormal=False)
        scores = draw(arrays(float, (members, size, 1), elements=values))
        return target, scores, draw(arrays(np.float32, size, elements=st.floats(-9, 9, width=32)))
    raw = draw(arrays(float, (members, size, target.num_outputs), elements=st.floats(0.001, 1)))
    if kind == "candidate":
        ends = sorted(draw(st.lists(st.integers(0, size), min_size=3, max_size=3)))
        layout = Layout.of(np.diff([0, *ends, size]))
        return target.over(layout), raw, draw(arrays(float, (size, 1), elements=st.floats(0, 1)))
    if kind == "multi_label":
        gold = draw(arrays(np.float32, (size, 3), elements=st.sampled_from([0.0, 1.0])))
        return target, np.minimum(raw, 0.999), gold
    return target, raw / raw.sum(-1, keepdims=True), draw(arrays(np.int64, size, elements=st.integers(0, 2)))


def fused(method, target, scores, references):
    return apply(fusion(method).fit(scores, references, target, seed=0), target, scores)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", MEANS, ids=str)
@given(data=st.data(), copies=st.integers(1, 5))
@few
def test_fusing_copies_of_one_member_gives_that_member(method, kind, data, copies):
    target, scores, references = data.draw(rows(kind, 1))
    same = np.repeat(scores, copies, axis=0)
    np.testing.assert_array_equal(fused(method, target, same, references), scores[0])


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", GIVE_THE_MEMBER, ids=named)
@given(data=st.data(), copies=st.integers(1, 5))
@few
def test_copies_of_one_member_are_given_back_within_rounding(method, kind, data, copies):
    if method["name"] == "rank_averaging" and kind == "candidate":
        return  # reciprocal ranks keep the order alone: see below
    target, scores, references = data.draw(rows(kind, 1))
    same = np.repeat(scores, copies, axis=0)
    np.testing.assert_allclose(fused(method, target, same, references), scores[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", [{"name": "voting"}, {"name": "rank_averaging"}], ids=named)
@given(data=st.data(), copies=st.integers(1, 5))
@few
def test_copies_of_one_member_decide_as_the_member(method, kind, data, copies):
    target, scores, references = data.draw(rows(kind, 1))
    same = np.repeat(scores, copies, axis=0)
    decided = target.predicted(fused(method, target, same, references))
    if method["name"] == "voting" or kind == "candidate":
        np.testing.assert_array_equal(decided, target.predicted(scores[0]))
    elif kind == "single_label":  # turned to ranks and back, equal scores may round apart
        np.testing.assert_allclose(np.take_along_axis(scores[0], decided[:, None], 1)[:, 0], scores[0].max(1))


ORDERLESS = (
    {"name": "averaging"},
    {"name": "averaging", "space": "logits"},
    {"name": "averaging", "calibrate": "temperature"},
    {"name": "voting"},
    {"name": "median"},
    {"name": "rank_averaging"},
    {"name": "bayesian_combination", "num_samples": 50},
)


@pytest.mark.parametrize("method", ORDERLESS, ids=named)
@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), random=st.randoms(use_true_random=False))
@few
def test_the_order_of_members_does_not_matter(method, kind, data, random):
    if not goes(method, kind):
        return
    target, scores, references = data.draw(rows(kind))
    order = random.sample(range(len(scores)), len(scores))
    one, other = fused(method, target, scores, references), fused(method, target, scores[order], references)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [m for m in METHODS if m.get("learner") != "gradient_boosting"], ids=named)
def test_the_order_of_members_hardly_matters_to_those_that_search(method, kind):
    if not goes(method, kind):
        return
    target, scores, references = simulated(kind)
    turned = scores[::-1]
    one, other = fused(method, target, scores, references), fused(method, target, turned, references)
    np.testing.assert_allclose(one, other, atol=5e-3)


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data())
@few
def test_a_mean_lies_between_the_members(kind, data):
    _, scores, _ = data.draw(rows(kind))
    weights = data.draw(arrays(float, len(scores), elements=st.floats(0.01, 1)))
    mean = pool(scores, weights, kind=kind)
    assert (mean >= scores.min(0)).all()
    assert (mean <= scores.max(0)).all()


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data())
@few
def test_candidates_labels_and_numbers_of_the_median_lie_between_the_members(kind, data):
    target, scores, references = data.draw(rows(kind))
    middle = fused({"name": "median"}, target, scores, references)
    if kind != "single_label":  # those are scaled to sum to 1
        assert (middle >= scores.min(0) - 1e-9).all()
        assert (middle <= scores.max(0) + 1e-9).all()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", [*MEANS, {"name": "voting"}, {"name": "rank_averaging"}], ids=str)
@given(data=st.data())
@few
def test_weights_are_shares(method, kind, data):
    target, scores, references = data.draw(rows(kind))
    weights = fusion(method).fit(scores, references, target, seed=0).weights()
    if weights is not None:
        assert len(weights) == len(scores)
        assert min(weights) >= 0
        assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data())
@few
def test_greedy_selection_is_never_below_the_best_member_on_its_rows(kind, data):
    from ftlib.evaluation.measures import value_of

    target, scores, references = data.draw(rows(kind))
    selected = fused({"name": "greedy"}, target, scores, references)
    alone = [value_of(target.main_metric, member, references, target) for member in scores]
    best = np.nanmax([-np.inf, *alone])
    value = value_of(target.main_metric, selected, references, target)
    assert np.isneginf(best) or value >= best - 1e-9


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), shift=st.integers(0, 2**20))
@few
def test_scores_are_fused_row_by_row_whatever_the_row_ids(kind, data, shift):
    target, scores, references = data.draw(rows(kind))
    ids = np.arange(target.num_rows(references)) + shift
    fitted = fit(
        fusion({"name": "averaging"}),
        Scores(ids, scores, target.layout),
        References(ids, references),
        validation=None,
        target=target,
        seed=0,
    )
    assert fitted.validation["row_id"].to_pylist() == ids.tolist()
    flat = fitted.validation["scores"].combine_chunks().flatten().to_numpy().reshape(scores.shape[1:])
    np.testing.assert_array_equal(flat, apply(fitted.combiner, target, scores))
