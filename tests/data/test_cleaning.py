from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.data.clean import Cleaning, clean
from ftlib.data.sources.base import UNREADABLE
from ftlib.errors import DataError
from ftlib.problems.base import Problem

EVERYTHING = {"max_rejected_ratio": 1.0}


def test_every_rejected_row_keeps_its_columns_and_has_its_first_reason(rows, problem):
    table = rows(
        ["fine", " ", None, "no label", "bilign is no label", "fine", "<p>fine</p>", "twice", "twice"],
        ["a", "a", "a", None, "bilign", "a", "a", "a", "b"],
        group=["g"] * 9,
    )
    cleaned = clean(table, problem(labels=["a", "b"]), Cleaning(**EVERYTHING))
    assert cleaned.table.to_pylist() == [{"row_id": 0, "split": "all", "text": "fine", "group": "g", "label": "a"}]
    assert dict(zip(cleaned.rejected["row_id"].to_pylist(), cleaned.rejected["reason"].to_pylist(), strict=True)) == {
        1: "empty text",
        2: "empty text",
        3: "missing label",
        4: "unknown label 'bilign'",
        5: "duplicate of row 0",
        6: "duplicate of row 0",
        7: "conflicting labels 'a', 'b'",
        8: "conflicting labels 'a', 'b'",
    }
    assert cleaned.rejected.column_names == [*table.column_names, "reason"]
    assert cleaned.rejected["text"].to_pylist()[5] == "<p>fine</p>"  # as it came


def test_the_summary_counts_by_kind_of_reason(rows, problem):
    table = rows(
        ["one  ", "<b>two</b>", "cafÃ©", "", "x", "y", "one"],
        ["a", "b", "a", "a", "xx", "yy", "a"],
        ["train", "train", "test", "test", "train", "train", "train"],
    )
    summary = clean(table, problem(labels=["a", "b"]), Cleaning(**EVERYTHING)).summary
    assert summary == {
        "read": 7,
        "kept": 3,
        "repaired": {"unicode": 1, "html": 1, "whitespace": 1},
        "rejected": {"unknown label": 2, "duplicate": 1, "empty text": 1},
        "by_split": {"train": {"read": 5, "kept": 2}, "test": {"read": 2, "kept": 1}},
    }
    assert list(summary["rejected"]) == ["unknown label", "duplicate", "empty text"]  # the most frequent first


def test_unreadable_rows_are_rejected_with_their_line(rows, problem):
    why = "unreadable row: line 3 has 1 column, expected 2"
    table = rows(["a", "b", "raw line"], ["x", "y", None]).append_column(UNREADABLE, pa.array([None, None, why]))
    cleaned = clean(table, problem(), Cleaning())
    assert cleaned.rejected["reason"].to_pylist() == [why]
    assert cleaned.summary["rejected"] == {"unreadable row": 1}
    assert UNREADABLE not in cleaned.table.column_names + cleaned.rejected.column_names


def test_short_texts_are_rejected(rows, problem):
    cleaned = clean(rows(["ab", "abc ", "abcd"], ["x", "y", "x"]), problem(), Cleaning(min_characters=3))
    assert cleaned.rejected["reason"].to_pylist() == ["short text: fewer than 3 characters"]
    assert cleaned.summary["rejected"] == {"short text": 1}


def test_each_text_of_a_pair_is_looked_at(rows, problem):
    table = rows(["a", "a", "a ", ""], ["1", "1", "1", "1"], text_pair=["b", "c", "b", "d"])
    cleaned = clean(table, problem("text_pair_classification"), Cleaning())
    assert cleaned.rejected["reason"].to_pylist() == ["duplicate of row 0", "empty text"]


def test_duplicates_are_looked_for_within_each_split_only(rows, problem):
    table = rows(["a", "a", "a", "b"], ["x", "x", "x", "y"], ["train", "test", "train", "test"])
    assert clean(table, problem(), Cleaning()).rejected["row_id"].to_pylist() == [2]


def test_duplicates_can_be_kept(rows, problem):
    assert len(clean(rows(["a", "a"], ["x", "x"]), problem(), Cleaning(drop_duplicates=False)).rejected) == 0


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("reject", [5]), ("majority", [0, 5]), ("keep", [0, 1, 3, 4, 5])],
)
def test_conflicting_labels_are_handled_as_set(rows, problem, policy, kept):
    table = rows(["a", "a", "a", "b", "b", "c"], ["x", "y", "x", "x", "y", "x"])
    cleaned = clean(table, problem(), Cleaning(conflicting_labels=policy, **EVERYTHING))
    assert cleaned.table["row_id"].to_pylist() == kept


def test_a_majority_keeps_its_duplicates_where_these_are_kept(rows, problem):
    table = rows(["a", "a", "a"], ["x", "y", "x"])
    cleaned = clean(table, problem(), Cleaning(conflicting_labels="majority", drop_duplicates=False))
    assert cleaned.table["row_id"].to_pylist() == [0, 2]


def test_numbers_do_not_conflict_but_equal_rows_are_duplicates(rows, problem):
    cleaned = clean(rows(["a", "a", "a"], [1.0, 2.0, 1.0]), problem("text_regression"), Cleaning())
    assert cleaned.table["label"].to_pylist() == [1.0, 2.0]
    assert cleaned.rejected["reason"].to_pylist() == ["duplicate of row 0"]
    assert cleaned.rejected["label"].to_pylist() == ["1"]


def test_labels_that_are_no_numbers_are_shown_and_count_as_one_kind(rows, problem):
    cleaned = clean(rows(["a", "b", "c"], ["1", "3,8", "five"]), problem("text_regression"), Cleaning(**EVERYTHING))
    assert cleaned.rejected["reason"].to_pylist() == ["label is not a number: '3,8'", "label is not a number: 'five'"]
    assert cleaned.summary["rejected"] == {"label is not a number": 2}


def test_sets_of_labels_are_equal_in_any_order(rows, problem):
    table = rows(["a", "a", "b", "b", "c"], [["x", "y"], ["y", "x"], ["x"], ["y"], []])
    cleaned = clean(table, problem(multi_label=True), Cleaning(**EVERYTHING))
    assert cleaned.table["label"].to_pylist() == [["x", "y"], []]
    assert cleaned.rejected["reason"].to_pylist() == ["duplicate of row 0"] + ["conflicting labels 'x', 'y'"] * 2
    assert cleaned.rejected["label"].to_pylist() == ["y, x", "x", "y"]


def test_too_many_rejected_rows_stop_the_run_with_the_counts(rows, problem):
    table = rows(["a", "b", "", ""], ["x", "bad", "x", "x"])
    with pytest.raises(
        DataError, match=r"3 of 4 rows are rejected \(2 empty text, 1 unknown label\).*'bad'.*allow more"
    ):
        clean(table, problem(labels=["x", "y"]), Cleaning())
    assert len(clean(table, problem(labels=["x", "y"]), Cleaning(max_rejected_ratio=0.75)).table) == 1


def test_a_split_of_which_nothing_is_left_is_named(rows, problem):
    table = rows(["a", "b", "c", "d"], ["x", "y", "x", None], ["train", "train", "train", "test"])
    with pytest.raises(DataError, match=r"split 'test': none of its 1 rows.*missing label.*data\.sources\.test"):
        clean(table, problem(), Cleaning())


def test_lists_in_place_of_texts_are_refused(rows, problem):
    table = rows(["a"], ["x"]).set_column(2, "text", pa.array([["a", "b"]]))
    with pytest.raises(DataError, match=r"the column for text is of type list.*expected text"):
        clean(table, problem(), Cleaning())


def test_numbers_in_place_of_texts_are_read_as_such(rows, problem):
    table = rows(["a", "b"], ["x", "y"]).set_column(2, "text", pa.array([1, 2]))
    assert clean(table, problem(), Cleaning()).table["text"].to_pylist() == ["1", "2"]


def test_cleaning_what_is_clean_changes_nothing(rows, problem):
    table = rows(["a", "b"], ["x", "y"])
    once = clean(table, problem(), Cleaning()).table
    assert clean(once, problem(), Cleaning()).table == once == table


texts = st.sampled_from(["a", " a", "b", "<p>b</p>", "", " ", "c", "donâ€™t", "\x00"]) | st.none()
labels = st.sampled_from(["x", "y", "z", "", "unknown"]) | st.none()
splits = st.sampled_from(["train", "test"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(texts, labels, splits), max_size=12),
    st.booleans(),
    st.sampled_from(["reject", "majority", "keep"]),
)
def test_kept_and_rejected_are_what_was_read(drawn, drop, policy):
    drawn = [*drawn, ("kept", "x", "train"), ("kept", "x", "test")]
    columns = list(zip(*drawn, strict=True))
    table = pa.table(
        {
            "row_id": pa.array(range(len(drawn)), pa.int64()),
            "split": columns[2],
            "text": pa.array(columns[0], pa.string()),
            "label": pa.array(columns[1], pa.string()),
        }
    )
    problem = Problem.model_validate({"name": "text_classification", "labels": ["x", "y", "z"]})
    cleaned = clean(table, problem, Cleaning(drop_duplicates=drop, conflicting_labels=policy, max_rejected_ratio=1.0))
    ids = cleaned.table["row_id"].to_pylist() + cleaned.rejected["row_id"].to_pylist()
    assert sorted(ids) == list(range(len(drawn)))
    assert cleaned.summary["kept"] + sum(cleaned.summary["rejected"].values()) == cleaned.summary["read"] == len(drawn)
    assert cleaned.rejected["reason"].null_count == 0
    seen = [(r["split"], r["text"], r["label"]) for r in cleaned.table.to_pylist()]
    assert not drop or len(set(seen)) == len(seen)
    assert policy == "keep" or len({s[:2] for s in seen}) == len(set(seen))
