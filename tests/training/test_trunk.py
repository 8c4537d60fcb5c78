"""What frozen lower blocks give is computed once; what learns above them learns the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftlib.models import checkpoints
from ftlib.models.layers import block_list
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import shortcuts, stage, trunk
from ftlib.training.batches import Rows
from ftlib.training.precision import autocast
from ftlib.training.stage import Training
from tests import contracts
from tests.problems.language_models import TinyModel

PARTIAL = {"name": "partial"}
HEAD = {"name": "partial", "last_blocks": 0}


def problem(name: str = "text_classification") -> Problem:
    return contracts.bound(Problem.named(name)()).model_copy(update={"max_length": 96})


def opened(settings: Problem, strategy: dict[str, Any], start: Path) -> tuple[Any, Rows]:
    """Return an adapted model and the rows that it learns."""
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, settings)
    rows = contracts.encoded_rows(settings, checkpoint.tokenizer, 16)
    model = Strategy.model_validate(strategy).adapt(checkpoint.model, settings)
    return model, Rows.from_table(rows, checkpoint.tokenizer, settings)


def gradients(model: Any, batch: dict, settings: Problem, precision: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with autocast(precision):
        logits = settings.forward(model, batch).float()
    settings.loss(logits, batch).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("strategy", [PARTIAL, HEAD], ids=["last block", "head"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_gradients_are_those_without_a_trunk(strategy, architecture, precision, dtype, tiny_model: TinyModel, tmp_path):
    settings = problem()
    model, rows = opened(settings, strategy, tiny_model(architecture))
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    chosen = np.array([3, 0, 7, 9])
    batch = rows.batch(chosen)
    boundary = block_list(model)[trunk.depth(model, learning) - 1]

    def rounded(module, inputs, output):
        return output.to(dtype).to(output.dtype) if isinstance(output, torch.Tensor) else output

    handle = boundary.register_forward_hook(rounded)
    expected = gradients(model.eval(), batch, settings, precision)
    handle.remove()

    def run(some: dict) -> torch.Tensor:
        with autocast(precision):
            return settings.forward(model, some).float()

    laid = trunk.built(model, learning, rows, dtype, tmp_path / trunk.FILE, run)
    assert laid is not None
    laid.take({**batch, trunk.ROWS: torch.from_numpy(chosen)})
    found = gradients(model, batch, settings, precision)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        size = float(expected[name].norm())
        assert float((value - expected[name]).norm()) <= (1e-5 if precision == "float32" else 2e-2) * size + 1e-6, name


def trained(strategy: dict[str, Any], settings: Problem, start: Path, scratch: Path) -> tuple[Any, list[int]]:
    """Train a stage; return its result and how many blocks lay in each trunk that was laid."""
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, settings)
    rows = contracts.repeated(contracts.encoded_rows(settings, checkpoint.tokenizer), 4)
    depths: list[int] = []

    def watched(*arguments: Any) -> trunk.Trunk | None:
        found = trunk.built(*arguments)
        depths.append(len(found.blocks) if found else 0)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortcuts, "built", watched)
        result = stage.train(
            checkpoint,
            rows,
            rows.slice(0, 8),
            problem=settings,
            strategy=Strategy.model_validate(strategy),
            settings=Training(learning_rate=1e-2, num_train_epochs=16, batch_size=16, precision="float32"),
            seed=3,
            scratch=scratch,
            name="train-test",
        )
    return result, depths


def test_validation_reads_its_own_rows_through_every_block(tiny_model: TinyModel, tmp_path: Path):
    settings = problem()
    result, depths = trained(HEAD, settings, tiny_model("bert"), tmp_path)
    assert depths == [2]
    rows = contracts.encoded_rows(settings, result.checkpoint.tokenizer)
    best = min(row["validation_loss"] for row in result.history if "validation_loss" in row)
    assert settings.measure(result.checkpoint, rows)["loss"] == pytest.approx(best, rel=1e-4)
    assert not (tmp_path / trunk.FILE).exists()
    assert all("forward" not in vars(block) for block in block_list(result.checkpoint.model))


def test_gradual_unfreezing_lays_a_lower_trunk_in_each_phase(tiny_model: TinyModel, tmp_path: Path):
    strategy = {"name": "gradual_unfreezing", "epochs_per_phase": 3}
    assert trained(strategy, problem(), tiny_model("bert"), tmp_path)[1] == [2, 1, 0, 0]


@pytest.mark.parametrize("name", ["full", "lora", "prefix", "prompt_tuning", "adaptive_hierarchical"])
def test_where_the_lowest_weights_learn_there_is_no_trunk(name: str, tiny_model: TinyModel):
    model, _ = opened(problem(), {"name": name}, tiny_model("bert"))
    assert trunk.depth(model, {id(p) for p in model.parameters() if p.requires_grad}) == 0


def test_rows_that_become_several_inputs_train_without_a_trunk(tiny_model: TinyModel, tmp_path: Path):
    assert trained(PARTIAL, problem("multiple_choice"), tiny_model("bert"), tmp_path)[1] == [0]


def test_masks_that_are_drawn_anew_train_without_a_trunk(tiny_model: TinyModel, tmp_path: Path):
    assert trained(PARTIAL, problem("masked_language_modeling"), tiny_model("bert"), tmp_path)[1] == []
