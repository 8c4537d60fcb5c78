"""LoRA and IA3 against peft used by hand, and what is merged against the papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, XLNetConfig, XLNetForSequenceClassification

from ftlib.errors import UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.peft_models import known_warnings
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.strategies.ia3 import Ia3, _scaled
from ftlib.strategies.lora import Lora
from ftlib.training import stage
from tests import contracts
from tests.problems.language_models import TinyModel, batch_of

PROBLEM = contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 96})
EVERY_LINEAR = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
BY_HAND: dict[str, tuple[Strategy, peft.PeftConfig]] = {
    "ia3": (
        Ia3(),
        peft.IA3Config(
            target_modules=r".*(key|value|layer\.\d\.output\.dense)",
            feedforward_modules=r".*layer\.\d\.output\.dense",
            modules_to_save=["classifier"],
        ),
    ),
    "lora": (
        Lora(r=4, alpha=8.0, dropout=0.0),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=[*EVERY_LINEAR, "pooler.dense"],
                        modules_to_save=["classifier"]),
    ),
    "rslora": (
        Lora(r=4, alpha=8.0, dropout=0.0, rslora=True),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=[*EVERY_LINEAR, "pooler.dense"], use_rslora=True,
                        modules_to_save=["classifier"]),
    ),
    "dora": (
        Lora(r=4, alpha=8.0, dropout=0.0, dora=True),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=[*EVERY_LINEAR, "pooler.dense"], use_dora=True,
                        modules_to_save=["classifier"]),
    ),
}  # fmt: skip
WRAPPED = "base_model.model."


def opened(tiny_model: TinyModel) -> Any:
    """Return a tiny encoder, the same each time."""
    stage.set_seed(3)
    return checkpoints.load(tiny_model("bert"), PROBLEM)


def moved(model: Any) -> Any:
    """Return the model with what learns moved from where it began: at first adapters change nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", BY_HAND)
def test_losses_and_gradients_are_those_of_peft_used_by_hand(name: str, tiny_model: TinyModel):
    strategy, config = BY_HAND[name]
    ours, theirs = opened(tiny_model), opened(tiny_model)
    batch = batch_of(contracts.encoded_rows(PROBLEM, ours.tokenizer), ours, PROBLEM)
    one = moved(strategy.adapt(ours.model, PROBLEM))
    with known_warnings():
        other = peft.get_peft_model(theirs.model, config)
    other.load_state_dict(one.state_dict())
    losses = [
        strategy.loss(PROBLEM.forward(one, batch), batch, PROBLEM),
        other(**batch).loss,  # transformers' own cross-entropy
    ]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    expected = {n: p.grad for n, p in other.named_parameters() if p.requires_grad}
    found = {n: p.grad for n, p in one.named_parameters() if p.requires_grad}
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, msg=parameter, rtol=1e-4, atol=1e-6)


def test_merged_scales_are_multiplied_into_the_weights(tiny_model: TinyModel):
    """Section 3.3: l_k * (W_k x + b_k), l_v * (W_v x + b_v), and W_2 (l_ff * gelu(W_1 x))."""
    model = moved(Ia3().adapt(opened(tiny_model).model, PROBLEM))
    before = weights(model)
    after = weights(Ia3().finish(model))
    layer = "bert.encoder.layer.1."
    for place, side in (("attention.self.key", 0), ("attention.self.value", 0), ("output.dense", 1)):
        old = {kind: before[f"{WRAPPED}{layer}{place}.base_layer.{kind}"] for kind in ("weight", "bias")}
        scale = before[f"{WRAPPED}{layer}{place}.ia3_l.default"].flatten()
        expected = scale[:, None] * old["weight"] if side == 0 else old["weight"] * scale[None, :]
        torch.testing.assert_close(after[f"{layer}{place}.weight"], expected)
        torch.testing.assert_close(after[f"{layer}{place}.bias"], scale * old["bias"] if side == 0 else old["bias"])


@pytest.mark.parametrize("name", ["lora", "rslora", "dora"])
def test_merged_updates_are_the_papers(name: str, tiny_model: TinyModel):
    """W + alpha / r B A; with alpha / sqrt(r) (rsLoRA); m (W + ...) / |W + ...| row by row (DoRA, equation 5)."""
    strategy, _ = BY_HAND[name]
    model = moved(strategy.adapt(opened(tiny_model).model, PROBLEM))
    before = weights(model)
    after = weights(strategy.finish(model))
    place = "bert.encoder.layer.0.intermediate.dense"
    old, a, b = (
        before[f"{WRAPPED}{place}.{part}"]
        for part in ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight")
    )
    expected = old + (8 / math.sqrt(4) if name == "rslora" else 8 / 4) * b @ a
    if name == "dora":
        magnitude = before[f"{WRAPPED}{place}.lora_magnitude_vector.default.weight"]
        expected = magnitude[:, None] * expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(after[f"{place}.weight"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "problem", "attention", "feedforward"),
    [
        ("distilbert", "text_classification", 4, 2),
        ("gpt2", "text_classification", 2, 2),  # queries, keys and values in one
        ("llama", "text_classification", 4, 2),
        ("t5", "translation", 12, 4),  # keys and values: two blocks that read, two that write and look at what was read
        ("bart", "text_classification", 12, 4),
        ("clip", "image_text_classification", 8, 4),
    ],
)
def test_every_block_of_every_family_is_scaled(family, problem, attention, feedforward, tiny_model: TinyModel):
    bound = contracts.bound(Problem.named(problem)())
    model = checkpoints.load(tiny_model(family), bound).model
    assert [len(names) for names in _scaled(model)] == [attention, feedforward]


def test_a_model_whose_layers_are_not_found_is_refused_by_name():
    """XLNet's attention has no layers, only parameters."""
    config = XLNetConfig(vocab_size=30, d_model=16, n_layer=1, n_head=2, d_inner=32, num_labels=3)
    with pytest.raises(UnsupportedError, match=r"ia3 cannot train XLNet.*keys and values are not found.* Choose lora"):
        Ia3().adapt(XLNetForSequenceClassification(config), PROBLEM)


def test_scales_do_not_decay_and_the_head_does(tiny_model: TinyModel):
    model = Ia3().adapt(opened(tiny_model).model, PROBLEM)
    groups = Ia3().parameter_groups(model, 1e-2, 0.1)
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = {n: decays[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert {decay for n, decay in named.items() if "ia3" in n} == {0.0}
    assert {n.rpartition(".")[2]: d for n, d in named.items() if "ia3" not in n} == {"weight": 0.1, "bias": 0.0}


@pytest.mark.parametrize("merge", [True, False])
def test_what_ia3_saves_opens_without_ftlib(merge: bool, tiny_model: TinyModel, tmp_path):
    trained = contracts.train_on_examples(Ia3(merge=merge), PROBLEM, tiny_model("bert"), tmp_path, num_epochs=1.0)
    with checkpoints.quiet(), known_warnings():
        model = AutoModelForSequenceClassification.from_pretrained(trained.folder / ("" if merge else "base"))
        model = model if merge else peft.PeftModel.from_pretrained(model, trained.folder)
    batch = batch_of(trained.rows, trained.reloaded, PROBLEM)
    with torch.no_grad():
        theirs = model.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits.numpy()
    ours = contracts.logits(trained.reloaded, trained.rows, PROBLEM)
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=3e-5)
    contracts.check_reload(trained)
