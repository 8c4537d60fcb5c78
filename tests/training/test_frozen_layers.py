"""Frozen layers give what peft and autocast give, values and gradients, and leave the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training.dropout import Masks, cheap_dropout
from ftlib.training.frozen_layers import LowRank, quick_frozen_layers
from ftlib.training.precision import autocast
from tests import contracts

TinyModel = Callable[..., Path]


def updated(**fields: Any) -> Any:
    """Return two linear layers with LoRA beside them, their second matrices not zero, as they are at first."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 12))
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["0", "1"], **fields))  # type: ignore
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return wrapped


def passed(model: Any, values: Tensor, dtype: str) -> list[Tensor]:
    """Return what a model gives and the gradients of its inputs and of what learns in it."""
    values = values.clone().requires_grad_()
    learning = [p for p in model.parameters() if p.requires_grad]
    with autocast(dtype):  # type: ignore[arg-type]
        outputs = model(values).float()
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    return [outputs.detach(), *torch.autograd.grad((outputs * weights).sum(), [values, *learning])]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}])
def test_an_update_beside_a_frozen_layer_is_pefts(fields, dtype, tolerance):
    model, values = updated(**fields), torch.randn(5, 7, 24)
    expected = passed(model, values, dtype)
    with cheap_dropout(model, 1) as masks, quick_frozen_layers(model, masks):
        own = [m for m in model.modules() if type(m).__name__ == "Linear" and "forward" in vars(m)]
        found = passed(model, values, dtype)
    assert own
    assert not any("forward" in vars(m) for m in model.modules())
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).norm()) <= tolerance * float(other.norm())


@pytest.mark.parametrize("bias", [True, False])
def test_the_operation_is_its_formula_with_dropout_before_the_update_alone(bias):
    torch.manual_seed(0)
    shapes = {"values": (3, 5, 8), "weight": (6, 8), "bias": (6,), "down": (2, 8), "up": (6, 2)}
    given = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    for name in ("values", "down", "up"):
        given[name].requires_grad_()
    kept = (torch.rand(3, 5, 8) > 0.3).double() / 0.7
    values, weight, down, up = (given[name] for name in ("values", "weight", "down", "up"))
    expected = values @ weight.T + 1.5 * (values * kept) @ down.T @ up.T + (given["bias"] if bias else 0)
    found = LowRank.apply(values, weight, given["bias"] if bias else None, down, up, kept, 1.5)
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(expected)
    for one, other in zip(*(torch.autograd.grad((y * towards).sum(), [values, down, up]) for y in (found, expected)),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other)


def test_dropout_is_drawn_from_the_stream_and_off_in_evaluation():
    model, values = updated(lora_dropout=0.5), torch.randn(5, 7, 24)
    exact = passed(model.eval(), values, "float32")[0]
    with cheap_dropout(model, 1) as masks, quick_frozen_layers(model, masks):
        torch.testing.assert_close(passed(model, values, "float32")[0], exact)
        model.train()
        drawn = []
        for step in (1, 1, 2):
            masks.at_step(step)
            drawn.append(passed(model, values, "float32")[0])
        with masks.off():
            torch.testing.assert_close(passed(model, values, "float32")[0], exact)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])
    assert not torch.allclose(drawn[0], exact)


def test_a_frozen_weight_is_cast_once_and_anew_when_it_changes():
    layer, values = nn.Linear(8, 8).requires_grad_(False), torch.randn(4, 8)
    with quick_frozen_layers(layer, Masks(0)), autocast("bfloat16"):
        torch.testing.assert_close(layer(values), nn.functional.linear(values, layer.weight, layer.bias))
        kept = layer.forward.weight()  # type: ignore[attr-defined]
        assert kept.dtype == torch.bfloat16
        assert layer.forward.weight() is kept  # type: ignore[attr-defined]
        layer.weight.mul_(3)
        assert torch.equal(layer.forward.weight(), layer.weight.bfloat16())  # type: ignore[attr-defined]
        layer.weight.requires_grad_(True)
        assert layer.forward.weight() is layer.weight  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["lora", "prefix", "prompt_tuning", "ia3", "partial"])
def test_losses_of_strategies_that_freeze_are_those_without(name, tiny_model: TinyModel, monkeypatch):
    problem = contracts.bound(Problem.named("text_classification")())
    checkpoint = checkpoints.load(tiny_model("bert"), problem)
    model = Strategy.named(name)().adapt(checkpoint.model, problem).eval()
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer, limit=4)
    from ftlib.training.batches import Rows

    given = Rows.from_table(rows, checkpoint.tokenizer, problem)
    batch = given.batch(torch.arange(4).numpy())
    for dtype in ("float32", "bfloat16"):
        with autocast(dtype):  # type: ignore[arg-type]
            expected = problem.forward(model, batch)
            with cheap_dropout(model, 1) as masks, quick_frozen_layers(model, masks):
                found = problem.forward(model, batch)
        torch.testing.assert_close(found, expected, atol=2e-2 if dtype == "bfloat16" else 1e-6, rtol=1e-3)
