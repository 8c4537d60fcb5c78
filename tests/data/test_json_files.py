from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftlib.data.sources.base import UNREADABLE, Source
from ftlib.errors import DataError


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_types_are_kept_and_missing_keys_are_missing_values(write, read):
    path = write("a.jsonl", lines({"text": "a", "label": 1}, {"label": 0}, {"text": "c"}))
    table = read(path)
    assert table.to_pydict() == {"text": ["a", None, "c"], "label": [1, 0, None]}
    assert table["label"].type == pa.int64()


def test_lists_of_labels_stay_lists(write, read):
    path = write(
        "a.jsonl", lines({"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}, {"text": "c", "label": None})
    )
    assert read(path)["label"].to_pylist() == [["x", "y"], [], None]


def test_mixed_types_become_text_and_single_values_beside_lists_become_lists(write, read):
    assert read(write("a.jsonl", lines({"text": "a", "label": 1}, {"text": "b", "label": "x"})))[
        "label"
    ].to_pylist() == ["1", "x"]
    mixed = read(write("b.jsonl", lines({"text": "a", "label": ["x"]}, {"text": "b", "label": "y"}, {"text": "c"})))
    assert mixed["label"].to_pylist() == [["x"], ["y"], None]


def test_texts_that_look_like_dates_stay_texts(write, read):
    assert read(write("a.jsonl", lines({"text": "2020-01-01", "label": "2020-01-02"}))).to_pylist() == [
        {"text": "2020-01-01", "label": "2020-01-02"}
    ]


def test_a_bad_line_is_kept_apart_with_its_number(write, read):
    table = read(write("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b"\n[1]\n{"text": "c", "label": 2}\n'))
    assert table["text"].to_pylist() == ["a", "c", '{"text": "b"', "[1]"]
    assert table[UNREADABLE].to_pylist()[:2] == [None, None]
    assert "line 3 is not JSON" in table[UNREADABLE][2].as_py()
    assert "line 4 is not a JSON object" in table[UNREADABLE][3].as_py()


def test_a_lone_surrogate_becomes_the_replacement_character(write, read):
    assert read(write("a.jsonl", '{"text": "a\\ud800b", "label": "x"}\n'))["text"].to_pylist() == ["a\ufffdb"]


def test_a_mark_and_compression_are_accepted(write, read):
    content = b"\xef\xbb\xbf" + lines({"text": "a", "label": 1}).encode()
    assert len(read(write("a.jsonl", content))) == len(read(write("a.jsonl.gz", gzip.compress(content)))) == 1


def test_columns_are_the_keys_of_all_lines_looked_at(write):
    path = write("a.jsonl", lines({"text": "a"}, {"label": 1, "text": "b"}))
    assert Source.model_validate(path).columns() == ["text", "label"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b'[{"text": "a"}]', "use {name: json"),
        (b"text,label\na,1\n", "line 1 is not JSON"),
        (b'{"sentence": "a", "label": 1}\n', "unknown column 'text'"),
        (b'{"text": {"a": 1}, "label": 1}\n{"text": "b", "label": "x"}\n', "'text' holds JSON objects"),
        (b'{"text": "caf\xe9", "label": 1}\n', "not UTF-8: byte 0xe9 at offset 13, line 1"),
    ],
)
def test_broken_json_lines_are_answered_with_one_clear_line(write, read, content: bytes, said: str):
    with pytest.raises(DataError) as caught:
        read(write("a.jsonl", content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_array_of_objects_is_read_also_within_an_object(write, read):
    array = [{"text": "a", "label": "x"}, {"text": "b"}]
    wanted = {"text": ["a", "b"], "label": ["x", None]}
    assert read(write("a.json", json.dumps(array))).to_pydict() == wanted
    assert read(write("b.json", json.dumps({"version": 1, "data": array}))).to_pydict() == wanted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}', "expected an array of objects"),
        ("[]", "the array is empty"),
        ('[{"text": "a",}]', "is not valid JSON"),
        ('{"text": "a"}\n{"text": "b"}\n', "use {name: jsonl"),
    ],
)
def test_broken_json_is_answered_with_one_clear_line(write, read, content: str, said: str):
    with pytest.raises(DataError) as caught:
        read(write("a.json", content))
    assert said in str(caught.value)


def test_parquet_gives_its_own_types(tmp_path, read):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode(), "more": [1, 2]})
    pq.write_table(table, path)
    assert Source.model_validate(str(path)).columns() == ["text", "label", "more"]
    assert read(str(path)).to_pydict() == {"text": ["a", "b"], "label": ["x", "y"]}


def test_broken_parquet_is_answered_with_one_clear_line(write, read, tmp_path):
    with pytest.raises(DataError, match="is not a Parquet file"):
        read(write("a.parquet", "text,label\n"))
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match="has columns but no rows"):
        read(str(path))
    pq.write_table(pa.table({"text": ["some text " * 50], "label": ["a"]}), path)
    data = bytearray(path.read_bytes())
    data[6:60] = b"\x00" * 54
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        read(str(path))
