"""Strategies that say which weights learn when, and at what rate: against the formulas, step by step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from ftlib.errors import ParamsError, UnsupportedError
from ftlib.models import checkpoints
from ftlib.strategies.adaptive_hierarchical import AdaptiveHierarchical
from ftlib.strategies.gradual_unfreezing import GradualUnfreezing
from ftlib.strategies.layerwise_decay import LayerwiseDecay
from ftlib.strategies.partial import Partial
from ftlib.training import course, stage
from ftlib.training.batches import BatchSize, Rows, training_batches
from ftlib.training.stage import Training
from tests import contracts
from tests.problems.language_models import TinyModel

PROBLEM = contracts.bound(contracts.Problem.named("text_classification")()).model_copy(update={"max_length": 96})
RATE, DECAY, EPOCHS, BATCH = 5e-3, 0.1, 4, 4
SETTINGS = Training(
    learning_rate=RATE,
    weight_decay=DECAY,
    num_train_epochs=EPOCHS,
    batch_size=BATCH,
    early_stopping_patience=None,
    prior_bias=False,
    precision="float32",
)


# -- a direct implementation ---------------------------------------------------------------------------


def level_of(name: str) -> int:
    """Return the level of a parameter of a two-block BERT: 0 embeddings, 1 and 2 the blocks, 3 pooler and head."""
    if "embeddings" in name:
        return 0
    return int(name.split("layer.")[1][0]) + 1 if "layer." in name else 3


def slanted_triangle(t: int, steps: int, ratio: float = 32) -> float:
    """Return Howard and Ruder's (2018) rate over its peak, ending with the steps whatever a tenth of them is."""
    cut = max(1, steps // 10)
    p = t / cut if t < cut else (steps - t) / (steps - cut)
    return (1 + p * (ratio - 1)) / ratio


def by_hand(start: Path, rows: Any, rate_of: Any, *, is_turned: bool = False) -> dict[str, np.ndarray]:
    """Return the weights after plain AdamW steps, every parameter a group: `rate_of(step, named)` gives its rate.

    None keeps a parameter frozen at that step. Batches are the stage's; `is_turned`, their last row is the first.
    """
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, PROBLEM)
    model = checkpoint.model.train()
    given = Rows.from_table(rows, checkpoint.tokenizer, PROBLEM)
    named = dict(model.named_parameters())
    decays = {name: 0.0 if p.ndim == 1 else DECAY for name, p in named.items()}
    optimizer = torch.optim.AdamW([{"params": [p], "weight_decay": decays[n]} for n, p in named.items()], lr=RATE)
    step = 0
    for epoch in range(EPOCHS):
        for batch in training_batches(given.lengths, BatchSize(BATCH, num_lengths=2), seed=3, epoch=epoch):
            optimizer.zero_grad()
            tensors = given.batch(batch[::-1].copy() if is_turned else batch)
            PROBLEM.loss(PROBLEM.forward(model, tensors), tensors).backward()
            frozen = [n for n in named if rate_of(step, named, None)[n] is None]
            for name in frozen:
                named[name].grad = None
            torch.nn.utils.clip_grad_norm_([p for p in named.values() if p.grad is not None], 1.0)
            rates = rate_of(step, named, "gradients are there")
            for name, group in zip(named, optimizer.param_groups, strict=True):
                group["lr"] = rates[name] or 0.0
            optimizer.step()
            step += 1
    return {name: p.detach().numpy() for name, p in named.items()}


def by_strategy(strategy: Any, start: Path, scratch: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Return the last weights of the stage (not the best ones: nothing is validated) and its encoded rows."""
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, PROBLEM)
    rows = contracts.encoded_rows(PROBLEM, checkpoint.tokenizer, 16)
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, PROBLEM)
    result = stage.train(
        checkpoint,
        rows,
        rows.slice(0, 0),
        problem=PROBLEM,
        strategy=strategy,
        settings=SETTINGS,
        seed=3,
        scratch=scratch,
        name="train-test",
    )
    return {n: p.detach().numpy() for n, p in result.checkpoint.model.named_parameters()}, rows


def assert_same(ours: dict[str, np.ndarray], *theirs: dict[str, np.ndarray]) -> None:
    """Key biases aside: softmax takes them away, so their gradients are rounding alone, which Adam makes large.

    The same is true of single numbers that hardly have a gradient: of two of `theirs`, equal but for rounding, one in a
    thousand (or one) may be apart, and so may ours be from both; a rate or a phase that is wrong moves all.
    """
    for name, value in ours.items():
        if not name.endswith("key.bias"):
            wanted = np.stack([one[name] for one in theirs])
            missed = np.abs(value - wanted).min(0) - np.ptp(wanted, axis=0)
            few = max(1, value.size // 1000)
            assert np.sum(missed > 2e-5) <= few, (name, np.sort(missed.ravel())[-few - 3 :])
            assert missed.max() < RATE, name
            assert np.sum(np.ptp(wanted, axis=0) > 2e-5) <= few, name
    assert all(ours.keys() == one.keys() for one in theirs)


def num_steps(rows: Any) -> int:
    return EPOCHS * -(-len(rows) // BATCH)


# -- schedules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_schedules_are_those_of_transformers(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=7, num_training_steps=70)
    ours = course.multiplier(schedule, 70, 0.1)
    for step in range(70):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("num_steps", [10, 30, 1000])
def test_the_slanted_triangle_is_the_paper_s(num_steps):
    """Equation 3 as it is printed."""
    cut_frac, ratio = 0.1, 32
    ours, cut = course.multiplier("slanted_triangular", num_steps, 0.3), math.floor(num_steps * cut_frac)
    for t in range(num_steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        assert ours(t) == pytest.approx((1 + p * (ratio - 1)) / ratio)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 15, 97])
def test_the_slanted_triangle_never_falls_below_its_foot(num_steps):
    ours = course.multiplier("slanted_triangular", num_steps, 0.0)
    assert all(1 / 32 <= ours(t) <= 1 for t in range(num_steps))


# -- strategies ----------------------------------------------------------------------------------------


def test_layerwise_decay_gives_each_level_a_rate_that_falls_downwards(tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert")
    ours, rows = by_strategy(LayerwiseDecay(decay=0.5), start, tmp_path)
    steps = num_steps(rows)
    schedule = course.multiplier("linear", steps, 0.06)

    def rate_of(step: int, named: dict, _: Any) -> dict[str, float]:
        return {name: schedule(step) * RATE * 0.5 ** (3 - level_of(name)) for name in named}

    assert_same(ours, by_hand(start, rows, rate_of))


@pytest.mark.parametrize("cyclic", [False, True])
def test_gradual_unfreezing_is_the_paper_s_step_by_step(cyclic: bool, tiny_model: TinyModel, tmp_path: Path):
    start = tiny_model("bert")
    ours, rows = by_strategy(GradualUnfreezing(epochs_per_phase=1, cyclic=cyclic), start, tmp_path)
    epoch = num_steps(rows) // EPOCHS

    def rate_of(step: int, named: dict, _: Any) -> dict[str, float | None]:
        opened = step // epoch  # the head in epoch 0, block 1 joins in epoch 1, block 0 in epoch 2, then the embeddings
        share = slanted_triangle(step % epoch, epoch) if cyclic else slanted_triangle(step, num_steps(rows))
        return {
            name: share * RATE / 2.6 ** (3 - level_of(name)) if level_of(name) >= 3 - opened else None for name in named
        }

    assert_same(ours, by_hand(start, rows, rate_of))


def test_blocks_that_wait_have_no_gradient_and_no_moments(tiny_model: TinyModel):
    checkpoint = checkpoints.load(tiny_model("bert"), PROBLEM)
    strategy = GradualUnfreezing()
    model = strategy.adapt(checkpoint.model, PROBLEM)
    phases = strategy.course(model, SETTINGS, 60, 15).phases
    assert [(p.start, p.stop) for p in phases] == [(0, 10), (10, 20), (20, 30), (30, 60)]
    names = {id(p): n for n, p in model.named_parameters()}
    assert [{level_of(names[id(p)]) for p in phase.waiting} for phase in phases] == [{0, 1, 2}, {0, 1}, {0}, set()]


def test_phases_longer_than_the_training_are_refused_in_one_line(tiny_model: TinyModel, tmp_path: Path):
    with pytest.raises(UnsupportedError, match=r"4 phases of 2 epochs .* 4 epochs; raise num_train_epochs"):
        by_strategy(GradualUnfreezing(epochs_per_phase=2), tiny_model("bert"), tmp_path)


HIERARCHY = AdaptiveHierarchical(
    level_bounds=None, level_rates=(1.0, 0.6, 0.3), phase_shares=(1, 1, 2), trust_limit=1.5, stall_factor=1.0
)


def test_adaptive_hierarchical_is_its_formula_step_by_step(tiny_model: TinyModel, tmp_path: Path):
    """Of two blocks, the lower is the word level, the upper the sentences; paragraphs have none."""
    start = tiny_model("bert")
    ours, rows = by_strategy(HIERARCHY, start, tmp_path)
    steps = num_steps(rows)
    bounds = [0, steps // 4, steps // 2, steps]
    level = {0: "word", 1: "word", 2: "sentence", 3: "head"}
    share = {"word": 1.0, "sentence": 0.6, "head": 1.0}
    ratios: dict[str, float] = {}

    def norm(tensors: list[torch.Tensor]) -> float:
        return math.sqrt(sum(float((t.detach().double() ** 2).sum()) for t in tensors))

    def rate_of(step: int, named: dict, after: Any) -> dict[str, float | None]:
        phase = next(i for i in range(3) if step < bounds[i + 1])
        learning = {n for n in named if phase > 0 or level[level_of(n)] != "sentence"}
        if after is not None:
            for which in ("word", "sentence", "head"):
                chosen = [p for n, p in named.items() if n in learning and level[level_of(n)] == which]
                chosen = [p for p in chosen if p.grad is not None]
                if chosen:
                    new = norm([used(p) for p in chosen]) / norm([p.grad for p in chosen])
                    ratios[which] = 0.9 * ratios[which] + 0.1 * new if which in ratios else new
        mean = math.exp(np.mean([math.log(r) for r in ratios.values()])) if ratios else 1.0
        factor = {which: min(1.5, max(1 / 1.5, r / mean)) for which, r in ratios.items()}
        rise = slanted_triangle(step - bounds[phase], bounds[phase + 1] - bounds[phase])
        return {
            n: RATE * rise * share[level[level_of(n)]] * factor.get(level[level_of(n)], 1.0) if n in learning else None
            for n in named
        }

    tokens = torch.tensor(sorted({0, *(t for row in rows["input_ids"].to_pylist() for t in row)}))
    vocabulary_size = checkpoints.load(start, PROBLEM).model.get_input_embeddings().num_embeddings

    def used(parameter: torch.Tensor) -> torch.Tensor:
        """Word embeddings are those of tokens that occur: the others never learn, and are no part of the level."""
        return parameter[tokens] if len(parameter) == vocabulary_size else parameter

    by_hand_twice = []
    for is_turned in (False, True):
        ratios.clear()
        by_hand_twice.append(by_hand(start, rows, rate_of, is_turned=is_turned))
    assert_same(ours, *by_hand_twice)


@pytest.mark.parametrize(("num_blocks", "bounds"), [(12, (4, 8)), (6, (2, 4)), (3, (1, 2)), (2, (1, 2)), (4, (1, 3))])
def test_levels_are_thirds_of_the_blocks(num_blocks, bounds):
    assert AdaptiveHierarchical()._bounds(num_blocks) == bounds


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"level_rates": (0.2, 0.5, 1.0)}, "level_rates [0.2, 0.5, 1.0] rise; expected rates of words, sentences"),
        ({"level_bounds": (4, 2)}, "level_bounds [4, 2] are out of order"),
    ],
)
def test_rates_and_levels_out_of_order_are_refused(fields, said):
    with pytest.raises(ValueError, match=r"level_") as caught:
        AdaptiveHierarchical(**fields)
    assert said in str(caught.value)


def test_bounds_beyond_the_model_are_refused(tiny_model: TinyModel, tmp_path: Path):
    with pytest.raises(UnsupportedError, match=r"level_bounds \[1, 2\] leave no block for paragraphs: .* has 2 blocks"):
        by_strategy(AdaptiveHierarchical(level_bounds=(1, 2)), tiny_model("bert"), tmp_path)


def test_rates_are_cut_when_validation_stalls():
    from ftlib.training.adaptive_rates import AdaptiveRates

    rates = AdaptiveRates(2.0, 0.5)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = torch.optim.SGD([{"params": [weight], "level": 0}], lr=1.0)
    for is_best, expected in ((True, 1.0), (False, 0.5), (False, 0.25)):
        rates.on_evaluate(None, None, None, metrics={"is_best": is_best})
        optimizer.param_groups[0]["lr"] = 1.0
        rates.on_pre_optimizer_step(None, None, None, optimizer=optimizer)
        assert optimizer.param_groups[0]["lr"] == expected
    again = AdaptiveRates.from_state(rates.state())
    assert (again.ratios, again.cut) == (rates.ratios, 0.25)


# -- partial -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "levels"),
    [
        ({}, {2, 3}),
        ({"last_blocks": 0}, {3}),
        ({"last_blocks": 0, "first_blocks": 1, "head": False}, {1}),
        ({"embeddings": True}, {0, 3}),
        ({"patterns": (r"layer\.0\.output", r"classifier")}, {1, 3}),
    ],
)
def test_partial_opens_what_is_chosen(fields: dict, levels: set, tiny_model: TinyModel):
    model = Partial(**fields).adapt(checkpoints.load(tiny_model("bert"), PROBLEM).model, PROBLEM)
    opened = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {level_of(name) for name in opened} == levels
    if "patterns" in fields:
        assert all("output" in name for name in opened if level_of(name) == 1)
    else:
        assert opened == {name for name, _ in model.named_parameters() if level_of(name) in levels}


def test_bitfit_opens_biases_and_the_head(tiny_model: TinyModel):
    model = Partial(biases=True).adapt(checkpoints.load(tiny_model("bert"), PROBLEM).model, PROBLEM)
    opened = {name for name, p in model.named_parameters() if p.requires_grad}
    assert opened == {n for n, _ in model.named_parameters() if n.endswith("bias") or level_of(n) == 3}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"patterns": ("bert.encoder.layr.0.output.dense.weight",)},
            "name; near: bert.encoder.layer.0.output.dense.weight,",
        ),
        ({"patterns": ("encoder.layers.1",)}, "near: bert.encoder.layer.1."),
        ({"last_blocks": 3}, "3 blocks are to learn, but the model has 2; choose fewer"),
        ({"last_blocks": 0, "head": False}, "nothing learns; choose last_blocks"),
    ],
)
def test_what_cannot_be_chosen_is_one_clear_line(fields: dict, said: str, tiny_model: TinyModel):
    with pytest.raises(UnsupportedError) as caught:
        Partial(**fields).adapt(checkpoints.load(tiny_model("bert"), PROBLEM).model, PROBLEM)
    assert said in str(caught.value)


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises((ParamsError, ValueError), match="is no regular expression"):
        Partial(patterns=("layer.[4",))
