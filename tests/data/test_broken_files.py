"""Files that are broken in some way: each is answered with one line that says what is wrong and what to do."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftlib.data.collect import check_columns, collect
from ftlib.data.sources.base import Source
from ftlib.data.split import Splitting, split
from ftlib.errors import DataError

ROWS = [(f"request number {i}", ("billing", "delivery")[i % 2]) for i in range(40)]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
COLUMNS = {"text": "text", "label": "label"}


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [label for _, label in ROWS]}), sink)
    return bytes(sink.getvalue())


DEEP = '{"text": ' + "[" * 20_000 + "]" * 20_000 + ', "label": "x"}\n'
BROKEN = [
    (
        "binary.csv",
        bytes(range(250, -1, -1)) * 20,
        "byte 0xfa at offset 0, line 1. It looks like no text",
    ),
    ("late.csv", CSV.replace("number 30", "nümber 30").encode("latin-1"), "byte 0xfc at offset"),
    ("pickle.csv", pickle.dumps(ROWS), "is not text but a Python pickle, which is refused"),
    ("pickle.parquet", pickle.dumps(ROWS), "is not Parquet but a Python pickle, which is refused"),
    ("csv.parquet", CSV.encode(), "is not a Parquet file; name its kind"),
    ("cut.parquet", parquet()[:200], "is a damaged Parquet file, cut off perhaps; fetch or write it again"),
    ("empty.parquet", b"", "the file is empty"),
    ("columns.json", b'{"text": ["a"], "label": ["b"]}', "holds one object, expected an array of objects"),
    ("mixed.json", b'[{"text": "a"}, 3]', "holds an array with other things than objects"),
    ("number.json", b"42", "holds one value"),
    ("comma.json", b'[{"text": "a"},]', "line 1, column "),
    ("deep.json", ("[" * 20_000).encode(), "is nested too deeply"),
    ("deep.jsonl", DEEP.encode(), "each line must hold one object"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN, ids=lambda value: str(value)[:20])
def test_a_broken_file_is_answered_with_one_line_that_names_it(write: Callable[..., str], name, content, said):
    path = write(name, content)
    with pytest.raises(DataError) as caught:
        check_columns({"all": Source.model_validate(path)}, COLUMNS)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert said in line
    assert "\n" not in line


def test_damage_within_a_parquet_file_is_told_in_one_line(write: Callable[..., str], read: Callable[..., pa.Table]):
    whole = parquet()
    path = write("damaged.parquet", whole[:8] + bytes(byte ^ 0x5A for byte in whole[8:300]) + whole[300:])
    with pytest.raises(DataError, match=r"is damaged \(.*\); fetch or write it again\.$") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path):
    path = tmp_path / "rows.csv"
    os.mkfifo(path)
    with pytest.raises(DataError, match="is a pipe or a device, expected a file"):
        check_columns({"all": Source.model_validate(str(path))}, COLUMNS)


def test_a_link_that_leads_nowhere_is_told_from_a_missing_file(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"rows\.csv: is a link that leads to no file\."):
        check_columns({"all": Source.model_validate(str(path))}, COLUMNS)


def test_nan_among_texts_is_a_missing_value_and_no_label_called_nan(
    write: Callable[..., str], read: Callable[..., pa.Table]
):
    lines = ['{"text": "a", "label": NaN}', '{"text": "b", "label": "billing"}', '{"text": "c", "label": 3}']
    assert read(write("nan.jsonl", "\n".join(lines)))["label"].to_pylist() == [None, "billing", "3"]


def test_a_first_line_longer_than_the_look_is_read_all_the_same(
    write: Callable[..., str], read: Callable[..., pa.Table]
):
    lines = [json.dumps({"text": "long " * 400_000, "label": "billing"}), '{"text": "short", "label": "delivery"}']
    path = write("long.jsonl", "\n".join(lines))
    check_columns({"all": Source.model_validate(path)}, COLUMNS)
    assert read(path)["label"].to_pylist() == ["billing", "delivery"]


def test_rows_without_any_label_are_told(rows, problem):
    table = rows([f"text {i}" for i in range(40)], pa.array([[]] * 40, pa.list_(pa.string())))
    with pytest.raises(DataError, match="train has no label at all: there is nothing to learn"):
        split(table, problem(multi_label=True), Splitting(), seed=1)


def test_the_same_file_for_two_splits_is_told_without_a_word_of_groups(
    write: Callable[..., str], problem: Callable[..., object]
):
    source = Source.model_validate(write("train.csv", CSV))
    table = collect({"train": source, "test": source}, COLUMNS).table
    with pytest.raises(DataError, match=r"each of its 40 rows has an input that another split has too\."):
        split(table, problem(), Splitting(), seed=1)
