"""Penalties, perturbed inputs, dropout and averaged weights: against the formulas, and torch's own averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ftlib.models import checkpoints
from ftlib.models.layers import head_parameters
from ftlib.problems.base import Problem
from ftlib.strategies.full import Full
from ftlib.training import stage, trainer
from ftlib.training.averaging import Average
from ftlib.training.batches import Rows
from ftlib.training.penalties import Penalties, Perturbation, dropout_of
from ftlib.training.regularization import Regularization
from ftlib.training.stage import Training
from tests import contracts
from tests.problems.language_models import TinyModel
from tests.training.test_resumption import BrokenOffError, watching

PROBLEM = contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 96})


def opened(start: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a model in which every weight learns, and a batch."""
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, PROBLEM)
    rows = Rows.from_table(contracts.encoded_rows(PROBLEM, checkpoint.tokenizer), checkpoint.tokenizer, PROBLEM)
    return Full().adapt(checkpoint.model, PROBLEM).eval(), rows.batch(np.arange(6))


def loss_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return PROBLEM.loss(PROBLEM.forward(model, batch), batch)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_penalties_have_the_gradients_of_their_formulas(tiny_model: TinyModel):
    model, batch = opened(tiny_model("bert"))
    settings = Regularization(l1=0.01, l2=0.03, l2_sp=0.1)
    penalties = Penalties(model, settings, list(model.parameters()))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    head = {id(p) for p in head_parameters(model)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    loss_of(model, batch).backward()
    penalties.add()
    found = gradients(model)
    model.zero_grad()
    total = loss_of(model, batch)
    for name, parameter in model.named_parameters():
        origin = torch.zeros_like(parameter) if id(parameter) in head else start[name]
        total = total + 0.1 / 2 * (parameter - origin).square().sum()
        if parameter.ndim > 1:
            total = total + 0.01 * parameter.abs().sum() + 0.03 / 2 * parameter.square().sum()
    total.backward()
    for name, value in gradients(model).items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_the_adversarial_gradient_is_that_of_miyato_et_al(architecture: str, tiny_model: TinyModel):
    """Of the loss plus the loss at s + size x g / |g|, with g the gradient at each row's word vectors s."""
    model, batch = opened(tiny_model(architecture))
    perturbation = Perturbation(model, 0.7)
    with perturbation.watched():
        loss_of(model, batch).backward()
    with perturbation.applied():
        loss_of(model, batch).backward()
    found = gradients(model)

    model.zero_grad()
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    others = {name: batch[name] for name in ("attention_mask", "token_type_ids") if name in batch}
    if architecture == "distilbert":
        others.pop("token_type_ids", None)
    if architecture == "roberta":  # counts places from the padding, which vectors alone do not show
        real = batch["attention_mask"]
        others["position_ids"] = real.cumsum(1) * real + model.config.pad_token_id

    def plain(inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(inputs_embeds=inputs, **others).logits, batch["labels"])

    gradient = torch.autograd.grad(plain(vectors), vectors)[0]
    size = gradient.flatten(1).norm(dim=1)[:, None, None]
    inputs = model.get_input_embeddings()(batch["input_ids"])
    (plain(inputs) + plain(inputs + 0.7 * gradient / size)).backward()
    for name, value in gradients(model).items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-3, msg=name)


def test_the_mean_of_the_last_steps_is_torch_s():
    ours, theirs = walked(Regularization(averaging="swa", swa_start=0.4), None)
    torch.testing.assert_close(ours, theirs)


def test_the_moving_average_is_torch_s_with_its_decay_raised_slowly():
    def moved(mean: torch.Tensor, value: torch.Tensor, num_averaged: Any) -> torch.Tensor:
        number = int(num_averaged) + 1
        decay = min(0.9, number / (number + 9))
        return decay * mean + (1 - decay) * value

    ours, theirs = walked(Regularization(averaging="ema", ema_decay=0.9), moved)
    torch.testing.assert_close(ours, theirs)


def walked(settings: Regularization, step: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ten steps of a random walk as averaged by us and by torch."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = Average(dict(model.named_parameters()), settings, 10)
    theirs = AveragedModel(model, avg_fn=step)
    for number in range(1, 11):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.add(number)
        if number > average.first:
            theirs.update_parameters(model)
    before = model.weight.detach().clone()
    with average.in_place():
        ours = model.weight.detach().clone()
    assert torch.equal(model.weight, before)
    return ours, theirs.module.weight.detach()


def test_dropout_is_set_everywhere_and_put_back(tiny_model: TinyModel):
    model = checkpoints.load(tiny_model("bert", 0.1), PROBLEM).model.train()
    before = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    batch = opened(tiny_model("bert", 0.1))[1]
    with dropout_of(model, 0.0):
        assert torch.equal(loss_of(model, batch), loss_of(model, batch))
    assert not torch.equal(loss_of(model, batch), loss_of(model, batch))
    assert before == {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}


ALL = Regularization(l1=1e-5, l2=1e-4, l2_sp=1e-3, adversarial=0.5, dropout=0.2, averaging="ema", ema_decay=0.8)


def trained(start: Path, scratch: Path, pause: float = 60.0, **others: Any) -> stage.TrainResult:
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, PROBLEM)
    rows = contracts.repeated(contracts.encoded_rows(PROBLEM, checkpoint.tokenizer), 3)
    return stage.train(
        checkpoint,
        rows,
        rows.slice(0, 8),
        problem=PROBLEM,
        strategy=Full(),
        settings=Training(
            **{
                "learning_rate": 2e-3,
                "num_train_epochs": 5,
                "batch_size": 8,
                "regularization": ALL,
                "checkpoint_seconds": pause,
                **others,
            }
        ),
        seed=3,
        scratch=scratch,
        name="train-test",
    )


def test_a_stage_with_all_of_them_resumes_to_the_same_weights(tiny_model: TinyModel, tmp_path: Path):
    from ftlib import progress

    start = tiny_model("bert", 0.1)
    whole = trained(start, tmp_path / "a")

    def watch(event: progress.Progress) -> None:
        if event.step == "train-test" and event.done >= 7:
            raise BrokenOffError

    with pytest.MonkeyPatch.context() as patch, progress.listen(watch):
        patch.setattr(watching, "EMIT_SECONDS", 0.0)
        with pytest.raises(BrokenOffError):
            trained(start, tmp_path / "b", pause=1e-9)
    again = trained(start, tmp_path / "b")
    assert again.history == whole.history
    ours, theirs = again.checkpoint.model.state_dict(), whole.checkpoint.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_saved_is_the_average_that_was_validated(tiny_model: TinyModel, tmp_path: Path):
    result = trained(tiny_model("bert", 0.1), tmp_path)
    rows = contracts.repeated(contracts.encoded_rows(PROBLEM, result.checkpoint.tokenizer), 3).slice(0, 8)
    best = result.figures["best_validation_loss"]
    assert PROBLEM.measure(result.checkpoint, rows)["loss"] == pytest.approx(best, rel=2e-2)


@pytest.mark.parametrize("fields", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}])
def test_memory_is_saved_without_another_result(fields: dict, tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert")
    plain = {"regularization": Regularization(), "precision": "float32", "num_train_epochs": 2}
    whole = trained(start, tmp_path / "a", **plain).checkpoint.model.state_dict()
    saving = trained(start, tmp_path / "b", **plain, **fields).checkpoint.model.state_dict()
    for name, value in whole.items():
        if not name.endswith("key.bias"):  # its gradients are rounding alone, which Adam makes large
            torch.testing.assert_close(saving[name], value, atol=2e-4, rtol=1e-3, msg=name)


def test_a_block_computed_again_meets_the_same_dropout(tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert", 0.1)
    plain = {"regularization": Regularization(), "precision": "float32", "num_train_epochs": 2}
    saving = trained(start, tmp_path / "a", **plain, gradient_checkpointing=True).checkpoint.model.state_dict()
    with pytest.MonkeyPatch.context() as patch:
        cheap = trainer.cheap_dropout
        patch.setattr(trainer, "cheap_dropout", lambda model, seed, **_: cheap(model, seed, is_cheap=False))
        whole = trained(start, tmp_path / "b", **plain).checkpoint.model.state_dict()
    for name, value in whole.items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(saving[name], value, atol=2e-4, rtol=1e-3, msg=name)
