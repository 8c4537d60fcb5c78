"""Several tasks are trained in one loop, each through its own head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ftlib.errors import UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.layers import head_parameters
from ftlib.models.siblings import attach, sibling
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.batches import BatchSize, Rows, training_batches
from ftlib.training.mixed_rows import MixedSampler, counts, shares
from ftlib.training.mixing import Uncertainty
from ftlib.training.regularization import Regularization
from ftlib.training.stage import TaskRows, Training
from tests import contracts
from tests.training.test_resumption import broken_off_after

TinyModel = Callable[..., Path]
MULTI_TASK, CONTINUAL, FULL = (Strategy.named(name) for name in ("multi_task", "continual", "full"))


def problem_of(name: str) -> Problem:
    return contracts.bound(Problem.named(name)()).model_copy(update={"max_length": 32})


SINGLE, PAIRS, WORDS = (problem_of(f"{name}_classification") for name in ("text", "text_pair", "token"))
NUMBER, MASKED = problem_of("text_regression"), problem_of("masked_language_modeling")


def task_rows(problem: Problem, tokenizer: Any) -> TaskRows:
    rows = contracts.encoded_rows(problem, tokenizer)
    ids = rows["row_id"].to_numpy()
    times = [rows.set_column(0, "row_id", pa.array(ids + 1000 * i)) for i in range(3)]
    return TaskRows(problem, pa.concat_tables(times), rows)


def trained(
    start: Path,
    strategy: Strategy,
    scratch: Path,
    others: dict[str, Problem] | None = None,
    *,
    problem: Problem = SINGLE,
    task: str = "main",
    **settings: Any,
) -> stage.TrainResult:
    """Train a task, with others beside it."""
    stage.set_seed(3)
    checkpoint = strategy.open(start, problem, task)
    own = task_rows(problem, checkpoint.tokenizer)
    chosen = {"learning_rate": 2e-3, "num_train_epochs": 3.0, "batch_size": 8, "precision": "float32", **settings}
    return stage.train(
        checkpoint,
        own.train,
        own.validation,
        problem=problem,
        strategy=strategy,
        settings=Training(**chosen),
        seed=3,
        scratch=scratch,
        name="train-test",
        task=task,
        others={name: task_rows(other, checkpoint.tokenizer) for name, other in (others or {}).items()},
    )


def weights(result: stage.TrainResult) -> dict[str, torch.Tensor]:
    heads = {f"{t}/{n}": value for t, head in result.checkpoint.heads.items() for n, value in head.weights.items()}
    return {**result.checkpoint.model.state_dict(), **heads}


def same(one: stage.TrainResult, other: stage.TrainResult) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- batches -------------------------------------------------------------------------------------------


def test_shares_are_those_of_their_formulas():
    sizes = [1000, 100, 10]
    np.testing.assert_allclose(shares(sizes, "proportional", 2.0), np.array(sizes) / 1110)
    np.testing.assert_allclose(shares(sizes, "uniform", 2.0), [1 / 3] * 3)
    roots = np.sqrt(sizes)
    np.testing.assert_allclose(shares(sizes, "temperature", 2.0), roots / roots.sum())
    np.testing.assert_allclose(shares(sizes, "temperature", 1.0), shares(sizes, "proportional", 2.0))


def test_an_epoch_has_the_batches_that_the_shares_say_and_small_tasks_go_on_with_their_rows():
    lengths = [np.arange(1, 101), np.arange(1, 31)]
    number = counts([10, 3], "uniform", 1.0)
    assert number == (6, 6)
    sampler = MixedSampler(lengths, number, BatchSize(10), seed=5)
    seen: list[list[int]] = [[], []]
    for epoch in range(5):
        sampler.set_epoch(epoch)
        batches = [batch.tolist() for batch in sampler]
        assert len(batches) == len(sampler) == 12
        assert batches == [batch.tolist() for batch in sampler]  # a function of seed and epoch alone
        for batch in batches:
            assert len({row >= 100 for row in batch}) == 1
            seen[batch[0] >= 100] += batch
    assert sorted(seen[0]) == sorted([*range(100)] * 3)
    assert sorted(seen[1]) == sorted([*range(100, 130)] * 10)


def test_the_batches_of_one_task_are_those_it_has_by_itself():
    lengths = np.arange(1, 48)
    sampler = MixedSampler([lengths], counts([5], "proportional", 2.0), BatchSize(10), seed=5)
    for epoch in (0, 3):
        sampler.set_epoch(epoch)
        alone = training_batches(lengths, BatchSize(10), seed=5, epoch=epoch)
        assert [batch.tolist() for batch in sampler] == [batch.tolist() for batch in alone]


# -- losses --------------------------------------------------------------------------------------------


def test_losses_count_by_their_uncertainty_as_kendall_et_al_have_it():
    """Equations 7 and 10: L / (2 sigma^2) + log sigma of a squared error, L / sigma^2 + log sigma of labels."""
    weighing = Uncertainty([False, True])
    with torch.no_grad():
        weighing.log_variances.copy_(torch.tensor([0.8, -0.3]))
    sigma = weighing.log_variances.detach().exp().sqrt()
    loss = torch.tensor(1.7)
    torch.testing.assert_close(weighing(loss, 0), loss / sigma[0] ** 2 + sigma[0].log())
    torch.testing.assert_close(weighing(loss, 1), loss / (2 * sigma[1] ** 2) + sigma[1].log())


def test_uncertainties_learn_at_a_rate_of_their_own_and_go_with_the_training(tiny_model: TinyModel, tmp_path: Path):
    strategy = MULTI_TASK(others=("number",), weighting="uncertainty", variance_learning_rate=0.3)
    stage.set_seed(3)
    model = checkpoints.load(tiny_model("bert"), SINGLE).model
    weighing = Uncertainty([False, True])
    attach(model, {}, weighing)
    rates = {id(p): group["lr"] for group in strategy.parameter_groups(model, 1e-3, 0.01) for p in group["params"]}
    assert rates.pop(id(weighing.log_variances)) == 0.3
    assert set(rates.values()) == {1e-3}
    result = trained(tiny_model("bert"), strategy, tmp_path, {"number": NUMBER}, num_train_epochs=1.0)
    assert not any("log_variances" in name for name in weights(result))


def test_a_task_that_weighs_next_to_nothing_leaves_the_encoder_to_the_others(tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert")
    light = MULTI_TASK(others=("words",), weights={"words": 1e-12})
    result = trained(start, light, tmp_path / "a", {"words": WORDS}, evaluations_per_epoch=3)
    losses = [row["validation_loss"] for row in result.history if "validation_loss" in row]
    assert losses[-1] < losses[0]
    with pytest.raises(UnsupportedError, match="weights: unknown task 'word'"):
        trained(start, MULTI_TASK(others=("words",), weights={"word": 1.0}), tmp_path / "b", {"words": WORDS})


@pytest.mark.slow
def test_gold_labels_count_in_every_task_as_far_as_that_has_a_meaning(tiny_model: TinyModel, tmp_path: Path):
    start, others = tiny_model("bert"), {"number": NUMBER, "pairs": PAIRS}
    shaped = Regularization(label_smoothing=0.2, class_weights="balanced", r_drop=0.5)
    by_name = Regularization(class_weights={SINGLE.target.labels[0]: 2.0})
    losses = set()
    for i, regularization in enumerate((Regularization(), shaped, by_name)):
        settings = {"regularization": regularization, "num_train_epochs": 1.0}
        result = trained(start, MULTI_TASK(others=tuple(others)), tmp_path / str(i), others, **settings)
        losses.add(sum(row["loss"] for row in result.history if "loss" in row))
    assert len(losses) == 3


# -- the loop ------------------------------------------------------------------------------------------


def test_multi_task_without_other_tasks_is_full(tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert", 0.1)
    assert same(trained(start, MULTI_TASK(), tmp_path / "a"), trained(start, FULL(), tmp_path / "b"))


@pytest.mark.parametrize(
    "architecture", ["bert", *(pytest.param(n, marks=pytest.mark.slow) for n in ("distilbert", "roberta"))]
)
def test_a_step_on_two_tasks_is_the_step_of_their_losses_by_hand(
    architecture: str, tiny_model: TinyModel, tmp_path: Path
):
    """One plain step a task with torch's own AdamW, over models that share their encoder parameter by parameter."""
    start = tiny_model(architecture)
    settings = {
        "num_train_epochs": 1.0,
        "batch_size": 24,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1e9,
    }
    result = trained(start, MULTI_TASK(others=("words",)), tmp_path, {"words": WORDS}, **settings)
    stage.set_seed(3)
    first = checkpoints.load(start, SINGLE)
    other = sibling(first, WORDS, "words")
    pairs = {"main": (SINGLE, first), "words": (WORDS, other)}
    order = np.random.default_rng([3, 0, 2]).permutation([0, 1])
    every = {id(p): p for _, c in pairs.values() for p in c.model.parameters()}
    optimizer = torch.optim.AdamW(every.values(), lr=2e-3, weight_decay=0.0)
    rows_of = {
        t: Rows.from_table(task_rows(p, first.tokenizer).train, first.tokenizer, p) for t, (p, _) in pairs.items()
    }
    for name, (problem, checkpoint) in pairs.items():
        prior = problem.target.prior_logits(rows_of[name].labels)
        head_parameters(checkpoint.model)[-1].data[:] = torch.as_tensor(prior)
    for name in [["main", "words"][i] for i in order]:
        problem, checkpoint = pairs[name]
        rows = rows_of[name]
        batch = rows.batch(np.arange(len(rows)))
        optimizer.zero_grad()
        problem.loss(problem.forward(checkpoint.model, batch), batch).backward()
        optimizer.step()
    assert result.figures["best_step"] == 2
    for name, value in result.checkpoint.model.state_dict().items():
        if not name.endswith(("key.bias", "k_lin.bias")):  # its gradients are rounding alone, which Adam makes large
            torch.testing.assert_close(value, first.model.state_dict()[name], atol=1e-4, rtol=1e-3, msg=name)


def test_every_task_has_its_metrics_and_the_mean_may_choose(tiny_model: TinyModel, tmp_path: Path):
    strategy = MULTI_TASK(others=("number", "corpus"), chosen_by="mean")
    result = trained(tiny_model("bert"), strategy, tmp_path, {"number": NUMBER, "corpus": MASKED})
    row = next(row for row in result.history if "validation_loss" in row)
    parts = (row["validation_accuracy"], row["validation_number_spearman"], np.exp(-row["validation_corpus_loss"]))
    assert row["validation_mean"] == pytest.approx(np.mean(parts))
    best = max((r for r in result.history if "validation_mean" in r), key=lambda r: r["validation_mean"])
    assert result.figures["best_step"] == best["step"]


OTHERS = {"pairs": PAIRS, "words": WORDS, "number": NUMBER, "corpus": MASKED}


def test_heads_of_all_tasks_are_trained_and_kept_and_answer_alike_when_opened_again(
    tiny_model: TinyModel, tmp_path: Path
):
    strategy = MULTI_TASK(others=tuple(OTHERS), sampling="uniform")
    result = trained(tiny_model("bert"), strategy, tmp_path / "s", OTHERS, num_train_epochs=6.0)
    checkpoints.save(result.checkpoint, tmp_path / "saved")
    assert set(result.checkpoint.heads) == set(OTHERS)
    last = {k: v for row in result.history for k, v in row.items() if row["step"] == result.figures["best_step"]}
    for task, problem in OTHERS.items():
        opened = checkpoints.load(tmp_path / "saved", problem, task)
        rows = contracts.encoded_rows(problem, opened.tokenizer)
        assert problem.measure(opened, rows)["loss"] == pytest.approx(last[f"validation_{task}_loss"], rel=1e-3), task
    first = next(row for row in result.history if "validation_loss" in row)
    learned = [
        last[f"validation_{task}_loss"] < first[f"validation_{task}_loss"] for task in ("pairs", "words", "number")
    ]
    assert all(learned)
    assert not any("other_heads" in name for name in result.checkpoint.model.state_dict())


@pytest.mark.parametrize("name", [pytest.param("multi_task", marks=pytest.mark.slow), "continual"])
def test_a_mixed_stage_that_is_broken_off_resumes_to_the_same_bits(name: str, tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert", 0.1)
    others = {"pairs": PAIRS, "number": NUMBER}
    strategy = MULTI_TASK(others=tuple(others), weighting="uncertainty", sampling="temperature")
    task: dict[str, Any] = {}
    if name == "continual":
        checkpoints.save(trained(start, strategy, tmp_path / "first", others).checkpoint, tmp_path / "start")
        start, strategy = tmp_path / "start", CONTINUAL(replay_rows=5, ewc=1e3, lwf=1.0, head_ratio=0.2)
        task, others = {"problem": WORDS, "task": "words"}, {"pairs": PAIRS, "main": SINGLE}
    averaged = {"regularization": Regularization(averaging="ema", ema_decay=0.8), "num_train_epochs": 2.0, **task}
    whole = trained(start, strategy, tmp_path / "a", others, **averaged)
    with broken_off_after(7):
        trained(start, strategy, tmp_path / "b", others, checkpoint_seconds=1e-9, **averaged)
    again = trained(start, strategy, tmp_path / "b", others, **averaged)
    assert again.history == whole.history
    assert same(again, whole)


def test_tasks_of_which_no_model_has_the_family_are_refused(tiny_model: TinyModel, tmp_path: Path):
    images = contracts.bound(Problem.named("image_text_classification")())
    with pytest.raises(UnsupportedError, match="no model is of both families"):
        MULTI_TASK(others=("images",)).check_others(SINGLE, {"images": images})
