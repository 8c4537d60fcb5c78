"""Attributions: completeness, a model whose attributions are known, and other people's integrated gradients."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ftlib.errors import UnsupportedError
from ftlib.explaining.attribution import attribute, check
from ftlib.models.virtual_tokens import VirtualTokens, attach
from ftlib.problems.base import Problem

TEXTS = ["I was charged twice in May.", "How do I change the email address or the password of my login?", "bad"]


def rows(kind: str) -> pa.Table:
    return pa.table({"text": TEXTS} | ({"text_pair": TEXTS[::-1]} if kind == "pair" else {}))


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("kind", ["single", "multi", "pair", "value"])
def test_integrated_gradients_add_up_to_the_score_less_that_of_an_empty_text(kind: str, architecture: str, served):
    model = served(kind, architecture=architecture)
    member, problem = model.members[0], model.problem
    encoded = problem.encode(rows(kind), member.tokenizer_object)
    outputs = np.arange(3) % problem.target.num_outputs
    found = attribute(member.checkpoint, encoded, outputs, problem, steps=32)
    scores = model.score(rows(kind)).scores
    for i, one in enumerate(found):
        assert one.score == pytest.approx(scores[i, outputs[i]], abs=1e-5)
        assert one.tokens.sum() + one.added == pytest.approx(one.score - one.baseline, abs=0.01, rel=0.01)
        assert len(one.tokens) == len(encoded["input_ids"][i])
    assert max(abs(one.tokens).max() for one in found) > 1e-3, "a head with an opinion is moved by words"


def test_special_tokens_are_in_the_empty_text_too_and_add_nothing(served):
    model = served("single")
    encoded = model.problem.encode(rows("single"), model.members[0].tokenizer_object)
    for one in attribute(model.members[0].checkpoint, encoded, np.zeros(3, int), model.problem):
        assert one.tokens[0] == one.tokens[-1] == 0


def test_a_row_has_the_same_attributions_alone_and_beside_longer_ones(served):
    model = served("single")
    encoded = model.problem.encode(rows("single"), model.members[0].tokenizer_object)
    checkpoint = model.members[0].checkpoint
    together = attribute(checkpoint, encoded, np.zeros(3, int), model.problem)
    alone = attribute(checkpoint, encoded.slice(2, 1), np.zeros(1, int), model.problem)[0]
    np.testing.assert_allclose(together[2].tokens, alone.tokens, atol=1e-6)


def test_they_are_those_of_the_definition_written_out(served):
    """Sundararajan et al. (2017), equation 3, with 400 plain steps through the model itself."""
    import torch

    model = served("single")
    checkpoint = model.members[0].checkpoint
    encoded = model.problem.encode(rows("single"), model.members[0].tokenizer_object)
    found = attribute(checkpoint, encoded, np.array([1, 1, 1]), model.problem, steps=64)[0]
    ids = torch.tensor([encoded["input_ids"][0].as_py()])
    table = checkpoint.model.get_input_embeddings().weight.detach()
    words, empty = table[ids], table[ids.where(ids < 5, checkpoint.tokenizer.pad_token_id)]
    total = torch.zeros_like(words)
    for step in (torch.arange(400) + 0.5) / 400:
        point = (empty + step * (words - empty)).requires_grad_()
        score = checkpoint.model(inputs_embeds=point, token_type_ids=torch.zeros_like(ids)).logits.softmax(-1)[0, 1]
        total += torch.autograd.grad(score, point)[0] / 400
    expected = (total * (words - empty)).sum(-1)[0].numpy()
    np.testing.assert_allclose(found.tokens, expected, atol=2e-4)


def test_virtual_tokens_are_counted_apart_from_the_rows_own(served):
    model = served("single")
    checkpoint = model.members[0].checkpoint
    attach(checkpoint.model, VirtualTokens((7, 8, 9), 1))
    encoded = model.problem.encode(rows("single"), model.members[0].tokenizer_object)
    for i, one in enumerate(attribute(checkpoint, encoded, np.zeros(3, int), model.problem)):
        assert len(one.tokens) == len(encoded["input_ids"][i])
        assert one.added == 0
        assert one.tokens.sum() == pytest.approx(one.score - one.baseline, abs=0.01)


def test_input_x_gradient_is_the_embedding_times_its_gradient(served):
    import torch

    model = served("value")
    checkpoint = model.members[0].checkpoint
    encoded = model.problem.encode(rows("value"), model.members[0].tokenizer_object)
    found = attribute(checkpoint, encoded, np.zeros(3, int), model.problem, method="input_x_gradient")[0]
    ids = torch.tensor([encoded["input_ids"][0].as_py()])
    words = checkpoint.model.get_input_embeddings().weight.detach()[ids].requires_grad_()
    score = checkpoint.model(inputs_embeds=words, token_type_ids=torch.zeros_like(ids)).logits[0, 0]
    expected = (torch.autograd.grad(score, words)[0] * words).sum(-1)[0].detach().numpy()
    np.testing.assert_allclose(found.tokens, expected, atol=1e-4)


@pytest.mark.parametrize("name", Problem.available())
def test_every_problem_can_be_explained_or_says_why_not(name: str):
    problem = Problem.named(name)()
    if problem.text_columns and problem.target.kind in ("single_label", "multi_label", "value"):
        check(problem)
    else:
        with pytest.raises(UnsupportedError, match=rf"^{name} cannot be explained: .*\.$"):
            check(problem)


def test_a_model_that_reads_the_text_twice_is_refused(served):
    model = served("single")
    model.members[0].checkpoint.model.config.is_encoder_decoder = True
    encoded = model.problem.encode(rows("single"), model.members[0].tokenizer_object)
    with pytest.raises(UnsupportedError, match="reads the text twice"):
        attribute(model.members[0].checkpoint, encoded, np.zeros(3, int), model.problem)
