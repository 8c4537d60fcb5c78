"""Attributions: completeness, a model whose attributions are known, and other people's integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ftlib.explaining.attribution import Attributed, attribute
from ftlib.models.virtual_tokens import VirtualTokens, attach
from ftlib.problems._questions import Question
from ftlib.serving.answering import Served

TEXTS = ["I was charged twice in May.", "How do I change the email address or the password of my login?", "bad"]


def rows(kind: str) -> pa.Table:
    return pa.table({"text": TEXTS} | ({"text_pair": TEXTS[::-1]} if kind == "pair" else {}))


def attributions(model: Served, table: pa.Table, outputs: Sequence[int], **settings: Any) -> list[Attributed]:
    """Return what the tokens of each row add to one of its scores."""
    checkpoint = model.members[0].checkpoint
    questions = [Question(i, "", None, output) for i, output in enumerate(outputs)]
    posed = model.problem.pose(checkpoint, table, questions)
    return [attribute(checkpoint, one, model.problem, **settings) for one in posed]


def tokens(model: Served, table: pa.Table) -> list[list[int]]:
    return model.problem.encode(table, model.members[0].checkpoint.tokenizer)["input_ids"].to_pylist()


def check_sums(model: Served, table: pa.Table, outputs: Sequence[int], **settings: Any) -> None:
    """Attributions are of the model's own scores, one a token, and add up."""
    scores, ids = model.score(table).scores, tokens(model, table)
    found = attributions(model, table, outputs, **settings)
    for i, one in enumerate(found):
        assert one.score == pytest.approx(scores[i, outputs[i]], abs=1e-5)
        assert one.values.sum() + one.added == pytest.approx(one.score - one.baseline, abs=0.01, rel=0.01)
        assert len(one.values) == len(ids[i])
    assert max(abs(one.values).max() for one in found) > 1e-3, "a head with an opinion is moved by words"


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("kind", ["single", "multi", "pair", "value"])
def test_integrated_gradients_add_up_to_the_score_less_that_of_an_empty_text(kind: str, architecture: str, served):
    model = served(kind, architecture=architecture)
    check_sums(model, rows(kind), [i % model.problem.target.num_outputs for i in range(3)], steps=32)


@pytest.mark.parametrize("architecture", ["bart", "t5", "llama", "gpt2"])
def test_they_add_up_in_models_that_read_a_text_twice_or_from_left_to_right(architecture: str, served):
    check_sums(served("single", architecture=architecture), rows("single"), [0, 1, 2])


def test_special_tokens_are_in_the_empty_text_too_and_add_nothing(served):
    for one in attributions(served("single"), rows("single"), [0, 0, 0]):
        assert one.values[0] == one.values[-1] == 0
        assert one.added == pytest.approx(0, abs=1e-9)


def test_they_are_those_of_the_definition_written_out(served):
    """Sundararajan et al. (2017), equation 3, with 400 plain steps through the model itself."""
    import torch

    model = served("single")
    checkpoint = model.members[0].checkpoint
    found = attributions(model, rows("single"), [1, 1, 1], steps=64)[0]
    ids = torch.tensor([tokens(model, rows("single"))[0]])
    table = checkpoint.model.get_input_embeddings().weight.detach()
    words, empty = table[ids], table[ids.where(ids < 5, checkpoint.tokenizer.pad_token_id)]
    total = torch.zeros_like(words)
    for step in (torch.arange(400) + 0.5) / 400:
        point = (empty + step * (words - empty)).requires_grad_()
        score = checkpoint.model(inputs_embeds=point, token_type_ids=torch.zeros_like(ids)).logits.softmax(-1)[0, 1]
        total += torch.autograd.grad(score, point)[0] / 400
    expected = (total * (words - empty)).sum(-1)[0].numpy()
    np.testing.assert_allclose(found.values, expected, atol=2e-4)


def test_a_linear_model_that_reads_the_text_twice_gives_each_token_what_it_adds_in_both_halves(served, monkeypatch):
    """Of a score that is the sum of all embeddings, what a token adds is known: it counts once in each half."""
    model = served("single", architecture="bart")
    network = model.members[0].checkpoint.model
    table = network.get_input_embeddings()
    monkeypatch.setattr(
        type(model.problem), "forward",
        lambda self, of, batch: (
            table(batch["input_ids"]).sum((1, 2))[:, None]
            + 10 * table(batch["input_ids"].roll(1, 1)).sum((1, 2))[:, None]
        ).repeat(1, 3),
    )  # fmt: skip
    monkeypatch.setattr("ftlib.problems._questions.of_output", lambda kind, output: lambda logits: logits[:, output])
    ids = np.array(tokens(model, rows("single"))[0])
    weights = table.weight.detach().sum(1).numpy()
    expected = 11 * (weights[ids] - weights[model.members[0].checkpoint.tokenizer.pad_token_id])
    expected[[0, -1]] = 0
    found = attributions(model, rows("single"), [0, 0, 0])[0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "bart"])
def test_virtual_tokens_are_none_of_the_rows_own(architecture: str, served):
    model = served("single", architecture=architecture)
    attach(model.members[0].checkpoint.model, VirtualTokens((7, 8, 9), 1))
    check_sums(model, rows("single"), [0, 0, 0])
    assert all(one.added == pytest.approx(0, abs=1e-9) for one in attributions(model, rows("single"), [0, 0, 0]))


def test_input_x_gradient_is_the_embedding_times_its_gradient(served):
    import torch

    model = served("value")
    checkpoint = model.members[0].checkpoint
    found = attributions(model, rows("value"), [0, 0, 0], method="input_x_gradient")[0]
    ids = torch.tensor([tokens(model, rows("value"))[0]])
    words = checkpoint.model.get_input_embeddings().weight.detach()[ids].requires_grad_()
    score = checkpoint.model(inputs_embeds=words, token_type_ids=torch.zeros_like(ids)).logits[0, 0]
    expected = (torch.autograd.grad(score, words)[0] * words).sum(-1)[0].detach().numpy()
    np.testing.assert_allclose(found.values[1:-1], expected[1:-1], atol=1e-4)
    assert found.added == pytest.approx(expected[0] + expected[-1], abs=1e-4), "special tokens are no words"
