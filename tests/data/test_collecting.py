from __future__ import annotations

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from ftlib.data.collect import check_columns, collect, fingerprint
from ftlib.data.sources.base import UNREADABLE, Source
from ftlib.errors import DataError
from ftlib.problems.base import Problem

COLUMNS = {"text": "text", "label": "label"}


def sources(**paths: str) -> dict[str, Source]:
    return {split: Source.model_validate(path) for split, path in paths.items()}


def test_rows_are_numbered_over_the_splits_in_a_fixed_order(write):
    train, test = write("train.csv", "text,label\na,1\nb,2\n"), write("test.jsonl", '{"text": "c", "label": "1"}\n')
    forth, back = collect(sources(train=train, test=test), COLUMNS), collect(sources(test=test, train=train), COLUMNS)
    assert forth.table == back.table
    assert forth.table.to_pydict() == {
        "row_id": [0, 1, 2],
        "split": ["train", "train", "test"],
        "text": ["a", "b", "c"],
        "label": ["1", "2", "1"],
    }
    assert forth.summary == {"rows": {"train": 2, "test": 1}, "columns": ["text", "label"]}


def test_types_that_differ_between_sources_meet(write):
    whole = write("a.jsonl", '{"text": "a", "label": 1}\n')
    parts = write("b.jsonl", '{"text": "b", "label": 1.5}\n')
    names = write("c.csv", "text,label\nc,x\n")
    none = write("d.jsonl", '{"text": "d", "label": null}\n')
    assert collect(sources(train=whole, test=parts), COLUMNS).table["label"].to_pylist() == [1.0, 1.5]
    assert collect(sources(train=whole, test=names), COLUMNS).table["label"].to_pylist() == ["1", "x"]
    assert collect(sources(train=whole, test=none), COLUMNS).table["label"].to_pylist() == [1, None]


def test_lists_in_one_source_and_single_labels_in_another_are_refused(write):
    lists, single = write("a.jsonl", '{"text": "a", "label": ["x"]}\n'), write("b.csv", "text,label\nb,x\n")
    with pytest.raises(DataError, match="label: is a list in one source"):
        collect(sources(train=lists, test=single), COLUMNS)


def test_unreadable_rows_of_any_source_are_kept(write):
    table = collect(
        sources(train=write("a.csv", "text,label\na,1\nb\n"), test=write("b.csv", "text,label\nc,1\n")), COLUMNS
    ).table
    assert table[UNREADABLE].to_pylist() == [None, "unreadable row: line 3 has 1 column, expected 2", None]


def test_records_are_collected_and_it_is_the_problem_that_refuses_them(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "label": [{"x": pa.scalar(1, pa.int8()).as_py()}]}), tmp_path / "a.parquet")
    table = collect(sources(train=str(tmp_path / "a.parquet")), COLUMNS).table
    assert table["label"].to_pylist() == [{"x": 1}]
    reasons = Problem.named("text_classification")().read_labels(table)[1]
    assert "label" in reasons[0].as_py()


def test_lists_of_lists_are_refused_by_name(write):
    with pytest.raises(DataError, match=r"the column for label is of type list<item: list"):
        collect(sources(train=write("a.jsonl", '{"text": "a", "label": [[1]]}\n')), COLUMNS)


def test_categories_dates_and_bytes_are_read_as_text(tmp_path):
    import datetime

    import pyarrow.parquet as pq

    table = pa.table({"text": pa.array([b"a"]), "label": pa.array([datetime.date(2024, 5, 1)])})
    pq.write_table(table, tmp_path / "a.parquet")
    read = collect(sources(train=str(tmp_path / "a.parquet")), COLUMNS).table
    assert read.select(["text", "label"]).to_pylist() == [{"text": "a", "label": "2024-05-01"}]


def test_every_missing_file_and_column_is_named_at_once(write, tmp_path):
    train = write("train.csv", "sentence,lable\na,1\n")
    given = sources(train=train, test=str(tmp_path / "tset.csv"))
    with pytest.raises(DataError) as caught:
        check_columns(given, COLUMNS)
    lines = str(caught.value).split("\n")
    assert len(lines) == 3
    assert "unknown column 'text'" in lines[0]
    assert "data.columns.text" in lines[0]
    assert "Did you mean 'lable'" in lines[1]
    assert "no such file" in lines[2]


def test_a_missing_group_column_is_told_where_it_was_named(write):
    with pytest.raises(DataError, match=r"unknown column 'author'.*splitting\.group_column"):
        check_columns(sources(all=write("a.csv", "text,label\na,1\n")), {**COLUMNS, "group": "author"})


def test_checking_leaves_the_hub_alone():
    check_columns(sources(train="huggingface"), COLUMNS)


def test_checking_local_files_loads_no_heavy_library(write):
    paths = [write("a.csv", "text,label\na,1\n"), write("b.jsonl", json.dumps({"text": "a", "label": 1}))]
    code = (
        "import sys\nfrom ftlib.data.collect import check_columns\nfrom ftlib.data.sources.base import Source\n"
        f"check_columns({{str(i): Source.model_validate(p) for i, p in enumerate({paths!r})}}, {COLUMNS!r})\n"
        "print([m for m in ('torch', 'datasets', 'pandas', 'sklearn', 'pyarrow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fingerprint_is_of_content_and_split(write):
    first, second = write("a.csv", "text,label\na,1\n"), write("b.csv", "text,label\nb,1\n")
    assert fingerprint(sources(train=first, test=second)) == fingerprint(sources(test=second, train=first))
    assert fingerprint(sources(train=first, test=second)) != fingerprint(sources(train=second, test=first))
