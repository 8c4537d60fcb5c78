from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ftlib.data import encode as module
from ftlib.data.encode import encode, read_encoded
from ftlib.files import write_table
from ftlib.progress import listen


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def test_rows_become_ids_in_their_order(rows, problem, tokenizer):
    encoded, summary = encode(rows(["one two", "three"], ["b", "a"]), problem(labels=["a", "b"]), tokenizer)
    assert encoded.select(["row_id", "input_ids", "labels", "length"]).to_pylist() == [
        {"row_id": 0, "input_ids": [2, 4, 5, 3], "labels": 1, "length": 4},
        {"row_id": 1, "input_ids": [2, 6, 3], "labels": 0, "length": 3},
    ]
    assert encoded.column_names == ["row_id", "input_ids", "token_type_ids", "labels", "length"]
    assert encoded.schema.field("length").type == pa.int32()
    assert encoded.schema.field("labels").type == pa.int64()
    assert summary == {
        "rows": 2,
        "tokens": 7,
        "truncated_rows": 0,
        "truncated_tokens": 0,
        "unknown_tokens": 0,
        "length": {"mean": 3.5, "p50": 3, "p95": 3, "max": 4},
    }


def test_labels_have_the_type_of_their_target(rows, problem, tokenizer):
    sets, _ = encode(rows(["one", "two"], [["a"], []]), problem(labels=["a", "b"], multi_label=True), tokenizer)
    assert sets["labels"].to_pylist() == [[1.0, 0.0], [0.0, 0.0]]
    assert sets.schema.field("labels").type == pa.list_(pa.float32(), 2)
    numbers, _ = encode(rows(["one", "two"], [1.5, 2.0]), problem("text_regression"), tokenizer)
    assert numbers["labels"].to_pylist() == [1.5, 2.0]
    assert numbers.schema.field("labels").type == pa.float32()


def test_what_is_cut_and_what_is_unknown_is_counted(rows, problem, tokenizer, caplog):
    table = rows(["one " * 20, "four five", "one"], ["a", "b", "a"])
    with caplog.at_level(logging.WARNING):
        encoded, summary = encode(table, problem(labels=["a", "b"], max_length=8), tokenizer)
    assert encoded["length"].to_pylist() == [8, 4, 3]
    assert (summary["truncated_rows"], summary["truncated_tokens"], summary["unknown_tokens"]) == (1, 14, 2)
    assert not caplog.records


def test_a_tokenizer_that_knows_none_of_the_words_is_warned_of(rows, problem, tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        encode(rows(["vier fünf", "sechs"], ["a", "b"]), problem(labels=["a", "b"]), tokenizer)
    assert "unknown to the tokenizer" in caplog.text


def test_many_rows_are_encoded_in_parts_that_tell_their_progress(rows, problem, tokenizer, monkeypatch):
    table = rows(["one", "two", "three", "one two", "two"], list("ababa"))
    whole, _ = encode(table, problem(labels=["a", "b"]), tokenizer)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    events = []
    with listen(events.append):
        parts, _ = encode(table, problem(labels=["a", "b"]), tokenizer)
    assert parts == whole
    assert [(e.done, e.total, e.unit) for e in events] == [(2, 5, "rows"), (4, 5, "rows"), (5, 5, "rows")]


def test_encoded_rows_are_read_back_as_written(rows, problem, tokenizer, tmp_path: Path):
    encoded, _ = encode(rows(["one", "two"], [["a"], ["b"]]), problem(labels=["a", "b"], multi_label=True), tokenizer)
    write_table(tmp_path / "train.parquet", encoded)
    assert read_encoded(tmp_path / "train.parquet").equals(encoded)
