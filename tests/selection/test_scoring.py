"""Scores of candidates: features as plain transformers gives them, probes as scikit-learn has them, every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from transformers import AutoModel

from ftlib.crossfitting import deal_folds
from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.selection import scoring
from ftlib.selection.features import samples
from ftlib.selection.logme import logme
from ftlib.selection.probe import NUM_FOLDS, probe
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value
from tests import contracts

TinyModel = Callable[..., Path]


def rows_of(name: str, **settings: Any) -> tuple[Problem, pa.Table]:
    problem = contracts.bound(Problem.named(name).model_validate(settings))
    return problem, contracts.labelled_rows(problem)


def scored(folder: Path, problem: Problem, rows: pa.Table, **settings: Any) -> scoring.Score:
    return scoring.score(folder, rows, problem, **{"method": "logme", "num_rows": 100, "seed": 1, **settings})


@pytest.mark.parametrize("architecture", ["bert", "roberta", "llama", "t5"])
def test_a_texts_features_are_the_mean_of_its_tokens_last_states(architecture: str, tiny_model: TinyModel):
    problem, rows = rows_of("text_classification")
    folder = tiny_model(architecture)
    checkpoint = checkpoints.load(folder, problem)
    found = samples(checkpoint, contracts.encoded_rows(problem, checkpoint.tokenizer, None), problem)
    model = AutoModel.from_pretrained(folder).eval()
    reader = model.encoder if architecture == "t5" else model
    for text, vector in zip(rows["text"].to_pylist(), found.features, strict=True):
        inputs = checkpoint.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = reader(**{k: inputs[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
        np.testing.assert_allclose(vector, states[0].mean(0), atol=1e-4)
    assert found.labels.tolist() == problem.target.encode(rows["label"]).tolist()


def test_a_words_features_are_those_of_its_first_piece(tiny_model: TinyModel):
    problem, rows = rows_of("token_classification", max_length=16, stride=4)
    checkpoint = checkpoints.load(tiny_model("bert"), problem)
    found = samples(checkpoint, contracts.encoded_rows(problem, checkpoint.tokenizer, None), problem)
    assert found.labels.tolist() == problem.target.encode(rows["tags"]).tolist()
    words = [word for row in rows["tokens"].to_pylist() for word in row]
    assert found.features.shape == (len(words), 32)
    short = rows["tokens"].to_pylist()[3]  # fits one window
    inputs = checkpoint.tokenizer(short, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(tiny_model("bert")).eval()(**inputs).last_hidden_state[0]
    first = [inputs.word_ids().index(i) for i in range(len(short))]
    start = sum(map(len, rows["tokens"].to_pylist()[:3]))
    np.testing.assert_allclose(found.features[start : start + len(short)], states[first], atol=1e-4)


def test_the_probe_is_cross_validated_logistic_regression():
    random = np.random.default_rng(0)
    features = random.normal(size=(90, 5))
    labels = (features[:, 0] + random.normal(size=90) > 0).astype(int) + (features[:, 1] > 1)
    target = SingleLabel(("a", "b", "c"))
    folds = deal_folds(labels, NUM_FOLDS, seed=3)
    scaled = (features - features.mean(0)) / features.std(0)
    guesses = np.empty_like(labels)
    for fold in range(NUM_FOLDS):
        fitted = LogisticRegression(max_iter=1000).fit(scaled[folds != fold], labels[folds != fold])
        guesses[folds == fold] = fitted.predict(scaled[folds == fold])
    assert probe(features, labels, target, seed=3) == pytest.approx(accuracy_score(labels, guesses))


def test_the_probe_reads_numbers_and_sets_of_labels_too():
    random = np.random.default_rng(1)
    features = random.normal(size=(60, 4))
    values = (2 * features[:, 0] + 0.1 * random.normal(size=60)).astype(np.float32)
    assert probe(features, values, Value(), seed=0) > 0.95
    assert Ridge().fit(features, values).score(features, values) > 0.95
    sets = (features[:, :3] > 0).astype(np.float32)
    assert probe(features, sets, MultiLabel(("a", "b", "c")), seed=0) > 0.9


@pytest.mark.parametrize(
    ("problem", "architecture", "settings"),
    [
        ("text_classification", "bert", {}),
        ("text_pair_regression", "roberta", {}),
        ("token_classification", "bert", {}),
        ("relation_classification", "distilbert", {}),
        ("text_generation", "llama", {}),
        ("summarization", "t5", {}),
        ("masked_language_modeling", "bert_lm", {}),
        ("image_text_classification", "clip", {}),
    ],
)
def test_a_candidate_that_can_do_the_problem_has_a_score(
    problem: str, architecture: str, settings: dict, tiny_model: TinyModel
):
    built, rows = rows_of(problem, **settings)
    found = scored(tiny_model(architecture), built, rows)
    assert found.unfit == found.note == ""
    assert found.value is not None
    assert np.isfinite(found.value)
    assert found.num_parameters > 1000


def test_scores_of_the_same_rows_are_the_same_and_depend_on_the_rows(tiny_model: TinyModel):
    problem, rows = rows_of("text_classification")
    first, again, fewer = (scored(tiny_model("bert"), problem, rows, num_rows=n).value for n in (10, 10, 7))
    assert first == again != fewer


def test_logme_of_a_problem_is_that_of_its_features(tiny_model: TinyModel):
    problem, rows = rows_of("text_classification")
    checkpoint = checkpoints.load(tiny_model("bert"), problem)
    found = samples(checkpoint, contracts.encoded_rows(problem, checkpoint.tokenizer, None), problem)
    expected = logme(found.features, np.eye(3)[found.labels])
    assert scored(tiny_model("bert"), problem, rows).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("problem", "architecture", "reason"),
    [
        ("token_classification", "llama", "needs an encoder"),
        ("text_classification", "clip", "got clip, a model of images and texts"),
        ("text_generation", "bert", "needs a causal model"),
    ],
)
def test_a_family_that_cannot_do_the_problem_is_left_out_with_the_reason(
    problem: str, architecture: str, reason: str, tiny_model: TinyModel
):
    built, rows = rows_of(problem)
    found = scored(tiny_model(architecture), built, rows)
    assert reason in found.unfit
    assert found.value is found.num_parameters is None


def test_spans_have_no_score_and_the_reason_is_told(tiny_model: TinyModel):
    problem, rows = rows_of("question_answering")
    found = scored(tiny_model("bert"), problem, rows)
    assert found.value is None
    assert found.note.startswith("frozen features say nothing of question_answering")
    assert found.unfit == ""


def test_a_broken_model_has_no_score_and_the_reason_is_told(broken_model: Path):
    problem, rows = rows_of("text_classification")
    found = scored(broken_model, problem, rows)
    assert (found.value, found.note) == (None, "its hidden states are not finite: the model is broken.")


def test_a_loss_of_tokens_counts_by_the_row_whatever_the_vocabulary(tiny_model: TinyModel):
    problem, _ = rows_of("causal_language_modeling")
    checkpoint = checkpoints.load(tiny_model("llama"), problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    known = problem.measure(checkpoint, rows)["loss"]
    tokens = sum(label >= 0 for line in rows["labels"].to_pylist() for label in line)
    found = scoring.measured(checkpoint, rows, problem, "float32")
    assert found[scoring.LOSS] == pytest.approx(known * tokens / len(set(rows["row_id"].to_pylist())))
    assert scoring.yardstick(problem) == (scoring.LOSS, False)
