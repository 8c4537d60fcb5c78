from __future__ import annotations

import bz2
import csv
import gzip
import io
import os

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ftlib.data.sources.base import UNREADABLE, Source
from ftlib.errors import DataError


def test_a_path_alone_names_its_source_by_its_ending():
    endings = {
        "a.csv": "csv",
        "b.TSV": "tsv",
        "c.jsonl": "jsonl",
        "d.ndjson": "jsonl",
        "e.json": "json",
        "f.pq": "parquet",
        "g.csv.gz": "csv",
        "h.tar.jsonl.zst": "jsonl",
    }
    assert {path: Source.model_validate(path).name for path in endings} == endings


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("rows.pkl", "pickles are refused"),
        ("rows.txt", "{name: csv, path: rows.txt}"),
        ("nyu-mll/glue", "{name: huggingface, path: nyu-mll/glue}"),
    ],
)
def test_an_ending_that_no_source_reads_is_answered_with_what_to_write(path: str, said: str):
    with pytest.raises(ValidationError) as caught:
        Source.model_validate(path)
    assert said in str(caught.value)


def test_values_are_text_whatever_they_look_like(write, read):
    path = write("a.csv", 'text,label\n007,1\nNA,true\n"a, ""b""\nc",2.50\nnull,x\n')
    assert read(path).to_pydict() == {"text": ["007", "NA", 'a, "b"\nc', "null"], "label": ["1", "true", "2.50", "x"]}


def test_empty_values_are_missing(write, read):
    assert read(write("a.csv", 'text,label\n,1\n"",2\nx,\n')).to_pydict() == {
        "text": [None, None, "x"],
        "label": ["1", "2", None],
    }


def test_a_byte_order_mark_and_any_line_end_are_accepted(write, read):
    for end in ("\n", "\r\n", "\r"):
        path = write("a.csv", b"\xef\xbb\xbf" + end.join(["text,label", "é,1", "b,2"]).encode())
        assert read(path).to_pydict() == {"text": ["é", "b"], "label": ["1", "2"]}


def test_a_file_without_header_has_positions_for_names(write, read):
    source = {"name": "csv", "path": write("a.csv", "a,b,1\nc,d,2\n"), "header": False}
    assert Source.model_validate(source).columns() == ["0", "1", "2"]
    assert read(source, text="0", text_pair="1", label="2").to_pylist()[1] == {
        "text": "c",
        "text_pair": "d",
        "label": "2",
    }


def test_quotes_in_tab_separated_text_are_plain_characters(write, read):
    path = write("a.tsv", 'Quality\t#1 String\t#2 String\n1\t"Yes", he said.\tHe said "no\n0\tsay "a" twice\t"\n')
    table = read(path, text="#1 String", text_pair="#2 String", label="Quality")
    assert table["text"].to_pylist() == ['"Yes", he said.', 'say "a" twice']
    assert table["text_pair"].to_pylist() == ['He said "no', '"']


def test_another_delimiter_can_be_set(write, read):
    assert read({"name": "csv", "path": write("a.csv", "text;label\na,b;1\n"), "delimiter": ";"})[
        "text"
    ].to_pylist() == ["a,b"]


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_compressed_files_are_read_as_they_are(write, read, ending, compress):
    assert read(write(f"a.csv.{ending}", compress(b"text,label\na,1\n"))).to_pylist() == [{"text": "a", "label": "1"}]


def test_rows_of_another_width_are_kept_apart_with_their_line(write, read):
    path = write("a.csv", 'text,label\na,1\n\n"two\nlines",2\nb,2,3\nc\nd,4\n')
    table = read(path)
    assert table["text"].to_pylist() == ["a", "two\nlines", "d", "b,2,3", "c"]
    assert table["label"].to_pylist() == ["1", "2", "4", None, None]
    assert table[UNREADABLE].to_pylist() == [
        None,
        None,
        None,
        "unreadable row: line 6 has 3 columns, expected 2",
        "unreadable row: line 7 has 1 column, expected 2",
    ]


def test_nul_bytes_pass_for_cleaning_to_remove(write, read):
    assert read(write("a.csv", b"text,label\na\x00b,1\n"))["text"].to_pylist() == ["a\x00b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n \r\n", "the file is empty"),
        (b"text,label\n", "has a header but no rows"),
        (b"text,label", "has a header but no rows"),
        (b"text,label\ngood,1\ncaf\xe9,2\n", "not UTF-8: byte 0xe9 at offset 21, line 3"),
        ("text,label\na,1\n".encode("utf-16"), "is UTF-16 text"),
        ("text,label\na,1\n".encode("utf-16-le"), "is UTF-16 text without a byte-order mark"),
        (b"text,text,label\na,b,1\n", "the header has 'text' 2 times"),
        (b"txt,label\na,1\n", "unknown column 'text'. Did you mean 'txt'?"),
        (b"text;label\na;1\n", "is the delimiter ';'?"),
        (b'text,label\n"a,1\nb,2\nc,3\n', "a quote opened in line 2 is never closed"),
        (b'text,label\na,"1\nb,2\nc,3\n', "a quote opened in line 2 is never closed"),
        (b"PK\x03\x04rest of a workbook", "Excel workbook"),
        (b"\x80\x04\x95rest", "pickle"),
        (gzip.compress(b"text,label\na,1\n", mtime=0), "give it the ending .gz"),
    ],
)
def test_a_broken_file_is_answered_with_one_clear_line(write, read, content: bytes, said: str):
    path = write("a.csv", content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_offset_of_a_wrong_byte_is_right_beyond_the_first_slice(write, read, monkeypatch):
    from ftlib.data.sources import _files

    monkeypatch.setattr(_files, "SLICE_BYTES", 7)  # slices end within characters
    good = "text,label\n" + "äöü€,1\n" * 20
    path = write("a.csv", good.encode() + b"x\xff,1\n")
    with pytest.raises(DataError, match=rf"offset {len(good.encode()) + 1:,}, line 22"):
        read(path)
    assert len(read(write("b.csv", good))) == 20


def test_a_cut_compressed_file_is_called_damaged(write, read):
    with pytest.raises(DataError, match="damaged"):
        read(write("a.csv.gz", gzip.compress(b"text,label\n" + os.urandom(2000).hex().encode())[:300]))


def test_a_file_read_as_if_it_had_a_header_is_asked_about_it(write, read):
    with pytest.raises(DataError, match="set header: false"):
        read(write("a.csv", "good film,1\nbad film,0\n"))


def test_a_first_value_may_be_a_long_document(write, read):
    path = write("a.csv", "text,label\n" + "x" * 300_000 + ",1\n")
    assert len(read(path)["text"][0].as_py()) == 300_000
    source = {"name": "csv", "path": write("b.csv", "x" * 300_000 + ",1\n"), "header": False}
    assert Source.model_validate(source).columns() == ["0", "1"]


def test_a_missing_file_is_answered_with_the_near_names(write, read, tmp_path):
    write("train.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match=r"no such file\. Did you mean '.*train\.csv'\?"):
        read(str(tmp_path / "trian.csv"))
    with pytest.raises(DataError, match=r"The folder .* does not exist either"):
        read(str(tmp_path / "nowhere" / "train.csv"))


def test_a_folder_in_place_of_a_file_is_said_so(write, read, tmp_path):
    write("train.csv", "")
    with pytest.raises(DataError, match=r"is a folder, expected a file.*train\.csv"):
        read({"name": "csv", "path": str(tmp_path)})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said_so(write, read):
    path = write("a.csv", "text,label\na,1\n")
    os.chmod(path, 0)
    with pytest.raises(DataError, match="permissions"):
        read(path)


def test_a_source_without_a_path_asks_for_one(read):
    with pytest.raises(DataError, match="needs a path"):
        read("csv")


def test_the_fingerprint_is_of_the_content_alone(write):
    first, second = write("a.csv", "text,label\na,1\n"), write("b.csv", "text,label\na,1\n")
    changed = write("c.csv", "text,label\na,2\n")
    digests = [Source.model_validate(path).fingerprint() for path in (first, second, changed)]
    assert digests[0] == digests[1] != digests[2]


cells = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8))
def test_what_pythons_csv_module_writes_is_read_back(write, read, values):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("a", "b", "c"), *values])
    table = read(write("a.csv", text.getvalue()), a="a", b="b", c="c")
    assert table.to_pydict() == {name: [row[i] or None for row in values] for i, name in enumerate(("a", "b", "c"))}
    assert table.schema.types == [pa.string()] * 3
