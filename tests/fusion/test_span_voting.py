"""Voting on spans."""

from __future__ import annotations

import numpy as np
import pytest

from ftlib.errors import UnsupportedError
from ftlib.fusion.base import Fusion
from ftlib.fusion.span_voting import SpanVoting
from ftlib.targets.layout import Layout
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.tags import Tags

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def member(*rows: str, sure: float = 0.8) -> np.ndarray:
    """Scores of a member that tags so: "B-PER I-PER O"."""
    ids = [LABELS.index(tag) for row in rows for tag in row.split()]
    rest = (1 - sure) / (len(LABELS) - 1)
    return np.eye(len(LABELS))[ids] * (sure - rest) + rest


def target_of(*rows: str) -> Tags:
    return Tags(LABELS).over(Layout.of(np.array([len(row.split()) for row in rows])))


def voted(members: list[tuple[str, ...]], threshold: float, **sure: float) -> list[str]:
    target = target_of(*members[0])
    scores = np.stack([member(*rows, **sure) for rows in members])
    combiner = SpanVoting(threshold=threshold).fit(scores, np.zeros(scores.shape[1], int), target, seed=0)
    return [" ".join(row) for row in target.decode(combiner(scores, target.layout))]


THREE = [("B-PER I-PER O B-LOC",), ("B-PER I-PER O O",), ("B-PER O O B-LOC",)]


def test_spans_with_enough_votes_are_taken_whole():
    assert voted(THREE, 0.5) == ["B-PER I-PER O B-LOC"]
    assert voted(THREE, 1.0) == ["O O O O"]
    assert voted([("B-LOC I-LOC",), ("B-LOC O",), ("B-PER I-PER",)], 0.5) == ["O O"]


def test_of_overlapping_spans_the_one_with_more_votes_is_taken_then_the_more_probable_one():
    assert voted([*THREE, ("B-PER I-PER O O",)], 0.25) == ["B-PER I-PER O B-LOC"]
    rows = [("B-PER I-PER",), ("B-LOC O",)]
    target = target_of(*rows[0])
    scores = np.stack([member(*rows[0], sure=0.6), member(*rows[1], sure=0.95)])
    fused = SpanVoting(threshold=0.5).fit(scores, np.zeros(2, int), target, seed=0)(scores, target.layout)
    assert target.decode(fused) == [["B-LOC", "O"]]


def test_the_scores_are_the_mean_where_the_vote_agrees_with_it():
    target = target_of("B-PER I-PER O B-LOC")
    scores = np.stack([member(*rows) for rows in THREE])
    fused = SpanVoting(threshold=1.0).fit(scores, np.zeros(4, int), target, seed=0)(scores, target.layout)
    np.testing.assert_allclose(fused[2], scores.mean(0)[2])
    np.testing.assert_allclose(fused.sum(1), 1)
    assert fused[0].argmax() == 0  # three members say B-PER, but no three the same span
    assert 0.5 < fused[0, 0] < 0.6


def test_copies_of_one_member_give_its_answers():
    rows = ("B-PER I-PER O B-LOC", "O O", "B-LOC B-LOC")
    assert voted([rows, rows, rows], 0.5) == list(rows)


def simulated(num_rows: int, seed: int) -> tuple[Tags, np.ndarray, np.ndarray]:
    """Four members that often miss spans, each its own."""
    random = np.random.default_rng(seed)
    counts = random.integers(4, 12, num_rows)
    target = Tags(LABELS).over(Layout.of(counts))
    gold = np.zeros(counts.sum(), int)
    for start in target.layout.splits[:-1]:
        kind = random.integers(2)
        gold[start + 1 : start + 3] = [1 + 2 * kind, 2 + 2 * kind]
    members = []
    for _ in range(4):
        logits = 3.2 * np.eye(5)[gold] + np.array([1.6, 0, 0, 0, 0]) + 1.3 * random.normal(size=(len(gold), 5))
        members.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    return target, np.stack(members), gold


def test_the_threshold_is_the_best_one_on_the_fitting_rows_and_the_vote_beats_the_best_member():
    target, scores, gold = simulated(300, 0)
    vote = SpanVoting().fit(scores, gold, target, seed=0)
    found = {
        share: target.metrics(
            SpanVoting(threshold=share).fit(scores, gold, target, seed=0)(scores, target.layout), gold
        )
        for share in (0.25, 0.5, 0.75, 1.0)
    }
    assert vote.threshold == max(found, key=lambda share: found[share]["f1"])
    assert found[0.25]["recall"] > found[1.0]["recall"]
    assert found[0.25]["precision"] < found[1.0]["precision"]
    target, scores, gold = simulated(300, 1)
    fused = target.metrics(vote(scores, target.layout), gold)["f1"]
    assert fused > max(target.metrics(one, gold)["f1"] for one in scores)


def test_a_row_gets_the_same_scores_in_any_batch_and_a_loaded_vote_gives_them_too(tmp_path):
    target, scores, gold = simulated(40, 2)
    vote = SpanVoting().fit(scores, gold, target, seed=0)
    whole = vote(scores, target.layout)
    for rows in (np.array([0]), np.arange(7, 20)):
        units, layout = target.positions(rows), target.take(rows).layout
        np.testing.assert_array_equal(vote(scores[:, units], layout), whole[units])
    vote.save(tmp_path)
    loaded = SpanVoting.load(tmp_path)
    assert loaded == vote
    np.testing.assert_array_equal(loaded(scores, target.layout), whole)
    assert vote.weights() == [0.25] * 4


def test_what_makes_no_spans_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="span_voting cannot fuse single_label answers"):
        SpanVoting().check(SingleLabel(("a", "b")))
    with pytest.raises(UnsupportedError, match="cannot fuse plain tags"):
        SpanVoting().check(Tags(("NOUN", "VERB")))
    SpanVoting().check(Tags())


METHODS = (
    {"name": "averaging"}, {"name": "averaging", "space": "logits"}, {"name": "weighted"}, {"name": "voting"},
    {"name": "stacking"}, {"name": "greedy"}, {"name": "span_voting"},
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(method.values()))
def test_every_method_fuses_words_to_legal_tags_at_least_as_good_as_the_mean_member(method):
    target, scores, gold = simulated(200, 3)
    combiner = Fusion.model_validate(method).fit(scores, gold, target, seed=1)
    target, scores, gold = simulated(200, 4)
    fused = combiner(scores, target.layout)
    assert fused.shape == scores.shape[1:]
    found = target.metrics(fused, gold)["f1"]
    assert found > np.mean([target.metrics(one, gold)["f1"] for one in scores])
    for row in target.decode(fused):
        for before, tag in zip(["O", *row], row, strict=False):
            assert not tag.startswith("I-") or before[1:] == tag[1:]


def test_greedy_selection_of_words_is_quick():
    import time

    target, scores, gold = simulated(1000, 5)
    started = time.perf_counter()
    Fusion.named("greedy")().fit(scores, gold, target, seed=0)
    assert time.perf_counter() - started < 60  # about three seconds on a free core
