"""Penalties, perturbed inputs, dropout and averaged weights: against the formulas, and torch's own averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from ftlib.errors import UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.layers import head_parameters
from ftlib.problems.base import Problem
from ftlib.strategies.full import Full
from ftlib.targets import losses
from ftlib.training import stage, trainer
from ftlib.training.averaging import Average
from ftlib.training.batches import Rows
from ftlib.training.penalties import Penalties, Perturbation, dropout_of
from ftlib.training.regularization import Regularization
from ftlib.training.stage import Training
from tests import contracts
from tests.problems.language_models import TinyModel
from tests.training.test_resumption import broken_off_after

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
    start = tiny_model("bert", 0.1)
    whole = trained(start, tmp_path / "a")
    with broken_off_after(7):
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


# -- how gold labels count -----------------------------------------------------------------------------


LOGITS = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)) * 3
LABELS = torch.randint(5, (40,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 0.0, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_and_weighted_cross_entropy_is_torch_s(smoothing: float, weights: tuple | None):
    labels = LABELS.clone()
    labels[::7] = losses.IGNORED
    expected = F.cross_entropy(
        LOGITS, labels, weight=None if weights is None else torch.tensor(weights), label_smoothing=smoothing
    )
    found = losses.cross_entropy(LOGITS, labels, losses.LossShape(smoothing, 0.0, weights))
    torch.testing.assert_close(found, expected)


def test_smoothing_gives_no_share_to_what_cannot_be():
    cut = torch.cat((LOGITS[:, :4], torch.full((40, 1), -1e9)), dim=1)
    labels = LABELS.clamp(max=3)
    shape = losses.LossShape(label_smoothing=0.2)
    expected = F.cross_entropy(LOGITS[:, :4], labels, label_smoothing=0.2)
    torch.testing.assert_close(losses.cross_entropy(cut, labels, shape), expected)


def test_focal_losses_are_their_formulas():
    """Lin et al. (2017), equation 4, for a softmax; and for sigmoids, as they have it."""
    likelihood = LOGITS.softmax(1).gather(1, LABELS[:, None])[:, 0]
    expected = (-((1 - likelihood) ** 2) * likelihood.log()).mean()
    torch.testing.assert_close(losses.cross_entropy(LOGITS, LABELS, losses.LossShape(focal_gamma=2.0)), expected)
    gold = (torch.rand(40, 5, generator=torch.Generator().manual_seed(3)) > 0.7).float()
    likelihood = torch.where(gold > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = (-((1 - likelihood) ** 2) * likelihood.log()).mean()
    found = losses.binary_cross_entropy(LOGITS, gold, losses.LossShape(focal_gamma=2.0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_balanced_weights_are_scikit_learn_s():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 2], [5, 30, 65])
    found = PROBLEM.target.__class__(("a", "b", "c")).balanced_weights(labels)
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(3), y=labels))


def test_r_drop_is_its_formula(tiny_model: TinyModel):
    """Liang et al. (2021), equation 4, with the mean of both losses as their code has it."""
    one, other = LOGITS, LOGITS.flip(0)
    p, q = one.log_softmax(1), other.log_softmax(1)
    both = F.kl_div(p, q, log_target=True, reduction="batchmean") + F.kl_div(
        q, p, log_target=True, reduction="batchmean"
    )
    batch = {"labels": LABELS}
    torch.testing.assert_close(PROBLEM.consistency(one, other, batch), both / 2)


def test_a_step_of_r_drop_runs_the_batch_twice_and_learns_both(tiny_model: TinyModel, tmp_path: Path):
    """Without dropout both passes are one, so that the result is that of the loss alone."""
    plain = {"precision": "float32", "num_train_epochs": 2}
    start = tiny_model("bert")
    once = trained(start, tmp_path / "a", **plain, regularization=Regularization()).checkpoint.model.state_dict()
    twice = trained(start, tmp_path / "b", **plain, regularization=Regularization(r_drop=3.0))
    for name, value in twice.checkpoint.model.state_dict().items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(value, once[name], atol=2e-4, rtol=1e-3, msg=name)
    noisy = trained(tiny_model("bert", 0.1), tmp_path / "c", **plain, regularization=Regularization(r_drop=3.0))
    calm = trained(tiny_model("bert", 0.1), tmp_path / "d", **plain, regularization=Regularization())
    assert noisy.history[0]["loss"] > calm.history[0]["loss"]


@pytest.mark.parametrize("name", Problem.available())
def test_every_problem_learns_with_every_shape_it_does_not_refuse(name: str, tiny_model: TinyModel):
    problem = contracts.bound(Problem.named(name)()).model_copy(update={"max_length": 96})
    settings = Regularization(label_smoothing=0.1, focal_gamma=1.5, class_weights="balanced")
    if problem.target.kind == "value":
        with pytest.raises(UnsupportedError, match="they are for labels, and it predicts numbers"):
            settings.check(problem)
        settings = Regularization()
    elif not problem.target.can_be_weighted:
        with pytest.raises(UnsupportedError, match="its rows have no labels to weigh"):
            settings.check(problem)
        settings = Regularization(label_smoothing=0.1, focal_gamma=1.5)
    stage.set_seed(3)
    checkpoint = checkpoints.load(contracts.start_model(problem, tiny_model), problem)
    rows = Rows.from_table(contracts.encoded_rows(problem, checkpoint.tokenizer), checkpoint.tokenizer, problem)
    shape = settings.shape(problem, rows)
    batch = rows.batch(np.arange(len(rows)))
    model = Full().adapt(checkpoint.model, problem).eval()
    logits = problem.forward(model, batch)
    loss = problem.loss(logits, batch, shape)
    assert torch.isfinite(loss)
    assert shape == losses.PLAIN or not torch.isclose(loss, problem.loss(logits, batch))
    again = problem.forward(model, batch)
    assert abs(problem.consistency(logits, again, batch).item()) < 1e-6
    apart = problem.consistency(logits, again + torch.linspace(0, 1, again.numel()).view(again.shape), batch)
    assert apart.item() > 0
    (loss + apart).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_weight_for_a_label_that_is_not_there_is_refused_with_the_near_name():
    with pytest.raises(UnsupportedError, match="class_weights: unknown label"):
        Regularization(class_weights={"negativ": 2.0}).check(PROBLEM)
