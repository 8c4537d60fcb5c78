"""Reading members' predictions alike, and cross-fitting."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import KINDS, fusion, simulated

from ftlib.crossfitting import deal_folds
from ftlib.ensembling import (
    References,
    Scores,
    fit,
    read_rows,
    read_scores,
    read_scores_table,
    scores_table,
)
from ftlib.errors import ArtifactError, DataError, UnsupportedError
from ftlib.files import write_table
from ftlib.fusion._mean import WeightedMean
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.targets.layout import Layout
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.value import Value

PROBLEM = Problem.model_validate({"name": "text_classification", "labels": ["no", "yes"]})


class Watcher(Fusion):
    """Remembers which rows it was fitted on: the first member's first score names the row."""

    seen: ClassVar[list[set[int]]] = []

    def check(self, target):
        if target.labels == ("refused", "labels"):
            raise UnsupportedError("watcher cannot combine these.")

    def fit(self, scores, references, target, *, seed):
        fitted_on = frozenset(scores[0, :, 0].tolist())
        Watcher.seen.append(set(fitted_on))
        return _NotAmong(fitted_on)


class _NotAmong:
    def __init__(self, rows):
        self.rows = rows

    def __call__(self, scores, layout=None):
        return np.array([[float(row in self.rows)] for row in scores[0, :, 0]])


def rows_of(row_ids) -> pa.Table:
    return pa.table({"row_id": pa.array(row_ids, pa.int64()), "text": [f"text {i}" for i in row_ids]})


def written(folder: Path, row_ids, logits) -> Path:
    folder.mkdir(parents=True)
    flat = pa.array(np.asarray(logits, dtype=np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, np.shape(logits)[1])
    write_table(folder / "predictions.parquet", pa.table({"row_id": pa.array(row_ids, pa.int64()), "logits": column}))
    return folder


# -- reading -------------------------------------------------------------------------------------------


def test_members_are_aligned_by_row_id(tmp_path):
    one = written(tmp_path / "one", [7, 3, 5], [[0, 7], [0, 3], [0, 5]])
    two = written(tmp_path / "two", [3, 5, 7], [[0, 3], [0, 5], [0, 7]])
    scores = read_scores([one, two], rows_of([7, 3, 5]), PROBLEM)
    assert scores.row_ids.tolist() == [7, 3, 5]
    np.testing.assert_array_equal(scores.values[0], scores.values[1])
    np.testing.assert_allclose(scores.values.sum(-1), 1)


@pytest.mark.parametrize(
    ("row_ids", "complaint"),
    [
        ([3, 5], "1 missing.*row_id 7"),
        ([3, 5, 7, 9], "1 too many.*row_id 9"),
        ([3, 5, 5], "row_id 5 is there more than once"),
    ],
)
def test_other_rows_are_an_error_that_names_one(row_ids, complaint, tmp_path):
    one = written(tmp_path / "one", [3, 5, 7], np.zeros((3, 2)))
    two = written(tmp_path / "two", row_ids, np.zeros((len(row_ids), 2)))
    with pytest.raises(ArtifactError, match=complaint):
        read_scores([one, two], rows_of([3, 5, 7]), PROBLEM)


def test_other_outputs_are_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="3 logits a row; expected 2"):
        read_scores([written(tmp_path / "one", [1], np.zeros((1, 3)))], rows_of([1]), PROBLEM)


def test_logits_that_are_not_finite_are_an_error_that_says_what_happened(tmp_path):
    with pytest.raises(ArtifactError, match=r"1 of 2 rows.*diverged.*learning_rate"):
        read_scores([written(tmp_path / "one", [1, 2], [[0, 1], [np.nan, 0]])], rows_of([1, 2]), PROBLEM)


def test_missing_predictions_are_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"predictions\.parquet is missing"):
        read_scores([tmp_path], rows_of([1]), PROBLEM)
    with pytest.raises(ArtifactError, match="at least one"):
        read_scores([], rows_of([1]), PROBLEM)
    with pytest.raises(ArtifactError, match=r"test\.parquet is missing"):
        read_rows(tmp_path / "test.parquet")
    with pytest.raises(ArtifactError, match=r"validation\.parquet is missing"):
        read_scores_table(tmp_path / "validation.parquet", Scores(np.arange(2), np.zeros((1, 2, 3))))


def test_references_are_encoded_as_the_target_says(tmp_path):
    write_table(tmp_path / "test.parquet", pa.table({"row_id": [4, 2], "text": ["a", "b"], "label": ["yes", "no"]}))
    rows = read_rows(tmp_path / "test.parquet")
    assert rows["row_id"].to_pylist() == [4, 2]
    assert PROBLEM.references(rows, None).tolist() == [1, 0]


def test_a_split_without_rows_is_refused(tmp_path):
    empty = pa.table({"row_id": pa.array([], pa.int64()), "label": pa.array([], pa.string())})
    write_table(tmp_path / "fusion.parquet", empty)
    with pytest.raises(DataError, match="'fusion' has no rows"):
        read_rows(tmp_path / "fusion.parquet")


@pytest.mark.parametrize("layout", [None, Layout.of(np.array([2, 0, 3, 0]))])
def test_scores_survive_writing_and_reading_in_any_order(layout, tmp_path):
    num_rows = layout.num_rows if layout else 5
    scores = np.random.default_rng(0).random((5, 3))
    write_table(tmp_path / "validation.parquet", scores_table(np.arange(num_rows), scores, layout))
    like = Scores(np.arange(num_rows), scores[None], layout)
    np.testing.assert_array_equal(read_scores_table(tmp_path / "validation.parquet", like), scores)
    order = np.arange(num_rows)[::-1]
    turned = layout.positions(order) if layout else order
    like = Scores(order, scores[None], layout)
    np.testing.assert_array_equal(read_scores_table(tmp_path / "validation.parquet", like), scores[turned])


def test_scores_of_other_units_are_refused(tmp_path):
    write_table(tmp_path / "validation.parquet", scores_table(np.arange(2), np.zeros((2, 3)), None))
    with pytest.raises(ArtifactError, match=r"holds 6 scores; expected 12"):
        read_scores_table(tmp_path / "validation.parquet", Scores(np.arange(2), np.zeros((1, 4, 3))))


# -- folds ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_folds_spread_every_label_as_evenly_as_can_be(labels, num_folds, seed):
    references = np.array(labels)
    folds = deal_folds(references, num_folds, seed=seed)
    sizes = np.bincount(folds, minlength=num_folds)
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        counts = np.bincount(folds[references == label], minlength=num_folds)
        assert counts.max() - counts.min() <= 1


def test_folds_of_values_and_of_sets_are_balanced():
    random = np.random.default_rng(0)
    values = random.normal(size=100).astype(np.float32)
    folds = deal_folds(Value().strata(values, 5), 5, seed=0)
    means = [values[folds == fold].mean() for fold in range(5)]
    assert np.ptp(means) < 0.3
    sets = (random.random((100, 3)) < [0.5, 0.3, 0.05]).astype(np.float32)
    folds = deal_folds(MultiLabel(("a", "b", "c")).strata(sets, 5), 5, seed=0)
    rare = Counter(folds[sets[:, 2] > 0])
    assert max(rare.values()) - min(rare.values()) <= 1


def test_folds_follow_the_seed_and_nothing_else():
    labels = np.arange(60) % 3
    np.testing.assert_array_equal(deal_folds(labels, 5, seed=1), deal_folds(labels, 5, seed=1))
    assert (deal_folds(labels, 5, seed=1) != deal_folds(labels, 5, seed=2)).any()


# -- fitting -------------------------------------------------------------------------------------------


def watched(kind: str, num_rows: int, **settings):
    target, scores, references = simulated(kind, num_rows)
    scores = scores.copy()
    scores[0, :, 0] = np.repeat(np.arange(num_rows), target.layout.counts) if target.layout else np.arange(num_rows)
    Watcher.seen.clear()
    ids = np.arange(num_rows)
    given, gold = Scores(ids, scores, target.layout), References(ids, references)
    return fit(Watcher(), given, gold, target=target, seed=0, **settings), target


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_rows", [2, 3, 17, 60])
def test_no_row_is_scored_by_what_was_fitted_on_it(kind: str, num_rows: int):
    fitted, target = watched(kind, num_rows, validation=None)
    assert not fitted.validation["scores"].combine_chunks().flatten().to_numpy().any()
    has_units = target.layout.counts > 0 if target.layout else np.ones(num_rows, bool)
    everything = set(np.flatnonzero(has_units).astype(float))
    assert Watcher.seen[0] == everything
    assert len(Watcher.seen) == 1 + min(5, num_rows)
    assert set.union(*(everything - rows for rows in Watcher.seen[1:])) == everything


def test_the_combiner_that_is_kept_saw_every_row():
    target, scores, references = simulated("five labels")
    ids = np.arange(len(references))
    plugin = fusion({"name": "stacking"})
    fitted = fit(plugin, Scores(ids, scores), References(ids, references), validation=None, target=target, seed=5)
    expected = plugin.fit(scores, references, target, seed=5)
    np.testing.assert_array_equal(fitted.combiner(scores), expected(scores))


def test_with_a_split_to_fit_on_validation_is_only_scored():
    target, scores, references = simulated("two labels", 60)
    ids = np.arange(60)
    given = Scores(ids[40:], scores[:, 40:])
    Watcher.seen.clear()
    fitted = fit(
        Watcher(),
        Scores(ids[:40], scores[:, :40]),
        References(ids[:40], references[:40]),
        validation=given,
        target=target,
        seed=0,
    )
    assert len(Watcher.seen) == 1
    assert fitted.validation["row_id"].to_pylist() == ids[40:].tolist()


def test_out_of_fold_scores_are_the_same_for_the_same_seed():
    target, scores, references = simulated("multi_label")
    ids = np.arange(len(references))
    one, two = (
        fit(
            fusion({"name": "stacking"}),
            Scores(ids, scores),
            References(ids, references),
            validation=None,
            target=target,
            seed=3,
        )
        for _ in range(2)
    )
    assert one.validation.equals(two.validation)


def test_out_of_fold_scores_are_honest_where_members_know_nothing():
    """A stack overfits noise on the rows it sees; cross-fitted, it is as bad as it is."""
    random = np.random.default_rng(0)
    target, scores, _ = simulated("two labels", 100, noise=(9.0,) * 4)
    references = random.integers(0, 2, 100)
    plugin = fusion({"name": "stacking", "learner": "gradient_boosting", "max_depth": 6, "num_trees": 60})
    ids = np.arange(100)
    fitted = fit(plugin, Scores(ids, scores), References(ids, references), validation=None, target=target, seed=0)
    honest = np.array(fitted.validation["scores"].to_pylist())
    assert target.metrics(fitted.combiner(scores), references)["accuracy"] > 0.75
    assert target.metrics(honest, references)["accuracy"] < 0.65


def test_a_fold_that_cannot_be_fitted_is_scored_by_the_mean_and_it_is_said(caplog):
    target, scores, references = simulated("two labels", 12)
    references = np.array([1] + [0] * 11)
    ids = np.arange(12)
    with caplog.at_level(logging.WARNING):
        fitted = fit(
            fusion({"name": "stacking"}),
            Scores(ids, scores),
            References(ids, references),
            validation=None,
            target=target,
            seed=0,
        )
    assert "members' mean instead" in caplog.text
    assert np.isfinite(fitted.validation["scores"].combine_chunks().flatten().to_numpy()).all()


def test_one_row_is_too_few():
    target, scores, references = simulated("two labels", 1)
    ids = np.arange(1)
    with pytest.raises(DataError, match="1 row to fit on"):
        fit(
            fusion({"name": "averaging"}),
            Scores(ids, scores),
            References(ids, references),
            validation=None,
            target=target,
            seed=0,
        )


def test_gold_answers_of_other_rows_are_refused():
    target, scores, references = simulated("two labels", 4)
    with pytest.raises(ArtifactError, match="gold answers"):
        fit(
            fusion({"name": "averaging"}),
            Scores(np.arange(4), scores),
            References(np.arange(1, 5), references),
            validation=None,
            target=target,
            seed=0,
        )


def test_a_fusion_that_refuses_the_target_does_so_before_fitting():
    from ftlib.targets.single_label import SingleLabel

    Watcher.seen.clear()
    with pytest.raises(UnsupportedError):
        fit(
            Watcher(),
            Scores(np.arange(4), np.full((1, 4, 2), 0.5)),
            References(np.arange(4), np.zeros(4, int)),
            validation=None,
            target=SingleLabel(("refused", "labels")),
            seed=0,
        )
    assert Watcher.seen == []


def test_the_plain_mean_is_a_value_that_compares_equal():
    assert WeightedMean("value", "scores", (0.5, 0.5)) == WeightedMean("value", "scores", (0.5, 0.5))
