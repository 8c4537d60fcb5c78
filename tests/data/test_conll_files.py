"""CoNLL files, with their quirks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect
from ftlib.data.sources.base import Source
from ftlib.data.sources.conll import Conll
from ftlib.errors import DataError
from ftlib.problems.token_classification import TokenClassification

COLUMNS = {"tokens": "tokens", "tags": "tags"}

NEWS = """-DOCSTART- -X- -X- O

EU NNP B-NP I-ORG
rejects VBZ B-VP O
German JJ B-NP I-MISC

Peter NNP B-NP I-PER

-DOCSTART- -X- -X- O

. . O O
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[dict]]:
    """Return a function that writes a file and reads it back as rows."""

    def rows(text: str | bytes, **settings) -> list[dict]:
        path = tmp_path / "words.conll"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        columns = {**COLUMNS, **({"group": "document"} if settings.pop("group", False) else {})}
        return Conll(path=str(path), **settings).read(columns).to_pylist()

    return rows


def test_sentences_are_rows_and_documents_are_numbered(read):
    assert read(NEWS, group=True) == [
        {"tokens": ["EU", "rejects", "German"], "tags": ["I-ORG", "O", "I-MISC"], "group": "1"},
        {"tokens": ["Peter"], "tags": ["I-PER"], "group": "1"},
        {"tokens": ["."], "tags": ["O"], "group": "2"},
    ]
    assert [row["group"] for row in read("a\tO\n\nb\tO\n", group=True)] == [None, None]


def test_any_column_may_hold_the_tags(read):
    assert read(NEWS, tag_column=1)[0]["tags"] == ["NNP", "VBZ", "JJ"]
    assert read(NEWS, tag_column=-2)[0]["tags"] == ["B-NP", "B-VP", "B-NP"]
    assert read("O\tEU\nO\tsays\n", token_column=1, tag_column=0)[0] == {"tokens": ["EU", "says"], "tags": ["O", "O"]}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("blank", ["", "\t", "  ", " \t ", "\n", "\t\n\t"])
def test_blank_lines_may_hold_white_space_and_come_in_any_number(read, blank: str, line_end: str):
    text = f"\nEU\tB-ORG\n{blank}\nsays\tO\nno\tO".replace("\n", line_end)
    assert read(text.encode()) == [
        {"tokens": ["EU"], "tags": ["B-ORG"]},
        {"tokens": ["says", "no"], "tags": ["O", "O"]},
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_word(read):
    assert read("\ufeffEU B-ORG\n".encode())[0]["tokens"] == ["EU"]


def test_words_may_hold_spaces_between_tabs_and_any_white_space_but_the_separator(read):
    assert read("New York\tB-LOC\n555 1234\tO\n")[0]["tokens"] == ["New York", "555 1234"]
    assert read("a\u00a0b O\n\u2028 O\nc\u0085 O\n", separator="space")[0]["tokens"] == [
        "a\u00a0b",
        "\u2028",
        "c\u0085",
    ]


def test_a_number_sign_may_be_a_word_and_a_comment_is_none(read):
    text = "# sentence 1 of the file\n#\tO\n#now\tB-TAG\n# a comment within\nyes\tO\n"
    assert read(text) == [{"tokens": ["#", "#now", "yes"], "tags": ["O", "B-TAG", "O"]}]


def test_a_sentence_with_a_line_of_another_width_is_kept_apart_and_rejected(tmp_path):
    path = tmp_path / "words.conll"
    path.write_text("EU\tB-ORG\nsays\n\nno\tO\n\nwell\tO\nI\tO\tO\nnever\tO\n\nyes\tO\n")
    rows = collect({"all": Conll(path=str(path))}, COLUMNS).table
    cleaned = clean(rows, TokenClassification(), Cleaning())
    assert cleaned.table["tokens"].to_pylist() == [["no"], ["yes"]]
    assert cleaned.rejected["reason"].to_pylist() == [
        "unreadable row: line 2 has 1 columns, expected 2",
        "unreadable row: line 7 has 3 columns, expected 2",
    ]
    assert cleaned.rejected["tokens"].to_pylist() == [["EU says"], ["well I\tO\tO never"]]


def test_a_file_of_words_alone_has_no_tags(tmp_path):
    path = tmp_path / "words.conll"
    path.write_text("EU\nsays\n\nno\n")
    source = Conll(path=str(path))
    assert source.columns() == ["tokens", "document"]
    assert source.read({"tokens": "tokens"})["tokens"].to_pylist() == [["EU", "says"], ["no"]]
    with pytest.raises(DataError, match=r"unknown column 'tags'.*A CoNLL file gives tokens, tags and document"):
        source.read(COLUMNS)


def test_the_ending_names_the_source_and_compressed_files_are_read(tmp_path):
    import gzip

    path = tmp_path / "train.conll.gz"
    path.write_bytes(gzip.compress(NEWS.encode()))
    source = Source.model_validate(str(path))
    assert isinstance(source, Conll)
    assert len(source.read(COLUMNS)) == 3


def test_a_column_that_is_not_there_is_named(read):
    with pytest.raises(DataError, match="tag_column 7 is none of its 4 columns, counted from 0"):
        read(NEWS, tag_column=7)
    with pytest.raises(DataError, match="tag_column -5 is none of its 4 columns"):
        read(NEWS, tag_column=-5)
    with pytest.raises(DataError, match="token_column 4 is none of its 4 columns"):
        read(NEWS, token_column=4)


def test_a_file_without_a_sentence_says_so(read):
    with pytest.raises(DataError, match="holds no sentence"):
        read("-DOCSTART- O\n\n")
    with pytest.raises(DataError, match="the file is empty"):
        read("\n\n")


def test_the_fingerprint_is_the_content_s(tmp_path):
    for name in ("one.conll", "two.conll"):
        (tmp_path / name).write_text(NEWS)
    one, two = (Conll(path=str(tmp_path / name)).fingerprint() for name in ("one.conll", "two.conll"))
    assert one == two
