from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.data.split import Splits, Splitting, split
from ftlib.errors import DataError
from ftlib.problems.base import Problem


def ids(splits: Splits) -> dict[str, list[int]]:
    return {name: table["row_id"].to_pylist() for name, table in splits.tables.items()}


def many(count: int, labels: str = "abbc") -> tuple[list[str], list[str]]:
    return [f"text {i}" for i in range(count)], [labels[i % len(labels)] for i in range(count)]


def test_one_table_is_divided_by_label_in_its_shares(rows, problem):
    splits = split(rows(*many(1000)), problem(), Splitting(fusion_ratio=0.05), seed=1)
    assert splits.summary["rows"] == {"train": 700, "validation": 100, "fusion": 50, "test": 150}
    for counts in splits.summary["labels"].values():
        total = sum(counts.values())
        assert all(
            abs(counts[label] / total - share) < 0.02 for label, share in {"a": 0.25, "b": 0.5, "c": 0.25}.items()
        )
    assert splits.summary["stratified"] is True
    assert splits.problem.target.labels == ("a", "b", "c")
    assert splits.tables["train"].column_names == ["row_id", "text", "label"]


def test_rows_stay_in_their_order_and_every_one_is_in_one_split(rows, problem):
    table = rows(*many(200))
    splits = split(table.take(np.random.default_rng(0).permutation(200)), problem(), Splitting(), seed=3)
    assert all(found == sorted(found) for found in ids(splits).values())
    assert sorted(row for found in ids(splits).values() for row in found) == list(range(200))


def test_the_seed_decides_and_nothing_else(rows, problem):
    table = rows(*many(200))
    again = [ids(split(table, problem(), Splitting(), seed=seed)) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_given_splits_stay_and_what_is_missing_is_taken_from_train(rows, problem):
    texts, labels = many(200)
    table = rows(texts, labels, ["train"] * 150 + ["test"] * 50)
    splits = split(table, problem(), Splitting(validation_ratio=0.2), seed=1)
    assert splits.summary["rows"] == {"train": 120, "validation": 30, "test": 50}
    assert ids(splits)["test"] == list(range(150, 200))


def test_where_all_splits_are_given_nothing_moves(rows, problem):
    texts, labels = many(12, "ab")
    splits = split(rows(texts, labels, ["train", "train", "validation", "validation", "test", "test"] * 2), problem(),
                   Splitting(), seed=1)  # fmt: skip
    assert splits.summary["rows"] == {"train": 4, "validation": 4, "test": 4}
    assert splits.summary["stratified"] is False


def test_a_leaked_row_is_taken_from_the_training_side(rows, problem):
    table = rows(
        ["a", "b", "c", "d", "b", "e", "c", "b", "f"],
        ["x", "y", "x", "y", "y", "x", "x", "y", "y"],
        ["train", "train", "train", "train", "validation", "validation", "test", "test", "test"],
    )
    splits = split(table, problem(), Splitting(), seed=1)
    assert ids(splits) == {"train": [0, 3], "validation": [5], "test": [6, 7, 8]}
    assert splits.summary["leaks"] == {"train in test": 2, "validation in test": 1}
    assert splits.rejected.select(["row_id", "split", "label", "reason"]).to_pylist() == [
        {"row_id": 1, "split": "train", "label": "y", "reason": "leak: its input is in test too"},
        {"row_id": 2, "split": "train", "label": "x", "reason": "leak: its input is in test too"},
        {"row_id": 4, "split": "validation", "label": "y", "reason": "leak: its input is in test too"},
    ]


def test_equal_inputs_that_cleaning_kept_stay_together(rows, problem):
    texts = [f"text {i // 3}" for i in range(300)]
    splits = split(rows(texts, [float(i % 7) for i in range(300)]), problem("text_regression"), Splitting(), seed=1)
    where = {name: set(table["text"].to_pylist()) for name, table in splits.tables.items()}
    assert not where["train"] & where["test"]
    assert not where["train"] & where["validation"]
    assert len(splits.rejected) == 0


def test_numbers_are_divided_by_bins(rows, problem):
    values = np.random.default_rng(0).exponential(size=1000)
    splits = split(rows(many(1000)[0], values.tolist()), problem("text_regression"), Splitting(), seed=1)
    assert splits.summary["values"]["test"]["mean"] == pytest.approx(values.mean(), rel=0.1)
    assert splits.summary["labels"] == {}
    assert splits.problem == problem("text_regression")


def test_groups_never_cross_and_shares_are_met(rows, problem):
    random = np.random.default_rng(0)
    groups = [f"g{i}" for i in random.integers(0, 60, 1000)]
    texts, labels = many(1000)
    splits = split(rows(texts, labels, group=groups), problem(), Splitting(group_column="author"), seed=1)
    held = {name: set(table["group"].to_pylist()) for name, table in splits.tables.items()}
    assert not held["train"] & held["test"]
    assert not held["train"] & held["validation"]
    assert not held["validation"] & held["test"]
    assert abs(splits.summary["rows"]["test"] - 150) < 25
    shares = Counter(splits.tables["test"]["label"].to_pylist())
    assert abs(shares["b"] / splits.summary["rows"]["test"] - 0.5) < 0.1


def test_a_group_in_a_given_test_split_leaves_train(rows, problem):
    texts, labels = many(40, "ab")
    table = rows(
        texts, labels, ["train"] * 30 + ["test"] * 10, group=["g1", "g1", *(f"h{i}" for i in range(28)), *["g1"] * 10]
    )
    splits = split(table, problem(), Splitting(group_column="author"), seed=1)
    assert splits.rejected["row_id"].to_pylist() == [0, 1]
    assert splits.rejected["reason"].to_pylist() == ["leak: its group is in test too"] * 2


def test_rows_without_a_group_are_groups_of_their_own(rows, problem):
    table = rows(*many(100, "ab"), group=pa.array([None] * 90 + ["g"] * 10, pa.string()))
    splits = split(table, problem(), Splitting(group_column="author"), seed=1)
    assert sum(splits.summary["rows"].values()) == 100
    assert splits.summary["rows"]["test"] == 15


def test_groups_that_share_an_input_do_not_leak_it(rows, problem):
    texts = [f"text {i % 50}" for i in range(200)]
    labels = ["ab"[i % 2] for i in range(200)]
    table = rows(texts, labels, group=[f"g{i}" for i in range(200)])
    splits = split(table, problem(), Splitting(group_column="author"), seed=1)
    where = [set(t["text"].to_pylist()) for t in splits.tables.values()]
    assert sum(map(len, where)) == len(set.union(*where))
    assert len(splits.rejected) + sum(splits.summary["rows"].values()) == 200


def test_rare_labels_stay_in_train_and_are_told(rows, problem):
    texts, labels = many(100, "ab")
    labels[0], labels[1], labels[2] = "rare", "twice", "twice"
    splits = split(rows(texts, labels), problem(), Splitting(), seed=1)
    assert splits.summary["labels"]["train"]["rare"] == 1
    assert splits.summary["only_in_train"]["rare"] == 1
    assert set(splits.problem.target.labels) == {"a", "b", "rare", "twice"}


def test_sets_of_labels_are_divided_by_combination_and_rare_ones_by_label(rows, problem):
    random = np.random.default_rng(0)
    labels = [
        sorted(set(random.choice(list("abcdefgh"), 3, p=[0.4, 0.3, 0.1, 0.08, 0.05, 0.04, 0.02, 0.01])))
        for _ in range(1000)
    ]
    splits = split(rows(many(1000)[0], labels), problem(multi_label=True), Splitting(), seed=1)
    total = Counter(label for row in labels for label in row)
    counts = splits.summary["labels"]["test"]
    assert all(abs(counts[label] - 0.15 * n) <= max(2, 0.1 * n) for label, n in total.items())
    assert splits.summary["rows"]["test"] == pytest.approx(150, abs=8)


def test_without_stratification_rows_are_drawn_blindly(rows, problem):
    splits = split(rows(*many(400)), problem(), Splitting(stratify=False), seed=1)
    assert splits.summary["rows"] == {"train": 300, "validation": 40, "test": 60}
    assert splits.summary["stratified"] is False


def test_labels_of_the_params_keep_their_order(rows, problem):
    splits = split(rows(*many(100, "ab")), problem(labels=["b", "a"]), Splitting(), seed=1)
    assert splits.problem.target.labels == ("b", "a")


AUTHOR = {"group_column": "author"}
UNSEEN = {"splits": ["train"] * 30 + ["test"] * 10, "labels": ["a", "b"] * 19 + ["new", "a"]}
FEW = {"texts": ["a", "b", "c"], "labels": ["a", "a", "b"]}
RARE = {
    "labels": ["a", "b"] * 19 + ["a", "rare"],
    "settings": {"stratify": False, "test_ratio": 0.9, "validation_ratio": 0.05},
}
SAME = {"splits": ["train"] * 20 + ["test"] * 20, "texts": ["same a", "same b"] * 20}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": ["a"] * 40}, "train has only the label 'a'"),
        (UNSEEN, "test has a label that no row of train has: 'new'"),
        (SAME, "split 'train' is empty: each of its 20 rows"),
        ({"splits": ["test"] * 40}, "split 'train' is empty; give"),
        ({"settings": {"validation_ratio": 0.5, "test_ratio": 0.5}}, "leave nothing to train on"),
        ({"settings": AUTHOR}, "collected without it"),
        ({"settings": AUTHOR, "group": [None] * 40}, "is empty in every row"),
        ({"settings": AUTHOR, "group": ["g", "h"] * 20}, "too few different values in splitting.group_column 'author'"),
        ({"settings": AUTHOR, "group": ["g"] * 38 + ["h", "i"]}, "would be empty: the groups are too large"),
        (
            {"texts": ["a", "b"] * 20},
            "too few different inputs to be divided into train, test, validation: 2 in 40 rows",
        ),
        (FEW, "split 'test' would be empty: 3 rows are too few to take its share out of train, where one row of every"),
        (RARE, "has a label that no row of train has: 'rare'. Rows were drawn without a look at labels; set splitting"),
    ],
)
def test_what_cannot_be_split_is_answered_with_one_clear_line(rows, problem, change, said):
    texts, labels = many(40, "ab")
    others = {"group": pa.array(change["group"], pa.string())} if "group" in change else {}
    table = rows(change.get("texts", texts), change.get("labels", labels), change.get("splits"), **others)
    with pytest.raises(DataError) as caught:
        split(table, problem(), Splitting(**change.get("settings", {})), seed=1)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_all_alike_are_refused(rows, problem):
    with pytest.raises(DataError, match="every row of train has the value 3"):
        split(rows(many(40)[0], [3.0] * 40), problem("text_regression"), Splitting(), seed=1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.integers(0, 9)), min_size=30, max_size=80),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
)
def test_splits_partition_the_rows_and_share_no_input_and_no_group(drawn, grouped, stratify, seed):
    drawn = [(text, label, group) for text, label, group in drawn] + [(100 + i, "ab"[i % 2], 10 + i) for i in range(12)]
    table = pa.table(
        {
            "row_id": pa.array(range(len(drawn)), pa.int64()),
            "split": ["all"] * len(drawn),
            "text": [f"text {text}" for text, _, _ in drawn],
            "label": [label for _, label, _ in drawn],
            **({"group": [f"g{group}" for _, _, group in drawn]} if grouped else {}),
        }
    )
    settings_ = Splitting(group_column="author" if grouped else None, stratify=stratify)
    try:
        splits = split(table, Problem.model_validate("text_classification"), settings_, seed=seed)
    except DataError:  # small and unlucky draws: too few groups, or a label out of train
        return
    kept = [row for t in splits.tables.values() for row in t["row_id"].to_pylist()]
    assert sorted(kept + splits.rejected["row_id"].to_pylist()) == list(range(len(drawn)))
    for column in ("text", "group") if grouped else ("text",):
        values = [set(t[column].to_pylist()) for t in splits.tables.values()]
        assert sum(map(len, values)) == len(set.union(*values))
    train = set(splits.tables["train"]["label"].to_pylist())
    assert all(set(t["label"].to_pylist()) <= train for t in splits.tables.values())
