"""A narrower copy computes what the model does with the rest of it set to zero, and is a plain checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ftlib.errors import UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.layers import block_list
from ftlib.models.sizes import Size
from ftlib.models.virtual_tokens import attached
from ftlib.models.widths import Widths, narrower
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from tests import contracts

PROBLEM = contracts.bound(Problem.named("text_classification")())
BERT = Widths(hidden=32, heads=4, inner=64, head_size=8)


@pytest.fixture
def opened(tiny_model: Callable[..., Path]) -> Callable[[str], Any]:
    """Return a function that opens a tiny model; its biases and norms are drawn too, so that they tell."""

    def open_model(architecture: str) -> Any:
        folder, drawn = tiny_model(architecture), torch.Generator().manual_seed(1)
        stage.set_seed(0)
        model = checkpoints.load(folder, PROBLEM).model
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.3)
        return model

    return open_model


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[2, 7, 11, 30, 3], [2, 9, 9, 40, 3]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def largest(norms: np.ndarray, number: int) -> list[int]:
    return sorted(np.argsort(-norms, kind="stable")[:number].tolist())


def zeroed(model: Any, name: str, kept: list[int], *, dim: int) -> None:
    """Set weights to zero along a dimension, but for what is kept."""
    weight = model.get_submodule(name).weight
    gone = [i for i in range(weight.shape[dim]) if i not in kept]
    with torch.no_grad():
        weight.index_fill_(dim, torch.tensor(gone), 0.0)


def squares(layer: Any, dim: int) -> np.ndarray:
    return (layer.weight.detach().numpy().astype(np.float64) ** 2).sum(dim)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_fewer_neurons_are_the_model_with_the_lightest_ones_silenced(architecture, opened):
    model, student = opened(architecture), narrower(opened(architecture), inner=24)
    for number in range(len(block_list(model))):
        at = f"{model.base_model_prefix}.encoder.layer.{number}"
        first, second = (model.get_submodule(f"{at}.{part}.dense") for part in ("intermediate", "output"))
        zeroed(model, f"{at}.output.dense", largest(squares(first, 1) + squares(second, 0), 24), dim=1)
    assert student.config.intermediate_size == 24
    torch.testing.assert_close(logits(student), logits(model))


@pytest.mark.parametrize("decides", ["v_proj", "o_proj"])
def test_fewer_heads_are_the_model_with_the_lightest_ones_masked(decides, opened):
    models = [opened("llama"), opened("llama")]
    for model in models:
        _make_heavy(model, decides, head=1)
    model, student = models[0], narrower(models[1], heads=1)
    size = model.config.head_dim
    for number in range(len(block_list(model))):
        zeroed(model, f"model.layers.{number}.self_attn.o_proj", list(range(size, 2 * size)), dim=1)
    assert (student.config.num_attention_heads, student.config.num_key_value_heads) == (1, 1)
    torch.testing.assert_close(logits(student), logits(model))


def _make_heavy(model: Any, part: str, head: int) -> None:
    """Let one part of a head decide that it weighs most: what makes its values, or what reads them."""
    size = model.config.head_dim
    numbers = slice(head * size, (head + 1) * size)
    with torch.no_grad():
        for block in block_list(model):
            weight = getattr(block.self_attn, part).weight
            (weight[:, numbers] if part == "o_proj" else weight[numbers]).mul_(10)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_fewer_hidden_dimensions_are_the_model_whose_norms_see_only_those(architecture, opened, monkeypatch):
    """Setting the same numbers to zero in the wide model gives the same, once its norms leave them out."""
    model, student = opened(architecture), narrower(opened(architecture), hidden=16)
    words = model.get_input_embeddings().weight.detach()
    mine = student.get_input_embeddings().weight.detach()
    kept = [next(i for i in range(32) if torch.equal(words[:, i], column)) for column in mine.T]
    assert kept == sorted(kept)
    assert len(kept) == 16
    gone = torch.tensor([i for i in range(32) if i not in kept])

    def norm(self: nn.LayerNorm, values: torch.Tensor) -> torch.Tensor:
        narrow = nn.functional.layer_norm(values[..., kept], (16,), self.weight[kept], self.bias[kept], self.eps)
        return torch.zeros_like(values).index_copy(-1, torch.tensor(kept), narrow)

    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and layer.in_features == 32 and "attention" not in name:
                layer.weight[:, gone] = 0.0
        for wide, narrow in zip(block_list(model), block_list(student), strict=True):
            _mask_heads(wide, narrow, kept)
    with monkeypatch.context() as patch:
        patch.setattr(nn.LayerNorm, "forward", norm)
        expected = logits(model)
    torch.testing.assert_close(logits(student), expected, rtol=1e-4, atol=1e-5)


def _mask_heads(wide: nn.Module, narrow: nn.Module, kept: list[int]) -> None:
    """Silence the heads of a block that its narrower copy lacks: found by the values that both have."""
    values = [next(m for n, m in block.named_modules() if n.endswith(("value", "v_lin"))) for block in (wide, narrow)]
    rows = values[0].weight[:, kept]
    held = [next(i for i in range(32) if torch.equal(rows[i], row)) for row in values[1].weight]
    output = next(m for n, m in wide.named_modules() if n.endswith(("attention.output.dense", "out_lin")))
    output.weight[:, [i for i in range(32) if i not in held]] = 0.0


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_a_narrower_student_learns_and_reloads_as_a_plain_checkpoint(architecture, tiny_model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    strategy = Strategy.named("distillation")(student_blocks=1, student_hidden_size=16, student_intermediate_size=40)
    result = contracts.train_on_examples(strategy, Problem.named("text_classification")(), tiny_model(architecture),
                                         tmp_path)  # fmt: skip
    contracts.check_reload(result)
    contracts.check_overfits(result)
    with checkpoints.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(result.folder)
    assert model.get_input_embeddings().weight.shape[1] == 16
    assert len(block_list(model)) == 1


def test_a_copy_keeps_the_virtual_tokens_of_its_model(tiny_model, tmp_path):
    result = contracts.train_on_examples(Strategy.named("prompt_tuning")(), Problem.named("text_classification")(),
                                         tiny_model("bert"), tmp_path, num_epochs=1.0)  # fmt: skip
    virtual = attached(result.reloaded.model)
    assert virtual is not None
    student = narrower(result.reloaded.model, hidden=16)
    assert attached(student) == virtual
    assert logits(student).shape == (2, 3)


def test_a_copy_as_wide_as_the_model_is_the_model(opened):
    model = opened("bert")
    assert narrower(model, hidden=32, inner=64) is model


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ((20, None, None), "student_hidden_size 20 is no multiple of the 8 numbers of a head; choose 16 or 24."),
        ((64, None, None), "student_hidden_size 64 is more than the 32 of the checkpoint; lower it."),
        ((None, None, 65), "student_intermediate_size 65 is more than the 64 of the checkpoint; lower it."),
        ((16, 4, None), "student_heads 4: in this model, hidden states of 16 have 2 heads of 8; leave student_heads"),
    ],
)
def test_widths_that_a_model_has_not_are_refused_with_what_it_has(asked, line):
    with pytest.raises(UnsupportedError) as refused:
        Size(widths=BERT).with_widths(*asked)
    assert str(refused.value).startswith(line)


def test_a_config_tells_widths_whatever_it_calls_them():
    assert Widths.of({"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}) == BERT
    assert Widths.of({"dim": 32, "n_heads": 4, "hidden_dim": 64}) == BERT
    assert Widths.of({"d_model": 32, "num_heads": 4, "d_ff": 64}) is None
    free = Widths.of({"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "head_dim": 16})
    assert free is not None
    assert free.cut(24, 2, None) == Widths(24, 2, 64, 16, is_free=True)


@pytest.mark.parametrize(("architecture", "reason"), [("gpt2", "queries, keys and values"), ("t5", "one plain stack")])
def test_models_that_cannot_be_narrowed_are_refused_by_name(architecture, reason, opened):
    with pytest.raises(UnsupportedError, match=f"cannot be made narrower: .*{reason}"):
        narrower(opened(architecture), hidden=16)
