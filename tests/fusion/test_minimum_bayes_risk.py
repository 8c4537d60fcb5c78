"""Minimum Bayes risk against its formula, written out with sacrebleu's sentence scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sacrebleu

from ftlib.errors import UnsupportedError
from ftlib.fusion.minimum_bayes_risk import MinimumBayesRisk
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.text_metrics import Measuring
from ftlib.targets.texts import Texts, candidates

ROWS = (
    [(["two dogs run", "two cats"], [0.6, 0.3]), (["yes"], [0.9])],
    [(["two dogs ran", "dogs run"], [0.5, 0.4]), (["yes", "no"], [0.2, 0.1])],
    [(["an old house"], [0.95]), (["no"], [0.3])],
)
GOLD = ["two dogs run", "yes"]


def fitted(**settings: object) -> tuple[object, np.ndarray, object]:
    scores, layout = candidates(ROWS)
    target = Texts(measuring=Measuring("chrf")).over(layout)
    fusion = MinimumBayesRisk(**settings)  # type: ignore[arg-type]
    return fusion.fit(scores, target.encode(pa.array(GOLD)), target, seed=0), scores, layout


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
def test_the_score_is_the_expected_utility_under_the_members_mean(utility: str) -> None:
    combiner, scores, layout = fitted(utility=utility)
    found = combiner(scores, layout)[:, 0]  # type: ignore[operator]
    texts, mean = layout.units["text"].to_pylist(), scores[..., 0].mean(0)  # type: ignore[attr-defined]

    def alike(one: str, other: str) -> float:
        if utility == "chrf":
            return sacrebleu.sentence_chrf(one, [other]).score / 100
        return sacrebleu.sentence_bleu(one, [other], use_effective_order=True).score / 100

    for start, end in zip(layout.splits[:-1], layout.splits[1:], strict=True):  # type: ignore[attr-defined]
        shares = mean[start:end] / mean[start:end].sum()
        for i in range(start, end):
            expected = sum(s * alike(texts[i], other) for s, other in zip(shares, texts[start:end], strict=True))
            assert found[i] == pytest.approx(expected)


def test_the_text_in_the_middle_wins_over_the_surest_odd_one() -> None:
    combiner, scores, layout = fitted()
    target = Texts().over(layout)  # type: ignore[arg-type]
    assert target.decode(scores.mean(0))[0] == "an old house"
    assert target.decode(combiner(scores, layout))[0] == "two dogs run"  # type: ignore[operator]


def test_copies_of_one_member_and_another_order_change_nothing() -> None:
    combiner, scores, layout = fitted()
    np.testing.assert_allclose(combiner(scores[::-1], layout), combiner(scores, layout))  # type: ignore[operator]
    one = MinimumBayesRisk().fit(scores[:1], np.zeros(0), Texts().over(layout), seed=0)  # type: ignore[arg-type]
    three = MinimumBayesRisk().fit(scores[[0, 0, 0]], np.zeros(0), Texts().over(layout), seed=0)  # type: ignore[arg-type]
    np.testing.assert_allclose(three(scores[[0, 0, 0]], layout), one(scores[:1], layout))  # type: ignore[arg-type]


def test_a_better_member_counts_for_more_where_that_is_asked_for() -> None:
    combiner, _, _ = fitted(weights_from="validation_scores")
    shares = combiner.weights()  # type: ignore[attr-defined]
    assert shares[0] == max(shares)
    assert sum(shares) == pytest.approx(1)


def test_the_utility_is_the_problems_quality_unless_given() -> None:
    scores, layout = candidates(ROWS)
    target = Texts(measuring=Measuring("rougeL")).over(layout)
    references = target.encode(pa.array(GOLD))
    assert MinimumBayesRisk().fit(scores, references, target, seed=0).utility == "rougeL"
    assert MinimumBayesRisk(utility="bleu").fit(scores, references, target, seed=0).utility == "bleu"


def test_the_combiner_is_read_back_as_it_was(tmp_path: Path) -> None:
    combiner, _, _ = fitted()
    combiner.save(tmp_path)  # type: ignore[attr-defined]
    assert MinimumBayesRisk.load(tmp_path) == combiner


def test_labels_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="it cannot combine single_label"):
        MinimumBayesRisk().check(SingleLabel(("a", "b")))


def test_what_only_a_member_without_weight_says_is_never_chosen() -> None:
    from ftlib.fusion.minimum_bayes_risk import ExpectedUtility

    rows = [[(["two dogs", "a dog"], [0.6, 0.4])], [(["two dogs run", "two dogs"], [0.7, 0.3])]]
    scores, layout = candidates(rows)
    alone, known = candidates(rows[:1])
    both = ExpectedUtility("chrf", (1.0, 0.0))(scores, layout)
    one = ExpectedUtility("chrf", (1.0,))(alone, known)
    assert Texts().over(layout).ranked(both, 9) == Texts().over(known).ranked(one, 9)
