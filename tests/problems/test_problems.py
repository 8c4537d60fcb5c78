from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from ftlib.errors import DataError
from ftlib.problems import _texts
from ftlib.problems.base import Problem
from ftlib.problems.text_classification import TextClassification
from ftlib.problems.text_pair_classification import TextPairClassification
from ftlib.problems.text_regression import TextRegression
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

NAMES = [
    name
    for name in Problem.available()
    if Problem.named(name).auto_class == "AutoModelForSequenceClassification"
    and not Problem.named(name).other_columns
    and Problem.named(name).label_column == "label"
]
"""Problems on one text or a pair, which the tokenizer joins, with one answer."""
PAIRS = [name for name in NAMES if len(Problem.named(name).text_columns) == 2]
CLASSIFIERS = [TextClassification, TextPairClassification]


def rows_of(problem: Problem) -> pa.Table:
    return pa.Table.from_pylist(problem.examples())


def bound(name: str) -> Problem:
    problem = Problem.named(name)()
    labels, _ = problem.target.parse(rows_of(problem)[problem.label_column])
    return problem.bind(problem.target.learn(labels))


# -- every problem on texts (test_every_problem.py has what all problems keep) -------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_example_is_rejected(name: str):
    problem = bound(name)
    labels, reasons = problem.target.parse(rows_of(problem)["label"])
    assert labels.null_count == 0
    assert reasons.null_count == len(reasons)
    assert len(problem.target.encode(labels)) == len(labels)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_shows_a_row_the_loss_and_the_metric(name: str):
    card = Problem.named(name).card()
    assert 'Row: ``{"text": ' in card
    assert "Loss:" in card
    assert "Usual metric" in card


@pytest.mark.parametrize("name", NAMES)
def test_a_transformers_config_takes_the_model_settings(name: str):
    from transformers import BertConfig

    problem = bound(name)
    config = BertConfig(**problem.model_settings())
    assert config.num_labels == problem.target.num_outputs
    assert config.id2label == problem.model_settings()["id2label"]
    assert BertConfig.from_dict(json.loads(config.to_json_string())).id2label == config.id2label


# -- encoding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_encoding_gives_what_the_tokenizer_gives(name: str, bert_like):
    problem = Problem.named(name)()
    rows = rows_of(problem)
    encoded = problem.encode(rows, bert_like)
    expected = bert_like(*(rows[c].to_pylist() for c in problem.text_columns))
    assert encoded["input_ids"].to_pylist() == expected["input_ids"]
    assert encoded["token_type_ids"].to_pylist() == expected["token_type_ids"]
    assert set(encoded["num_truncated"].to_pylist()) == {0}
    assert encoded.schema == _texts._schema(True)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_too_long_are_cut_as_the_tokenizer_cuts_and_counted(name: str, bert_like):
    problem = Problem.named(name)(max_length=9)
    rows = rows_of(problem)
    texts = [rows[c].to_pylist() for c in problem.text_columns]
    encoded = problem.encode(rows, bert_like)
    cut = bert_like(*texts, truncation="longest_first", max_length=9)
    whole = [len(ids) for ids in bert_like(*texts)["input_ids"]]
    assert encoded["input_ids"].to_pylist() == cut["input_ids"]
    assert encoded["token_type_ids"].to_pylist() == cut["token_type_ids"]
    assert encoded["num_truncated"].to_pylist() == [max(0, length - 9) for length in whole]
    assert max(whole) > 9


def test_of_a_long_pair_the_longer_text_is_cut(bert_like):
    rows = pa.table({"text": ["a plane " * 20], "text_pair": ["A dog"]})
    encoded = TextPairClassification(max_length=10).encode(rows, bert_like)
    assert encoded["token_type_ids"][0].as_py() == [0] * 7 + [1] * 3
    assert encoded["num_truncated"].to_pylist() == [45 - 10]


def test_token_types_are_given_only_where_the_tokenizer_has_them(roberta_like):
    encoded = TextClassification().encode(rows_of(TextClassification()), roberta_like)
    assert encoded.column_names == ["input_ids", "num_truncated"]


def test_no_row_is_longer_than_the_model_takes(roberta_like):
    encoded = TextClassification(max_length=100).encode(pa.table({"text": ["word " * 50, "word"]}), roberta_like)
    assert [len(ids) for ids in encoded["input_ids"].to_pylist()] == [12, 3]
    assert encoded["num_truncated"].to_pylist() == [40, 0]


@pytest.mark.parametrize("name", NAMES)
def test_rows_encode_alike_alone_and_together_in_any_chunks(name: str, bert_like, monkeypatch):
    problem = Problem.named(name)(max_length=9)
    rows = rows_of(problem)
    together = problem.encode(rows, bert_like)
    alone = [problem.encode(rows.slice(i, 1), bert_like) for i in range(rows.num_rows)]
    assert pa.concat_tables(alone).combine_chunks() == together
    monkeypatch.setattr(_texts, "ROWS_AT_ONCE", 3)
    chunked = pa.concat_tables([rows.slice(0, 1), rows.slice(1)])
    assert problem.encode(chunked, bert_like) == together


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_encode_to_no_rows_of_the_same_schema(name: str, bert_like):
    problem = Problem.named(name)()
    rows = rows_of(problem)
    assert problem.encode(rows.slice(0, 0), bert_like) == problem.encode(rows, bert_like).slice(0, 0)


def test_serving_needs_no_label_and_takes_missing_texts_and_numbers(bert_like):
    rows = pa.table({"text": pa.array([None, "a"], pa.large_string())})
    assert [len(ids) for ids in TextRegression().encode(rows, bert_like)["input_ids"].to_pylist()] == [2, 3]
    assert TextRegression().encode(pa.table({"text": [5]}), bert_like).num_rows == 1


@pytest.mark.parametrize("name", PAIRS)
def test_a_missing_column_is_named_with_the_near_ones(name: str, bert_like):
    with pytest.raises(DataError, match=r"unknown column 'text_pair'. Did you mean 'text_piar'"):
        Problem.named(name)().encode(pa.table({"text": ["a"], "text_piar": ["b"]}), bert_like)


def test_a_text_column_of_lists_is_refused(bert_like):
    with pytest.raises(DataError, match=r"column 'text' holds list<.*>, expected text"):
        TextClassification().encode(pa.table({"text": [["a", "b"]]}), bert_like)


# -- labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_target_follows_the_fields(classifier):
    labels = ("no", "yes")
    assert classifier(labels=labels).target == SingleLabel(labels)
    assert classifier(labels=labels, multi_label=True, threshold=0.3).target == MultiLabel(labels, 0.3)
    assert TextRegression().target == Value()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_labels_given_in_the_params_keep_their_order(classifier):
    given = classifier(labels=("positive", "negative"))
    assert given.bind(("negative", "positive")) == given
    assert classifier().bind(("a", "b")).labels == ("a", "b")
    assert TextRegression().bind(()) == TextRegression()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_label_that_the_params_do_not_name_is_answered_with_the_near_ones(classifier):
    with pytest.raises(DataError, match=r"unknown label 'bilign'. Did you mean 'billing'"):
        classifier(labels=("billing", "bug")).bind(("bilign", "bug"))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"labels": ["a", "a"]}, "'a' is given twice"),
        ({"labels": ["a", ""]}, "'' is empty"),
        ({"labels": ["a", " b"]}, "' b' is empty or begins or ends with white space"),
        ({"labels": ["a"]}, "labels: 'a' alone leaves nothing to learn"),
        ({"labels": [True, False]}, "a label was read as true: YAML takes yes, no"),
        ({"threshold": 0.0}, "greater than 0"),
        ({"threshold": 1.0}, "less than 1"),
        ({"max_length": 4}, "greater than or equal to 8"),
    ],
)
def test_wrong_fields_are_refused_in_words(classifier, fields: dict, line: str):
    with pytest.raises(ValidationError, match=line):
        classifier.model_validate(fields)


def test_one_label_that_rows_have_or_have_not_can_be_learned():
    problem = TextClassification(multi_label=True).bind(("spam",))
    assert Problem.model_validate(problem.model_dump(mode="json")) == problem
    assert problem.target.num_outputs == 1


def test_ids_stand_for_label_names_in_the_params():
    assert TextClassification.model_validate({"labels": [0, 1]}).labels == ("0", "1")
    schema = TextClassification.model_json_schema()["properties"]["labels"]
    assert schema["items"] == {"anyOf": [{"type": "string"}, {"type": "integer"}]}
