"""Packing: rows that share a line do not see each other, and the loss is that of rows alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.models.checkpoints import Checkpoint
from ftlib.problems._packing import causal_logits, packs, plan
from ftlib.problems.causal_language_modeling import CausalLanguageModeling
from ftlib.problems.dialogue import Dialogue
from ftlib.problems.text_generation import TextGeneration
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from tests.problems.language_models import TinyModel, batch_of, encoded, opened

PROBLEMS = {
    "text_generation": TextGeneration(max_length=64, max_answer_tokens=10, packing=True),
    "causal_language_modeling": CausalLanguageModeling(max_length=64, packing=True),
}
MODELS = list(itertools.product(("gpt2", "llama"), PROBLEMS))


def opened_for_training(problem, folder: Path) -> Checkpoint:
    """Weights are large, so that what rows see of each other would show."""
    checkpoint = opened(problem, folder)
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            parameter.mul_(3.0) if parameter.dim() > 1 else None
    checkpoint.model.train()
    return checkpoint


def watched(model: torch.nn.Module) -> list[tuple[int, ...]]:
    """Return a list that fills with the shapes of what the model reads."""
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def gradients(problem, checkpoint: Checkpoint, batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss, and every weight's gradient."""
    checkpoint.model.zero_grad()
    loss = problem.loss(problem.forward(checkpoint.model, batch), batch)
    loss.backward()
    found = {n: p.grad.clone() for n, p in checkpoint.model.named_parameters() if p.grad is not None}
    return loss.detach(), found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("architecture", "name"), MODELS)
def test_packed_rows_have_the_logits_loss_and_gradients_of_rows_alone(
    architecture: str, name: str, attention: str, tiny_model: TinyModel
):
    problem = PROBLEMS[name]
    checkpoint = opened_for_training(problem, tiny_model(architecture))
    checkpoint.model.config._attn_implementation = attention
    batch = batch_of(encoded(problem, problem.examples(), checkpoint.tokenizer), checkpoint, problem)
    alone = [
        {k: v[i : i + 1, : int(batch["attention_mask"][i].sum())] for k, v in batch.items()}
        for i in range(len(batch["labels"]))
    ]
    apart = problem.model_copy(update={"packing": False})
    expected = torch.cat([apart.forward(checkpoint.model, row) for row in alone])
    shapes = watched(checkpoint.model)
    packed = problem.forward(checkpoint.model, batch)
    assert packs(checkpoint.model, batch)
    assert shapes[-1][0] < len(alone)
    longest = int(batch["attention_mask"].sum(1).max())
    assert shapes[-1][1] <= min(problem.max_length, 2 * longest)
    torch.testing.assert_close(packed, expected, atol=2e-5, rtol=2e-5)
    loss, found = gradients(problem, checkpoint, batch)
    loss_alone, found_alone = gradients(apart, checkpoint, batch)
    torch.testing.assert_close(loss, loss_alone, atol=1e-6, rtol=1e-6)
    assert set(found) == set(found_alone)
    for key, value in found.items():
        torch.testing.assert_close(value, found_alone[key], atol=2e-5, rtol=1e-4, msg=key)


def test_without_positions_that_restart_packed_rows_would_see_each_other(tiny_model: TinyModel):
    """What the test above would find: the same lines as one text each."""
    problem = PROBLEMS["text_generation"]
    checkpoint = opened_for_training(problem, tiny_model("llama"))
    batch = batch_of(encoded(problem, problem.examples(), checkpoint.tokenizer), checkpoint, problem)
    expected = causal_logits(checkpoint.model, batch, None)

    def forget(module, arguments, inputs):
        inputs.pop("position_ids", None)
        return arguments, inputs

    checkpoint.model.packs_rows = True
    checkpoint.model.register_forward_pre_hook(forget, with_kwargs=True)
    assert (causal_logits(checkpoint.model, batch, 64) - expected).abs().max() > 0.1
    del checkpoint.model.packs_rows
    assert not packs(checkpoint.model, batch)


def test_a_model_that_takes_no_positions_or_has_a_prefix_reads_rows_one_a_line_and_it_is_said(
    tiny_model: TinyModel, caplog
):
    problem = PROBLEMS["text_generation"]
    for name in ("prefix", "prompt_tuning"):
        checkpoint = opened(problem, tiny_model("gpt2"))
        model = Strategy.named(name)().adapt(checkpoint.model, problem).train()
        batch = batch_of(encoded(problem, problem.examples(), checkpoint.tokenizer), checkpoint, problem)
        shapes = watched(model)
        problem.forward(model, batch)
        assert {rows for rows, _ in shapes} == {8}
    assert caplog.text.count("cannot keep rows apart") == 2


def test_models_are_measured_with_a_row_a_line(tiny_model: TinyModel):
    problem = PROBLEMS["causal_language_modeling"]
    checkpoint = opened(problem, tiny_model("llama"))
    rows = encoded(problem, problem.examples(), checkpoint.tokenizer)
    shapes = watched(checkpoint.model.eval())
    assert problem.measure(checkpoint, rows) == problem.model_copy(update={"packing": False}).measure(checkpoint, rows)
    assert {count for count, _ in shapes} == {len(rows)}


def test_a_packed_stage_learns_what_an_unpacked_one_learns_and_is_a_function_of_its_seed(
    tiny_model: TinyModel, tmp_path: Path
):
    lines = {}

    def losses(packing: bool, name: str) -> list[float]:
        problem = Dialogue(max_length=64, max_answer_tokens=16, packing=packing)
        checkpoint = opened(problem, tiny_model("llama"))
        rows = encoded(problem, problem.examples(), checkpoint.tokenizer)
        chosen = stage.Training(batch_size=4, num_train_epochs=3, learning_rate=1e-3, precision="float32")
        given = {"problem": problem, "strategy": Strategy.named("full")(), "settings": chosen, "seed": 1, "name": name}
        lines[name] = watched(checkpoint.model)
        result = stage.train(checkpoint, rows, rows.slice(0, 0), scratch=tmp_path / name, **given)
        return [point["loss"] for point in result.history if "loss" in point]

    packed, apart = losses(True, "packed"), losses(False, "apart")
    assert losses(True, "again") == packed
    assert min(lines["packed"]) < min(lines["apart"])
    np.testing.assert_allclose(packed, apart, rtol=1e-4)
    assert packed[-1] < packed[0]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), room=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_plan_has_each_row_once_and_no_line_too_long_and_is_no_more_than_twice_the_fewest(
    lengths: list[int], room: int
):
    lines = plan(lengths, room)
    assert sorted(itertools.chain(*lines)) == list(range(len(lengths)))
    assert all(len(line) == 1 or sum(lengths[i] for i in line) <= room for line in lines)
    fitting = [n for n in lengths if n <= room]
    fewest = -(-sum(fitting) // room) + len(lengths) - len(fitting)
    assert len(lines) <= 2 * fewest  # of the lines that are shared, at most one is not over half full


def test_rows_that_fill_a_line_exactly_share_it():
    assert plan([3, 5, 2, 7], 8) == [[3], [1, 0], [2]]
    assert plan([9, 1], 8) == [[0], [1]]
    assert plan([4, 4, 4], 8) == [[0, 1], [2]]
