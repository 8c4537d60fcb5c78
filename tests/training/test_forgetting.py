"""What holds earlier tasks follows the papers' formulas, written out on a tiny BERT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional as F

from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.siblings import sibling
from ftlib.problems.base import Problem
from ftlib.training import stage
from ftlib.training.batches import Rows
from ftlib.training.embeddings import learn_rows
from ftlib.training.forgetting import (
    consolidated,
    fisher,
    recorded,
    remembered,
    reservoir,
    shared_parameters,
    with_own_answers,
)
from ftlib.training.mixed_rows import MixedRows
from ftlib.training.mixing import Mixture, Part, Recorded
from ftlib.training.penalties import Penalties
from ftlib.training.regularization import Regularization
from tests import contracts

TinyModel = Callable[..., Path]


def problem_of(name: str, **fields: Any) -> Problem:
    return contracts.bound(Problem.named(name)(**fields)).model_copy(update={"max_length": 32})


SINGLE = problem_of("text_classification")
MULTI = contracts.bound(Problem.named("text_classification")(multi_label=True)).model_copy(update={"max_length": 32})
NUMBER = problem_of("text_regression")
WORDS = problem_of("token_classification")


def opened(start: Path, problem: Problem) -> tuple[Checkpoint, Rows]:
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, problem)
    return checkpoint, Rows.from_table(
        contracts.encoded_rows(problem, checkpoint.tokenizer), checkpoint.tokenizer, problem
    )


# -- rows ----------------------------------------------------------------------------------------------


def test_each_row_of_a_stream_is_as_likely_to_be_in_the_reservoir():
    found = np.zeros(40)
    for seed in range(3000):
        held = reservoir(40, 7, np.random.default_rng(seed))
        assert len(set(held.tolist())) == 7
        found[held] += 1
    assert chisquare(found).pvalue > 1e-3


def test_a_stream_shorter_than_the_reservoir_is_all_in_it():
    assert reservoir(5, 9, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]


def test_rows_are_held_for_each_task_or_for_all_and_windows_stay_together():
    tables = {
        "long": pa.table({"row_id": np.repeat(np.arange(50), 3), "window": np.tile(np.arange(3), 50)}),
        "short": pa.table({"row_id": np.arange(150)}),
    }
    each = remembered(tables, 20, for_each=True, seed=1)
    assert {task: len(set(t["row_id"].to_pylist())) for task, t in each.items()} == {"long": 20, "short": 20}
    assert len(each["long"]) == 60
    everything = remembered(tables, 80, for_each=False, seed=1)
    sizes = {task: len(set(t["row_id"].to_pylist())) for task, t in everything.items()}
    assert sum(sizes.values()) == 80
    assert abs(sizes["long"] - 20) < 15  # a quarter of the stream
    assert everything["short"].equals(remembered(tables, 80, for_each=False, seed=1)["short"])


# -- elastic weight consolidation ----------------------------------------------------------------------


def log_likelihood(problem: Problem, logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Return log p(answer | row) as the distributions say: softmax, independent sigmoids, a unit normal."""
    if problem is SINGLE:
        return logits.log_softmax(-1)[0, int(answer)]
    if problem is MULTI:
        return (answer * logits.sigmoid().log() + (1 - answer) * (1 - logits.sigmoid()).log()).sum()
    return -0.5 * (answer - logits[0, 0]).square()


@pytest.mark.parametrize("problem", [SINGLE, MULTI, NUMBER], ids=["label", "labels", "number"])
def test_empirical_fisher_information_is_the_mean_squared_gradient_of_each_rows_log_likelihood(
    problem: Problem, tiny_model: TinyModel
):
    checkpoint, rows = opened(tiny_model("bert"), problem)
    shared = shared_parameters(checkpoint.model)
    found = fisher(checkpoint, problem, rows, shared, num_rows=100, of="empirical", seed=1)
    expected = {name: torch.zeros_like(p) for name, p in shared.items()}
    for i in range(len(rows)):
        batch = rows.batch(np.array([i]))
        checkpoint.model.zero_grad()
        log_likelihood(problem, problem.forward(checkpoint.model, batch), batch["labels"][0]).backward()
        for name, parameter in shared.items():
            expected[name] += parameter.grad.square() / len(rows)
    assert not any("classifier" in name or "pooler" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-7, rtol=1e-3, msg=name)


def test_fisher_information_of_the_models_own_answers_nears_the_expectation_over_all_labels(tiny_model: TinyModel):
    """F = sum over labels y of p(y | x) x (gradient of log p(y | x)) squared, of the softmax itself."""
    checkpoint, rows = opened(tiny_model("bert"), SINGLE)
    name = "bert.encoder.layer.1.output.dense.weight"
    shared = {name: shared_parameters(checkpoint.model)[name]}
    expected = torch.zeros_like(shared[name])
    for i in range(len(rows)):
        logits = SINGLE.forward(checkpoint.model, rows.batch(np.array([i])))
        for label, probability in enumerate(logits.softmax(-1)[0].tolist()):
            gradient = torch.autograd.grad(logits.log_softmax(-1)[0, label], shared[name], retain_graph=True)[0]
            expected += probability * gradient.square() / len(rows)
    found = torch.stack(
        [fisher(checkpoint, SINGLE, rows, shared, num_rows=100, of="model", seed=s)[name] for s in range(24)]
    ).mean(0)
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.98
    assert (found.sum() / expected.sum()).item() == pytest.approx(1, abs=0.15)


def test_words_tagged_one_by_one_have_the_information_of_their_gold_tags(tiny_model: TinyModel):
    checkpoint, rows = opened(tiny_model("bert"), WORDS)
    shared = shared_parameters(checkpoint.model)
    found = fisher(checkpoint, WORDS, rows, shared, num_rows=3, of="model", seed=1)
    assert sum(float(value.sum()) for value in found.values()) > 0


@pytest.mark.parametrize("only_rows_in_use", [False, True])
def test_ewc_has_the_gradient_of_its_formula(only_rows_in_use: bool, tiny_model: TinyModel):
    """Kirkpatrick et al. (2017), equation 3, for two earlier tasks: the sum of weight / 2 x F (theta - start)^2."""
    checkpoint, rows = opened(tiny_model("bert"), SINGLE)
    model = checkpoint.model
    shared = shared_parameters(model)
    start = {name: p.detach().clone() for name, p in shared.items()}
    fishers = [fisher(checkpoint, SINGLE, rows, shared, num_rows=4, of="empirical", seed=s) for s in (1, 2)]
    pulls = consolidated(fishers, shared, 30.0, 0.5)
    batch = rows.batch(np.arange(len(rows)))
    if only_rows_in_use:
        learn_rows(model, batch["input_ids"].unique())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    penalties = Penalties(model, Regularization(), [p for p in model.parameters() if p.requires_grad], pulls)
    SINGLE.loss(SINGLE.forward(model, batch), batch).backward()
    penalties.add()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.zero_grad()
    total = SINGLE.loss(SINGLE.forward(model, batch), batch)
    for name, parameter in model.named_parameters():
        origin, ids = name, slice(None)
        if name.endswith("word_embeddings.rows"):
            origin, ids = name.replace("rows", "weight"), model.get_input_embeddings().ids
        if origin in start and parameter.requires_grad:
            distance = (parameter - start[origin][ids]).square()
            total = total + 30.0 / 2 * (fishers[0][origin][ids] * distance).sum()
            total = total + 30.0 * 0.5 / 2 * (fishers[1][origin][ids] * distance).sum()  # learned before the other
    total.backward()
    compared = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert compared.keys() == found.keys()
    assert ("bert.embeddings.word_embeddings.rows" in found) == only_rows_in_use
    for name, value in compared.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4, msg=name)


# -- replay ----------------------------------------------------------------------------------------------


def test_replayed_rows_are_held_to_what_was_said_of_them_before(tiny_model: TinyModel):
    """Buzzega et al. (2020), equation 6, with softened divergence (Hinton et al. 2015) as the distance."""
    checkpoint, _ = opened(tiny_model("bert"), SINGLE)
    table = contracts.encoded_rows(SINGLE, checkpoint.tokenizer)
    told = with_own_answers(checkpoint, SINGLE, table)
    rows = Rows.from_table(told, checkpoint.tokenizer, SINGLE)
    model, everything = checkpoint.model, np.arange(len(rows))
    before = SINGLE.forward(model, rows.batch(everything)).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    new = Part(NUMBER, checkpoint, rows, told.slice(0, 0))
    mixture = Mixture({"new": new, "main": Part(SINGLE, checkpoint, rows, told, held=0.7, temperature=2.0)})
    batch = MixedRows.of({"new": rows, "main": rows}, (1, 1)).__getitems__(everything + len(rows))
    found = mixture.loss(mixture.forward(model, batch), batch)
    logits = SINGLE.forward(model, rows.batch(everything))
    softened, current = (before / 2).softmax(-1), (logits / 2).softmax(-1)
    divergence = (softened * (softened.log() - current.log())).sum(-1).mean()
    expected = F.cross_entropy(logits, rows.batch(everything)["labels"]) + 0.7 * 4 * divergence
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert divergence > 1e-3


# -- learning without forgetting -----------------------------------------------------------------------


@pytest.mark.parametrize("can_recall", [True, False])
def test_an_earlier_head_is_held_to_what_it_said_of_the_new_rows(can_recall: bool, tiny_model: TinyModel):
    """Li and Hoiem (2016), equations 2 to 4: cross-entropy of both outputs raised to 1/T, here less its own minimum
    and times T squared, as distillation has it."""
    checkpoint, rows = opened(tiny_model("bert"), SINGLE)
    earlier = problem_of("text_pair_classification")
    old = sibling(checkpoint, earlier, "pairs")
    said = recorded(old, earlier, rows)
    kept = Rows(rows.lists, {**rows.fixed, "before/pairs": said}, rows.targets)
    listed = [Recorded("pairs", earlier, old, "before/pairs", 0.7, 2.0)]
    part = Part(SINGLE, checkpoint, kept, pa.table({}))
    mixture = Mixture({"main": part}, recorded=listed, can_recall=can_recall)
    batch = MixedRows.of({"main": kept}, (1,)).__getitems__(np.arange(len(kept)))
    model = checkpoint.model
    assert mixture.loss(mixture.forward(model, batch), batch).item() == pytest.approx(
        SINGLE.loss(SINGLE.forward(model, rows.batch(np.arange(8))), batch).item(), abs=1e-5
    )
    with torch.no_grad():
        for parameter in model.base_model.encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = mixture.loss(mixture.forward(model, batch), batch)
    plain = rows.batch(np.arange(8))
    inputs = {name: plain[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    before, now = torch.from_numpy(said), old.model(**inputs).logits
    softened = before.softmax(-1) ** 0.5 / (before.softmax(-1) ** 0.5).sum(-1, keepdim=True)
    current = now.softmax(-1) ** 0.5 / (now.softmax(-1) ** 0.5).sum(-1, keepdim=True)
    cross, least = -(softened * current.log()).sum(-1).mean(), -(softened * softened.log()).sum(-1).mean()
    expected = F.cross_entropy(model(**inputs).logits, plain["labels"]) + 0.7 * 4 * (cross - least)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    found.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3, msg=name)


def test_heads_share_one_pass_through_the_blocks(tiny_model: TinyModel):
    checkpoint, rows = opened(tiny_model("bert"), SINGLE)
    earlier = problem_of("text_pair_classification")
    old = sibling(checkpoint, earlier, "pairs")
    calls: list[nn.Module] = []
    block = checkpoint.model.base_model.encoder.layer[0].attention
    block.register_forward_hook(lambda module, inputs, output: calls.append(module))
    kept = Rows(rows.lists, {**rows.fixed, "before/pairs": recorded(old, earlier, rows)}, rows.targets)
    listed = [Recorded("pairs", earlier, old, "before/pairs", 1.0, 2.0)]
    batch = MixedRows.of({"main": kept}, (1,)).__getitems__(np.arange(4))
    for can_recall, number in ((True, 1), (False, 2)):
        mixture = Mixture(
            {"main": Part(SINGLE, checkpoint, kept, pa.table({}))}, recorded=listed, can_recall=can_recall
        )
        calls.clear()
        mixture.forward(checkpoint.model, batch)
        assert len(calls) == number
