"""Token classification: words and pieces, windows, rejected rows, teaching, answers."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ftlib.data.clean import Cleaning, clean
from ftlib.data.encode import encode
from ftlib.errors import ArtifactError, CheckpointError, DataError
from ftlib.models import checkpoints
from ftlib.prediction import predict, with_teachers
from ftlib.problems._words import owners, places, windows, words_of
from ftlib.problems.base import Problem
from ftlib.problems.token_classification import TokenClassification
from ftlib.training.batches import Rows
from tests import contracts
from tests.conftest import tiny_tokenizer
from tests.samples import check_one_answer, run_sample

WORDS = ["I", "was", "charged", "in", "Mayfield", "for", "a", "guitar", "and", "awful", "weather", "."]


def problem(**fields) -> TokenClassification:
    return contracts.bound(TokenClassification(**fields))


def long_rows(num_words: int = 40) -> pa.Table:
    tokens = [(WORDS * 9)[:num_words], ["It", "rains", "."], (WORDS * 9)[5 : num_words + 5]]
    tags = [["B-LOC" if word == "Mayfield" else "O" for word in row] for row in tokens]
    return pa.table({"row_id": [4, 9, 2], "tokens": tokens, "tags": tags})


# -- words ---------------------------------------------------------------------------------------------


def test_a_text_is_split_into_words_with_their_places():
    text = "Dr. Ada  Byron-King e-mailed @acme (a@b.org) at 12:30: 3.5 % of https://t.co/x1 #now, isn't it?"
    words = [text[a:b] for a, b in places(text)]
    told = "Dr . Ada Byron-King e-mailed @acme ( a@b.org ) at 12:30 : 3.5 % of https://t.co/x1 #now , isn't it ?"
    assert words == told.split()
    assert words_of(pa.array([text, None, "東京 is big"]))[1:] == [[], ["東京", "is", "big"]]


def test_words_that_are_numbers_are_read_and_anything_else_is_refused():
    assert words_of(pa.array([[1, 2]])) == [["1", "2"]]
    with pytest.raises(DataError, match="words of type double cannot be read; expected a list of words a row"):
        words_of(pa.array([0.5]))


def test_rows_without_words_and_with_empty_words_are_rejected_with_their_reasons():
    rows = pa.table({
        "row_id": range(7),
        "split": ["all"] * 7,
        "tokens": [["Ada", "left"], [], None, ["Ada", " "], ["Ada", None], ["Ada"], ["Rome", "fell"]],
        "tags": [["B-PER", "O"], [], ["O"], ["O", "O"], ["O", "O"], ["B-PER", "O"], ["O", "I-LOC"]],
    })  # fmt: skip
    cleaned = clean(rows, TokenClassification(scheme="bio"), Cleaning(max_rejected_ratio=1))
    assert cleaned.table["row_id"].to_pylist() == [0, 6]
    assert cleaned.table["tags"].to_pylist() == [["B-PER", "O"], ["O", "B-LOC"]]
    assert cleaned.rejected["reason"].to_pylist() == [
        "empty tokens",
        "empty tokens",
        "an empty word in tokens",
        "an empty word in tokens",
        "tags and tokens differ in number",
    ]
    strict = clean(rows, TokenClassification(scheme="bio", illegal_tags="reject"), Cleaning(max_rejected_ratio=1))
    assert strict.summary["rejected"]["misplaced tag"] == 1


# -- pieces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_pieces_are_those_of_the_tokenizer_given_words(architecture: str):
    from tokenizers import pre_tokenizers

    tokenizer = tiny_tokenizer(architecture)
    rows = pa.table({"tokens": [WORDS, ["Guitars", "!"]]})
    encoded = TokenClassification().encode(rows, tokenizer)
    if architecture == "roberta":  # what transformers asks for where words come apart
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    expected = tokenizer(rows["tokens"].to_pylist(), is_split_into_words=True)
    assert encoded["input_ids"].to_pylist() == expected["input_ids"]
    for i in range(2):
        before = [None, *expected.word_ids(i)]
        first = [w if w is not None and w != b else -1 for b, w in zip(before, expected.word_ids(i), strict=False)]
        assert encoded["words"][i].as_py() == first
    assert ("token_type_ids" in encoded.column_names) == (architecture == "bert")


def test_byte_level_words_are_those_of_the_running_text():
    tokenizer = tiny_tokenizer("roberta")
    alone = TokenClassification().encode(pa.table({"tokens": [["A", "guitar", "and", "weather"]]}), tokenizer)
    text = tokenizer(" A guitar and weather")
    assert alone["input_ids"].to_pylist() == [text["input_ids"]]


def test_a_tokenizer_that_puts_spaces_itself_gets_none():
    from tokenizers import pre_tokenizers

    tokenizer = tiny_tokenizer("roberta")
    expected = TokenClassification().encode(pa.table({"tokens": [WORDS]}), tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert TokenClassification().encode(pa.table({"tokens": [WORDS]}), tokenizer) == expected


def test_a_word_that_the_tokenizer_makes_nothing_of_is_unknown_and_has_a_place():
    tokenizer = tiny_tokenizer("bert")
    encoded = TokenClassification().encode(pa.table({"tokens": [["A", "\u200b", "man"]]}), tokenizer)
    assert [word for word in encoded["words"][0].as_py() if word >= 0] == [0, 1, 2]
    assert tokenizer.unk_token_id in encoded["input_ids"][0].as_py()


def test_a_tag_is_at_the_first_piece_of_its_word_and_nowhere_else():
    tokenizer = tiny_tokenizer("bert")
    rows = contracts.labelled_rows(TokenClassification())
    encoded, _ = encode(rows, problem(), tokenizer)
    labels = problem().labels
    for row, line in zip(rows.to_pylist(), encoded.to_pylist(), strict=True):
        told = tokenizer(row["tokens"], is_split_into_words=True)
        expected = []
        for before, word in zip([None, *told.word_ids()], told.word_ids(), strict=False):
            expected.append(-100 if word is None or word == before else labels.index(row["tags"][word]))
        assert line["labels"] == expected


def test_rows_encode_alike_alone_and_together(monkeypatch):
    from ftlib.problems import _words

    tokenizer, rows = tiny_tokenizer("bert"), long_rows().select(["tokens"])
    together = TokenClassification(max_length=16, stride=4).encode(rows, tokenizer)
    alone = [TokenClassification(max_length=16, stride=4).encode(rows.slice(i, 1), tokenizer) for i in range(3)]
    assert pa.concat_tables(t.drop_columns("row") for t in alone).combine_chunks() == together.drop_columns("row")
    monkeypatch.setattr(_words, "ROWS_AT_ONCE", 2)
    assert TokenClassification(max_length=16, stride=4).encode(rows, tokenizer) == together
    nothing = TokenClassification().encode(rows.slice(0, 0), tokenizer)
    assert nothing.schema == together.schema


def test_a_slow_tokenizer_is_refused_before_any_work():
    with pytest.raises(CheckpointError, match="has no fast tokenizer, without which words cannot be told apart"):
        TokenClassification().check_tokenizer(object())


# -- windows -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), max_size=40), st.integers(2, 12), st.integers(0, 12))
def test_windows_fit_hold_all_words_and_predict_each_once(lengths, room, stride):
    found = list(windows(lengths, room, stride))
    for start, stop in found:
        assert stop - start <= 1 or sum(lengths[start:stop]) <= room
    assert sorted({w for start, stop in found for w in range(start, stop)}) == list(range(len(lengths)))
    assert [stop for _, stop in found] == sorted({stop for _, stop in found})
    owner = owners(len(lengths), found)
    for word, window in enumerate(owner):
        start, stop = found[window]
        assert start <= word < stop
    if lengths:
        assert set(owner.tolist()) == set(range(len(found)))
    for (_, stop), (start, _) in pairwise(found):
        assert sum(lengths[start:stop]) <= min(stride, room)


def test_a_word_is_predicted_where_it_has_most_context():
    ranges = list(windows([1] * 20, 10, 4))
    assert ranges == [(0, 10), (6, 16), (12, 20)]
    assert owners(20, ranges).tolist() == [0] * 8 + [1] * 6 + [2] * 6


def test_long_rows_become_windows_and_every_word_is_learned_and_predicted_once(tiny_model):
    rows = long_rows()
    settings = problem(max_length=24, stride=8)
    checkpoint = checkpoints.load(tiny_model("bert"), settings)
    encoded, summary = encode(rows, settings, checkpoint.tokenizer)
    assert summary["rows"] == 3
    assert summary["truncated_rows"] == 0
    assert len(encoded) > 6
    assert max(encoded["length"].to_pylist()) <= 24
    labels = np.array([label for line in encoded["labels"].to_pylist() for label in line])
    assert (labels != -100).sum() == sum(map(len, rows["tags"].to_pylist()))
    predictions = predict(checkpoint, encoded, settings).table
    assert predictions["row_id"].to_pylist() == [4, 9, 2]
    scores, layout = settings.align([predictions], rows)
    assert layout.counts.tolist() == [len(row) for row in rows["tokens"].to_pylist()]
    measured = settings.measure(checkpoint, encoded)
    assert measured["f1"] == settings.target.over(layout).metrics(scores[0], settings.references(rows, layout))["f1"]


def test_a_row_that_fits_is_predicted_as_plain_transformers_does(tiny_model):
    import torch

    settings = problem()
    for architecture in ("bert", "distilbert"):
        checkpoint = checkpoints.load(tiny_model(architecture), settings)
        rows = contracts.labelled_rows(TokenClassification())
        encoded, _ = encode(rows, settings, checkpoint.tokenizer)
        predictions = predict(checkpoint, encoded, settings).table
        for row, flat in zip(rows.to_pylist(), predictions["logits"].to_pylist(), strict=True):
            given_words = checkpoint.tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
            with torch.inference_mode():
                logits = checkpoint.model(**given_words).logits[0].numpy()
            ids = given_words.word_ids()
            first = [ids.index(word) for word in range(len(row["tokens"]))]
            np.testing.assert_allclose(np.reshape(flat, (len(first), -1)), logits[first], rtol=1e-5, atol=5e-5)


def test_of_a_word_longer_than_a_window_the_rest_is_cut_and_counted():
    tokenizer = tiny_tokenizer("bert")
    rows = pa.table({"row_id": [1], "tokens": [["a", "weatherphotofilmstory" * 3, "b"]], "tags": [["O", "B-PER", "O"]]})
    encoded, summary = encode(rows, problem(max_length=12), tokenizer)
    assert summary["truncated_rows"] == 1
    assert summary["truncated_tokens"] > 20
    assert [w for line in encoded["words"].to_pylist() for w in line if w >= 0] == [0, 1, 2]


def test_models_of_other_tokenizations_are_aligned_word_by_word(tiny_model):
    rows, settings = long_rows(), problem(max_length=24, stride=8)
    tables = []
    for architecture in ("bert", "roberta"):
        checkpoint = checkpoints.load(tiny_model(architecture), settings)
        encoded, _ = encode(rows, settings, checkpoint.tokenizer)
        tables.append(predict(checkpoint, encoded, settings).table)
    scores, layout = settings.align(tables, rows)
    assert scores.shape == (2, layout.num_units, len(settings.labels))
    np.testing.assert_allclose(scores.sum(-1), 1)
    with pytest.raises(ArtifactError, match="rows with other words"):
        settings.align([tables[0], tables[1].slice(0, 1).take([0, 0, 0])], rows)
    with pytest.raises(ArtifactError, match="do not hold 4 logits a word"):
        settings.model_copy(update={"labels": ("O", "B-A", "I-A", "B-C")}).align(tables, rows)


# -- learning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "strategy"), [
    ("roberta", "prompt_tuning"), ("roberta", "prefix"), ("distilbert", "prompt_tuning"), ("distilbert", "lora"),
])  # fmt: skip
def test_strategies_learn_words_on_other_encoders(architecture: str, strategy: str, tiny_model, tmp_path):
    from ftlib.strategies.base import Strategy

    trained = contracts.train_on_examples(
        Strategy.named(strategy)(), TokenClassification(), tiny_model(architecture), tmp_path
    )
    losses = [row["validation_loss"] for row in trained.result.history if "validation_loss" in row]
    assert min(losses) < 0.6 * losses[0]
    contracts.check_reload(trained)


def test_virtual_tokens_shift_no_word(tiny_model):
    """Tokens that are put in and cut out again leave an output for every token of the text."""
    from ftlib.strategies.prompt_tuning import PromptTuning

    settings = problem()
    checkpoint = checkpoints.load(tiny_model("bert"), settings)
    encoded = encode(contracts.labelled_rows(TokenClassification()), settings, checkpoint.tokenizer)[0]
    before = predict(checkpoint, encoded, settings).table
    model = PromptTuning(num_virtual_tokens=3).adapt(checkpoint.model, settings)
    given_rows = Rows.from_table(encoded, checkpoint.tokenizer, settings)
    batch = given_rows.batch(np.arange(len(given_rows)))
    assert settings.forward(model, batch).shape[:2] == batch["input_ids"].shape
    after = predict(checkpoint, encoded, settings).table
    assert [len(row) for row in after["logits"].to_pylist()] == [len(row) for row in before["logits"].to_pylist()]


def test_the_loss_is_the_mean_over_words_and_padding_has_none():
    import torch

    settings = problem()
    logits = torch.randn(2, 4, len(settings.labels))
    labels = torch.tensor([[-100, 1, 2, -100], [-100, 0, -100, -100]])
    expected = torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100])
    assert float(settings.loss(logits, {"labels": labels})) == pytest.approx(float(expected))
    nothing = torch.full((2, 4), -100)
    assert float(settings.loss(logits, {"labels": nothing})) == 0


def test_a_student_learns_each_word_of_its_teachers_in_every_window(tiny_model, tmp_path):
    import torch
    from scipy.special import log_softmax, softmax

    from ftlib.files import write_table

    rows, settings = long_rows(), problem(max_length=24, stride=8)
    checkpoint = checkpoints.load(tiny_model("bert"), settings)
    encoded, _ = encode(rows, settings, checkpoint.tokenizer)
    size, folders, teachers = len(settings.labels), [], []
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        words = [random.normal(size=(len(row), size)).astype(np.float32) for row in rows["tokens"].to_pylist()]
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        order = [1, 0, 2]
        table = pa.table({"row_id": rows["row_id"].take(order), "logits": [words[i].ravel() for i in order]})
        write_table(folders[-1] / "predictions.parquet", table)
        teachers.append({row_id: softmax(w, -1) for row_id, w in zip(rows["row_id"].to_pylist(), words, strict=True)})
    taught = with_teachers(encoded, folders, settings, checkpoint.tokenizer)
    given_rows = Rows.from_table(taught, checkpoint.tokenizer, settings)
    batch = given_rows.batch(np.arange(len(given_rows)))
    logits = torch.randn(*batch["labels"].shape, size)
    found = float(settings.distillation_loss(logits, batch, 2.0))

    total, count = 0.0, 0
    for line, outputs in zip(encoded.to_pylist(), logits.numpy(), strict=True):
        for token, word in enumerate(line["words"]):
            if word >= 0:
                mean = np.log(np.mean([t[line["row_id"]][word] for t in teachers], axis=0))
                p, q = log_softmax(mean / 2), log_softmax(outputs[token] / 2)
                total, count = total + float((np.exp(p) * (p - q)).sum()), count + 1
    assert found == pytest.approx(4 * total / count, rel=1e-4)


# -- labels --------------------------------------------------------------------------------------------


def test_tags_given_in_the_params_keep_their_order_and_get_their_other_mark():
    given_tags = TokenClassification(labels=("O", "B-PER", "B-LOC"))
    assert given_tags.bind(("O", "B-LOC", "I-LOC")).labels == ("O", "B-PER", "B-LOC", "I-PER", "I-LOC")
    assert TokenClassification().bind(("NOUN", "VERB")).target.is_plain
    with pytest.raises(DataError, match=r"unknown label 'B-PRE'. Did you mean 'B-PER'"):
        given_tags.bind(("O", "B-PRE"))


def test_tags_that_are_nothing_but_o_leave_nothing_to_learn():
    with pytest.raises(DataError, match="every word of train has the tag 'O'"):
        TokenClassification().bind(("O",))


def test_labels_in_another_scheme_are_refused_in_words():
    with pytest.raises(ValidationError, match="'S-PER' is not in BIO, into which all tags are read"):
        TokenClassification(labels=("O", "B-PER", "S-PER"))


def test_a_bound_problem_survives_json():
    assert Problem.model_validate(json.loads(json.dumps(problem().model_dump(mode="json")))) == problem()


# -- answers -------------------------------------------------------------------------------------------


def scores_for(settings: TokenClassification, tags: list[str], sure: float = 0.8) -> np.ndarray:
    ids = [settings.labels.index(tag) for tag in tags]
    size = len(settings.labels)
    return np.eye(size)[ids] * (sure - (1 - sure) / (size - 1)) + (1 - sure) / (size - 1)


def test_entities_of_a_text_have_places_in_it():
    from ftlib.targets.layout import Layout

    text = "Ada  Byron left Rome."
    settings = problem()
    tags = ["B-PER", "I-PER", "O", "B-LOC", "O"]
    told = settings.answers(scores_for(settings, tags), pa.table({"tokens": [text]}), Layout.of(np.array([5])))
    assert told["prediction"] == [tags]
    assert told["words"] == [["Ada", "Byron", "left", "Rome", "."]]
    person, place = told["entities"][0]
    assert person == pytest.approx({"type": "PER", "text": "Ada  Byron", "start": 0, "end": 10, "first_word": 0,
                                    "last_word": 1, "score": 0.8})  # fmt: skip
    assert text[place["start"] : place["end"]] == place["text"] == "Rome"
    assert told["confidence"][0] == pytest.approx(0.8)


def test_entities_of_words_have_places_among_them():
    from ftlib.targets.layout import Layout

    settings = problem()
    rows = pa.table({"tokens": [["It", "rains"], ["Ada", "Byron", "left"]]})
    scores = scores_for(settings, ["O", "O", "B-PER", "I-PER", "O"])
    told = settings.answers(scores, rows, Layout.of(np.array([2, 3])))
    assert told["entities"][0] == []
    [person] = told["entities"][1]
    assert (person["text"], person["start"], person["first_word"], person["last_word"]) == ("Ada Byron", None, 0, 1)
    assert "words" not in told


def test_plain_tags_have_no_entities():
    from ftlib.targets.layout import Layout

    settings = TokenClassification().bind(("NOUN", "VERB"))
    rows = pa.table({"tokens": [["Dogs", "bark"]]})
    told = settings.answers(scores_for(settings, ["NOUN", "VERB"]), rows, Layout.of(np.array([2])))
    assert list(told) == ["prediction", "confidence"]


# -- the whole chain -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_sample_runs_to_a_served_model_that_answers_as_in_training(tmp_path):
    run = run_sample(
        "token_classification",
        tmp_path,
        ["data.sources.all.num_rows=150", "training.num_train_epochs=1", "evaluation.bootstrap_samples=100",
         "problem.max_length=20", "problem.stride=6"],
    )  # fmt: skip
    found = run.evaluation
    assert [m["name"] for m in found["members"]] == ["full", "lora", "roberta", "prompt", "distilled"]
    assert {"averaging", "weighted", "stacking", "voting", "span_voting", "greedy"} == {
        f["name"] for f in found["fusions"]
    }
    assert (found["metric"], found["target"]) == ("f1", "tags")
    assert set(found["members"][0]["per_label"]) == {"DATE", "LOC", "ORG", "PER"}
    assert (run.folder("report") / "report.html").stat().st_size > 10_000
    check_one_answer(run, atol=1e-4)
    check_texts_and_broken_rows(run.served)
    check_measuring(run)


def check_texts_and_broken_rows(served) -> None:
    """Words, texts and rows that hold neither get their answers, or a reason."""
    told = served.predict(["Ada Byron left Rome .", "  ", "It rains"])
    assert told["prediction"].map(len, na_action="ignore").tolist()[::2] == [5, 2]
    assert told["reason"].tolist() == [None, "empty tokens", None]
    words = served.predict([{"tokens": ["Ada", "Byron", "left", "Rome", "."]}, {"tokens": []}, {"tokens": None}])
    assert words["prediction"][0] == told["prediction"][0]
    assert words["reason"].tolist() == [None, "empty tokens", "missing tokens"]
    for text, entities in zip(["Ada Byron left Rome .", "", "It rains"], told["entities"], strict=True):
        for entity in entities or []:
            assert text[entity["start"] : entity["end"]] == entity["text"]
    with pytest.raises(DataError, match="several kinds, such as lists of words and texts"):
        served.predict([{"tokens": "It rains"}, {"tokens": ["It"]}])


def check_measuring(run) -> None:
    """Measured on the test file, the served model has the figures of the evaluation."""
    from ftlib.evaluation.measuring import measure_model
    from ftlib.serving.reading import Rows as Given

    rows = run.test_rows().select(["tokens", "tags"])
    measured = measure_model(run.served, Given(rows, rows, pa.chunked_array([pa.nulls(len(rows), pa.string())])))
    best = run.evaluation["best"]
    assert measured.metrics["f1"] == pytest.approx(best["test"], abs=0.02)
    assert measured.num_rows == len(rows)


@pytest.mark.slow
def test_parts_of_speech_run_to_a_served_model(tmp_path):
    lines = [
        {"tokens": [str(i), *row["tokens"]], "tags": ["NUMBER", *("WORD" if t == "O" else "NAME" for t in row["tags"])]}
        for i, row in enumerate(TokenClassification.examples() * 6)
    ]
    path = tmp_path / "pos.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    run = run_sample(
        "token_classification",
        tmp_path,
        [f"data.sources.all={path}", "training.num_train_epochs=1", "evaluation.bootstrap_samples=100",
         "fusions=[averaging,voting,stacking]", "stages.2.base_model=random:bert"],
    )  # fmt: skip
    found = run.evaluation
    assert found["metric"] == "accuracy"
    assert set(found["members"][0]["per_label"]) == {"NAME", "NUMBER", "WORD"}
    check_one_answer(run, atol=1e-4)
