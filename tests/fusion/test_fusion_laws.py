"""Laws that hold for any scores, by Hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from simulated import fusion

from ftlib.ensembling import References, Scores, fit
from ftlib.fusion._mean import pool
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

TARGETS = {"single_label": SingleLabel(("a", "b", "c")), "multi_label": MultiLabel(("a", "b", "c")), "value": Value()}
MEANS = (
    {"name": "averaging"},
    {"name": "weighted"},
    {"name": "weighted", "weights_from": "validation_scores"},
    {"name": "voting", "voting": "soft"},
    {"name": "greedy"},
)
few = settings(max_examples=25, deadline=None)


@st.composite
def rows(draw, kind: str, num_members: int | None = None):
    """Return (scores of members, references)."""
    members, size = num_members or draw(st.integers(1, 4)), draw(st.integers(4, 12))
    if kind == "value":
        values = st.floats(-100, 100, allow_subnormal=False)
        return draw(arrays(float, (members, size, 1), elements=values)), draw(
            arrays(np.float32, size, elements=st.floats(-9, 9, width=32))
        )
    raw = draw(arrays(float, (members, size, 3), elements=st.floats(0.001, 1)))
    if kind == "multi_label":
        return np.minimum(raw, 0.999), draw(arrays(np.float32, (size, 3), elements=st.sampled_from([0.0, 1.0])))
    return raw / raw.sum(-1, keepdims=True), draw(arrays(np.int64, size, elements=st.integers(0, 2)))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", MEANS, ids=str)
@given(data=st.data(), copies=st.integers(1, 5))
@few
def test_fusing_copies_of_one_member_gives_that_member(method, kind, data, copies):
    scores, references = data.draw(rows(kind, 1))
    same = np.repeat(scores, copies, axis=0)
    fused = fusion(method).fit(same, references, TARGETS[kind], seed=0)(same)
    np.testing.assert_array_equal(fused, scores[0])


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), copies=st.integers(1, 5))
@few
def test_the_mean_of_logits_gives_copies_of_one_member_back_within_rounding(kind, data, copies):
    scores, references = data.draw(rows(kind, 1))
    same = np.repeat(scores, copies, axis=0)
    fused = fusion({"name": "averaging", "space": "logits"}).fit(same, references, TARGETS[kind], seed=0)(same)
    np.testing.assert_allclose(fused, scores[0], rtol=1e-9)


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), copies=st.integers(1, 5))
@few
def test_voting_of_copies_decides_as_the_member(kind, data, copies):
    scores, references = data.draw(rows(kind, 1))
    same = np.repeat(scores, copies, axis=0)
    fused = fusion({"name": "voting"}).fit(same, references, TARGETS[kind], seed=0)(same)
    np.testing.assert_array_equal(TARGETS[kind].predicted(fused), TARGETS[kind].predicted(scores[0]))


@pytest.mark.parametrize(
    "method", [{"name": "averaging"}, {"name": "averaging", "space": "logits"}, {"name": "voting"}], ids=str
)
@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), random=st.randoms(use_true_random=False))
@few
def test_averaging_and_voting_ignore_the_order_of_members(method, kind, data, random):
    scores, references = data.draw(rows(kind))
    order = random.sample(range(len(scores)), len(scores))
    one = fusion(method).fit(scores, references, TARGETS[kind], seed=0)(scores)
    other = fusion(method).fit(scores[order], references, TARGETS[kind], seed=0)(scores[order])
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data())
@few
def test_a_mean_lies_between_the_members(kind, data):
    scores, _ = data.draw(rows(kind))
    weights = data.draw(arrays(float, len(scores), elements=st.floats(0.01, 1)))
    fused = pool(scores, weights, kind=kind)
    assert (fused >= scores.min(0)).all()
    assert (fused <= scores.max(0)).all()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", [*MEANS, {"name": "voting"}, {"name": "averaging"}], ids=str)
@given(data=st.data())
@few
def test_weights_are_shares(method, kind, data):
    scores, references = data.draw(rows(kind))
    weights = fusion(method).fit(scores, references, TARGETS[kind], seed=0).weights()
    if weights is not None:
        assert len(weights) == len(scores)
        assert min(weights) >= 0
        assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data())
@few
def test_greedy_selection_is_never_below_the_best_member_on_its_rows(kind, data):
    from ftlib.evaluation.measures import value_of

    target = TARGETS[kind]
    scores, references = data.draw(rows(kind))
    fused = fusion({"name": "greedy"}).fit(scores, references, target, seed=0)(scores)
    alone = [value_of(target.main_metric, member, references, target) for member in scores]
    best = np.nanmax([-np.inf, *alone])
    value = value_of(target.main_metric, fused, references, target)
    assert np.isneginf(best) or value >= best - 1e-9


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), shift=st.integers(0, 2**20))
@few
def test_scores_are_fused_row_by_row_whatever_the_row_ids(kind, data, shift):
    scores, references = data.draw(rows(kind))
    ids = np.arange(scores.shape[1]) + shift
    fitted = fit(
        fusion({"name": "averaging"}),
        Scores(ids, scores),
        References(ids, references),
        validation=None,
        target=TARGETS[kind],
        seed=0,
    )
    assert fitted.validation["row_id"].to_pylist() == ids.tolist()
    fused = fitted.validation["scores"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    np.testing.assert_array_equal(fused, fitted.combiner(scores))
