"""Few-shot training: pairs, mean pooling inside a plain model, and a head that is scikit-learn's regression."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from ftlib.data.encode import encode
from ftlib.errors import DataError, UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.layers import block_list
from ftlib.problems.base import Problem
from ftlib.steps import libraries_of
from ftlib.strategies.few_shot import FewShot
from ftlib.strategies.full import Full
from ftlib.training import shortcuts, stage, unpadding
from ftlib.training.logistic import sigmoid_head, softmax_head
from ftlib.training.pairs import alike, draw
from ftlib.training.regularization import Regularization
from ftlib.training.stage import Training
from tasks.training import Train
from tests import contracts
from tests.problems.language_models import TinyModel, batch_of

PROBLEM = contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 96})
TEXTS = [row["text"] for row in PROBLEM.examples()[:8]]


def opened(folder: Any, problem: Problem = PROBLEM) -> Any:
    stage.set_seed(3)
    return checkpoints.load(folder, problem)


# -- pairs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [False, True])
def test_every_pair_is_drawn_and_the_rarer_kind_as_often_as_the_other(sets: bool):
    random = np.random.default_rng(1)
    labels = (random.random((9, 3)) < 0.4).astype(np.float32) if sets else random.integers(0, 3, 9)
    wanted: dict[bool, set] = {True: set(), False: set()}
    for i, j in combinations_with_replacement(range(9), 2):
        same = any(a and b for a, b in zip(labels[i], labels[j], strict=True)) if sets else labels[i] == labels[j]
        wanted[bool(same)].add((i, j))
    drawn = draw(labels, 1000, random)
    found = {kind: [(i, j) for i, j in drawn.tolist() if alike(labels[[i]], labels[[j]])[0] == kind] for kind in wanted}
    assert {kind: set(pairs) for kind, pairs in found.items()} == wanted
    assert len(found[True]) == len(found[False]) == max(map(len, wanted.values()))
    repeats = [pairs.count(pair) for pairs in found.values() for pair in set(pairs)]
    assert max(repeats) <= -(-len(found[True]) // min(map(len, wanted.values())))


def test_too_many_pairs_are_cut_evenly():
    labels = np.arange(5000) % 2
    drawn = draw(labels, 200, np.random.default_rng(0))
    same = labels[drawn[:, 0]] == labels[drawn[:, 1]]
    assert (same.sum(), (~same).sum()) == (100, 100)
    assert len(np.unique(drawn)) > 300  # from all rows, not from the first ones


# -- mean pooling --------------------------------------------------------------------------------------


def mean_vectors(folder: Any, texts: list[str]) -> torch.Tensor:
    """Return sentence vectors by hand, as sentence-transformers pools: the mean of the last states, padding aside."""
    with checkpoints.quiet():
        model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    return (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)


def cosines(vectors: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return unit @ unit.T


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_texts_are_as_similar_as_the_means_of_their_tokens(architecture: str, tiny_model: TinyModel):
    checkpoint = opened(tiny_model(architecture))
    model = FewShot().adapt(checkpoint.model, PROBLEM)
    batch = batch_of(contracts.encoded_rows(PROBLEM, checkpoint.tokenizer), checkpoint, PROBLEM)
    with torch.no_grad():
        found = PROBLEM.forward(model, batch)
        expected = mean_vectors(tiny_model(architecture), TEXTS)
    bent = 0.02 if architecture != "distilbert" else 1e-3  # by tanh; of vectors of width 32 more than of real ones
    torch.testing.assert_close(cosines(found), cosines(expected), atol=bent, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)), atol=0.05, rtol=0)


def test_the_loss_is_the_squared_difference_of_cosine_similarity_and_likeness(tiny_model: TinyModel):
    """Against sentence-transformers' CosineSimilarityLoss: the mean squared error of cos(u, v) to 1 or 0."""
    torch.manual_seed(1)
    u, v = torch.randn(4, 6), torch.randn(4, 6)
    batch = {"labels": torch.tensor([0, 0, 1, 2, 2, 2, 0, 1])}
    cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    expected = ((cosine - torch.tensor([1.0, 0.0, 1.0, 0.0])) ** 2).mean()
    torch.testing.assert_close(FewShot().loss(torch.stack((u, v), 1).flatten(0, 1), batch, PROBLEM), expected)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_models_that_cannot_pool_the_mean_are_refused_with_the_remedy(family: str, tiny_model: TinyModel):
    with pytest.raises(UnsupportedError, match="pooling: head"):
        FewShot().adapt(opened(tiny_model(family)).model, PROBLEM)


# -- the head ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0, 1] * 10, [0, 1, 2, 2] * 5])
def test_the_softmax_of_the_head_is_the_regression_s_probabilities(labels: list[int]):
    features = np.random.default_rng(0).normal(size=(20, 5))
    weight, bias = softmax_head(features, np.array(labels), 4, 0.7)
    scores = np.exp(features @ weight.T + bias)
    theirs = LogisticRegression(C=0.7, max_iter=1000).fit(features, labels).predict_proba(features)
    known = len(set(labels))
    np.testing.assert_allclose((scores / scores.sum(1, keepdims=True))[:, :known], theirs, atol=1e-6)
    assert (scores[:, known:] < scores[:, :known].max(1, keepdims=True) * 1e-4).all()  # labels that no row has


def test_the_sigmoid_of_the_head_is_each_label_s_regression():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(20, 5)), (random.random((20, 3)) < 0.5).astype(float)
    labels[:, 2] = 0  # of which no row has any
    weight, bias = sigmoid_head(features, labels, 1.0)
    ours = 1 / (1 + np.exp(-features @ weight.T - bias))
    for label in range(2):
        theirs = LogisticRegression(max_iter=1000).fit(features, labels[:, label]).predict_proba(features)[:, 1]
        np.testing.assert_allclose(ours[:, label], theirs, atol=1e-6)
    np.testing.assert_allclose(ours[:, 2], 0.5 / 21)


def test_rows_of_a_single_label_are_refused():
    with pytest.raises(DataError, match="one label"):
        softmax_head(np.zeros((3, 2)), np.ones(3, int), 2, 1.0)


# -- a stage -------------------------------------------------------------------------------------------


def trained(start: Any, folder: Any, pooling: Any = "mean", **settings: Any) -> contracts.Trained:
    return contracts.train_on_examples(FewShot(pooling=pooling), PROBLEM, start, folder, num_epochs=2.0, **settings)


def plain(folder: Any, texts: list[str]) -> np.ndarray:
    """Return what plain transformers gives for each text."""
    with checkpoints.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_a_saved_stage_is_a_plain_checkpoint(architecture: str, tiny_model: TinyModel, tmp_path):
    result = trained(tiny_model(architecture), tmp_path)
    ours = contracts.logits(result.reloaded, result.rows, PROBLEM)
    np.testing.assert_allclose(plain(result.folder, TEXTS), ours, rtol=1e-4, atol=1e-4)
    contracts.check_reload(result)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_the_saved_head_is_the_regression_on_what_it_reads(architecture: str, tiny_model: TinyModel, tmp_path):
    result = trained(tiny_model(architecture), tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(result.folder).eval()
    batch = batch_of(result.rows, result.reloaded, PROBLEM)
    read: list[Any] = []
    model.classifier.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0].numpy()))
    with torch.no_grad():
        logits = model(**{name: values for name, values in batch.items() if name != "labels"}).logits
    features, labels = np.repeat(read[0], 20, axis=0), np.repeat(batch["labels"].numpy(), 20)  # rows came 20 times
    theirs = LogisticRegression(max_iter=1000).fit(features, labels).predict_proba(features)[::20]
    np.testing.assert_allclose(torch.softmax(logits, -1).numpy(), theirs, atol=1e-3)


def test_texts_of_one_label_draw_together(tiny_model: TinyModel, tmp_path):
    result = contracts.train_on_examples(
        FewShot(), PROBLEM, tiny_model("bert"), tmp_path, num_epochs=8.0, learning_rate=2e-3
    )
    losses = [row["loss"] for row in result.result.history if "loss" in row]
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) / 2
    assert result.result.history[-1]["validation_loss"] == result.result.figures["best_validation_loss"]


def test_sets_of_labels_are_learned_too(tiny_model: TinyModel, tmp_path):
    problem = Problem.named("text_classification")(labels=("a", "b", "c"), multi_label=True, max_length=96)
    names = [["a"], ["a", "b"], ["b"], ["c"], ["c", "a"], [], ["b"], ["c"]]
    checkpoint = opened(tiny_model("bert"), problem)
    rows = pa.table({"row_id": np.arange(8), "text": TEXTS, "label": pa.array(names, pa.list_(pa.string()))})
    rows = encode(rows, problem, checkpoint.tokenizer)[0]
    settings = Training(learning_rate=2e-3, num_train_epochs=4.0, batch_size=8, precision="float32")
    result = stage.train(checkpoint, contracts.repeated(rows, 10), rows, problem=problem, strategy=FewShot(c=100.0),
                         settings=settings, seed=3, scratch=tmp_path, name="train-test")  # fmt: skip
    probabilities = 1 / (1 + np.exp(-contracts.logits(result.checkpoint, rows, problem)))
    assert [[name for name, p in zip("abc", row, strict=True) if p > 0.5] for row in probabilities] == [
        sorted(row) for row in names
    ]


def test_regularization_of_a_loss_on_labels_is_refused_in_one_line(tiny_model: TinyModel, tmp_path):
    with pytest.raises(UnsupportedError, match=r"cannot use regularization.label_smoothing: .*leave it out"):
        trained(tiny_model("bert"), tmp_path, regularization=Regularization(label_smoothing=0.1))


def test_the_version_of_scikit_learn_is_in_its_cache_key_and_not_in_others():
    keys = [
        libraries_of(Train(step_name="train-x", problem=PROBLEM, strategy=strategy, training=Training(), seed=1))
        for strategy in (FewShot(), Full())
    ]
    assert ["scikit-learn" in names for names in keys] == [True, False]


def test_a_stage_after_it_adds_no_second_block(tiny_model: TinyModel, tmp_path):
    first = trained(tiny_model("bert"), tmp_path / "first")
    second = trained(first.folder, tmp_path / "second")
    assert len(block_list(first.reloaded.model)) == len(block_list(second.reloaded.model)) == 3
    assert second.reloaded.model.config.num_hidden_layers == 3


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_what_the_model_s_own_head_reads_can_be_contrasted_in_every_family(family, tiny_model: TinyModel, tmp_path):
    result = trained(tiny_model(family), tmp_path, pooling="head")
    contracts.check_reload(result)
    np.testing.assert_allclose(
        plain(result.folder, TEXTS), contracts.logits(result.reloaded, result.rows, PROBLEM), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("architecture", "pooling"), [("bert", "mean"), ("bert", "head"), ("llama", "head")])
def test_pairs_in_parts_and_without_padding_give_the_weights_of_padded_batches(
    architecture: str, pooling: str, tiny_model: TinyModel, tmp_path, monkeypatch
):
    found: list[dict[str, torch.Tensor]] = []
    laid_out: list[str] = []
    lay_out = unpadding.Unpadding._lay_out
    for name, settings in {"parts": {"micro_batch_size": 3}, "whole": {}, "padded": {}}.items():

        def noted(self: Any, states: torch.Tensor, name: str = name) -> None:
            laid_out.append(name)
            lay_out(self, states)

        monkeypatch.setattr(unpadding.Unpadding, "_lay_out", noted)
        monkeypatch.setattr(shortcuts, "is_right", (lambda *_: False) if name == "padded" else unpadding.is_right)
        model = trained(tiny_model(architecture), tmp_path / name, pooling, **settings).result.checkpoint.model
        assert (name in laid_out) == (name != "padded")
        found.append({key: value.clone() for key, value in model.state_dict().items()})
    for other in found[:2]:
        for key, value in found[2].items():
            if not key.endswith("key.bias"):  # its gradients are rounding alone, which Adam makes large
                torch.testing.assert_close(other[key], value, atol=5e-4, rtol=2e-3, msg=key)
