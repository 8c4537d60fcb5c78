"""P-tuning against a direct implementation, and its network against peft's."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.strategies.p_tuning import PTuning
from ftlib.training import stage
from tests import contracts
from tests.problems.language_models import TinyModel, batch_of

PROBLEM = contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 96})
NETWORKS = {"mlp": PTuning(num_virtual_tokens=5), "lstm": PTuning(num_virtual_tokens=5, network="lstm", network_size=6)}


def opened(tiny_model: TinyModel) -> Any:
    """Return a tiny encoder, the same each time."""
    stage.set_seed(3)
    return checkpoints.load(tiny_model("bert"), PROBLEM)


def made(vectors: torch.Tensor, named: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the virtual tokens' embeddings: h = MLP([LSTM forward, LSTM backward]), or the MLP alone."""
    if "lstm.weight_ih_l0" in named:
        lstm = nn.LSTM(32, 6, num_layers=2, bidirectional=True)
        weights = {name.removeprefix("lstm."): value for name, value in named.items() if name.startswith("lstm.")}
        vectors, _ = torch.func.functional_call(lstm, weights, (vectors.unsqueeze(1),))
        vectors = vectors.squeeze(1)
    for at in sorted({name.split(".")[1] for name in named if name.startswith("mlp.")}):
        vectors = vectors if at == "0" else vectors.relu()
        vectors = vectors @ named[f"mlp.{at}.weight"].T + named[f"mlp.{at}.bias"]
    return vectors


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_gradients_are_those_of_embeddings_put_in_by_hand(name: str, tiny_model: TinyModel):
    ours, plain = opened(tiny_model), opened(tiny_model).model
    batch = batch_of(contracts.encoded_rows(PROBLEM, ours.tokenizer), ours, PROBLEM)
    model = NETWORKS[name].adapt(ours.model, PROBLEM)
    loss = PROBLEM.loss(PROBLEM.forward(model, batch), batch)
    loss.backward()
    table = model.get_input_embeddings()
    named = dict(table.parametrizations.rows[0].named_parameters())
    leaves = {n: p.detach().clone().requires_grad_() for n, p in named.items()}
    vectors = table.parametrizations.rows.original.detach().clone().requires_grad_()
    rows = made(vectors, leaves).expand(len(batch["labels"]), -1, -1)
    words = plain.get_input_embeddings()(batch["input_ids"])
    mask = batch["attention_mask"]
    output = plain(
        inputs_embeds=torch.cat((words[:, :1], rows, words[:, 1:]), dim=1),
        attention_mask=torch.cat((torch.ones_like(mask[:, :5]), mask), dim=1),
        labels=batch["labels"],
    )
    output.loss.backward()
    torch.testing.assert_close(loss, output.loss)
    torch.testing.assert_close(table.parametrizations.rows.original.grad, vectors.grad, rtol=1e-4, atol=1e-7)
    for key, parameter in named.items():
        torch.testing.assert_close(parameter.grad, leaves[key].grad, msg=key, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_peft_s(name: str, tiny_model: TinyModel):
    table = NETWORKS[name].adapt(opened(tiny_model).model, PROBLEM).get_input_embeddings()
    theirs = peft.PromptEncoder(
        peft.PromptEncoderConfig(
            num_virtual_tokens=5,
            token_dim=32,
            num_transformer_submodules=1,
            encoder_reparameterization_type=name.upper(),
            encoder_hidden_size=6 if name == "lstm" else 32,
        )
    )
    named = {k.replace(".", "_head.", 1): v for k, v in table.parametrizations.rows[0].state_dict().items()}
    theirs.load_state_dict({**named, "embedding.weight": table.parametrizations.rows.original})
    torch.testing.assert_close(table.rows, theirs(torch.arange(5)))


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_what_is_saved_is_a_plain_model_with_what_the_network_made(architecture, tiny_model: TinyModel, tmp_path):
    strategy = PTuning(num_virtual_tokens=5, network="lstm")
    trained = contracts.train_on_examples(strategy, PROBLEM, tiny_model(architecture), tmp_path, num_epochs=1.0)
    with checkpoints.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(trained.folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    texts = [row["text"] for row in PROBLEM.examples()[:8]]
    with torch.no_grad():
        theirs = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts]
    ours = contracts.logits(trained.reloaded, trained.rows, PROBLEM)
    np.testing.assert_allclose(np.stack(theirs), ours, rtol=1e-5, atol=3e-5)
    assert not any("parametrizations" in name for name in contracts.weights(trained.result.checkpoint.model))


def test_the_network_is_counted_while_training_and_gone_afterwards(tiny_model: TinyModel, tmp_path):
    strategy = PTuning(num_virtual_tokens=5, network_size=8)
    trained = contracts.train_on_examples(strategy, PROBLEM, tiny_model("bert"), tmp_path, num_epochs=1.0)
    network = (32 * 8 + 8) + (8 * 8 + 8) + (8 * 32 + 32)
    head = 32 * 3 + 3
    assert trained.result.figures["num_trainable_parameters"] == 5 * 32 + network + head
    start = sum(value.size for name, value in trained.start.items() if "position_ids" not in name)
    assert trained.result.figures["num_parameters"] == start + 5 * 32
