"""Heads that are new begin at the frequencies of the training labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier

from ftlib.models import checkpoints
from ftlib.models.layers import head_parameters
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.targets.base import Target
from ftlib.targets.losses import IGNORED, PLAIN, LossShape
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.tags import Tags
from ftlib.targets.value import Value
from ftlib.training import stage
from ftlib.training.stage import Training
from tests import contracts

RANDOM = np.random.default_rng(5)
ONE_OF_THREE = np.repeat([0, 1, 2], [16_000, 3_000, 1_000])
MANY = (RANDOM.random((20_000, 3)) < [0.6, 0.1, 0.02]).astype(np.float32)
WEIGHTED = LossShape(class_weights=(0.5, 1.0, 4.0))


@pytest.mark.parametrize("shape", [PLAIN, WEIGHTED])
@pytest.mark.parametrize(
    ("target", "labels"),
    [
        (SingleLabel(("a", "b", "c")), ONE_OF_THREE),
        (Tags(("O", "B-x", "I-x")), ONE_OF_THREE),
        (MultiLabel(("a", "b", "c")), MANY),
        (Value(), RANDOM.normal(2.6, 1.5, 20_000).astype(np.float32)),
    ],
    ids=lambda value: value.kind if isinstance(value, Target) else None,
)
def test_no_other_constant_has_a_smaller_loss(target: Target, labels: np.ndarray, shape: LossShape) -> None:
    prior = target.prior_logits(labels, shape)
    assert prior is not None
    assert prior.dtype == np.float32
    assert prior.shape == (target.num_outputs,)
    bias = torch.from_numpy(prior).requires_grad_()
    logits, gold = bias.expand(len(labels), -1), torch.from_numpy(labels)
    if target.kind == "tags":  # rows of ten words
        logits, gold = logits.unflatten(0, (-1, 10)), gold.view(-1, 10)
    target.loss(logits, gold, shape).backward()
    assert bias.grad is not None
    np.testing.assert_allclose(bias.grad, 0, atol=2e-4)


def test_it_says_what_scikit_learn_s_prior_says() -> None:
    prior = SingleLabel(("a", "b", "c")).prior_logits(ONE_OF_THREE)
    theirs = DummyClassifier(strategy="prior").fit(np.zeros((len(ONE_OF_THREE), 1)), ONE_OF_THREE)
    ours = torch.from_numpy(prior).softmax(0).numpy()
    np.testing.assert_allclose(ours, theirs.class_prior_, atol=1e-4)


def test_balanced_labels_change_nothing_and_unknown_ones_do_not_count() -> None:
    three = SingleLabel(("a", "b", "c"))
    assert not three.prior_logits(np.array([0, 1, 2, 0, 1, 2])).any()
    labels = np.array([0, 0, 0, 1])
    known = three.prior_logits(labels)
    np.testing.assert_array_equal(three.prior_logits(np.append(labels, [IGNORED] * 9)), known)
    assert known[2] < known[1] < known[0] < np.inf  # a label without rows is rare, not impossible
    balanced = LossShape(class_weights=three.balanced_weights(np.append(labels, 2)))
    assert np.ptp(three.prior_logits(np.append(labels, 2), balanced)) < 1e-6
    numbers = np.array([1.0, 3.0, np.nan], np.float32)
    assert Value().prior_logits(numbers) == 2.0
    assert Value().prior_logits(numbers[2:]) is None
    hot = np.array([[1, 0], [1, 0], [np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(MultiLabel(("a", "b")).prior_logits(hot), np.log([3, 1 / 3]), rtol=1e-6)


@pytest.fixture
def problem() -> Problem:
    return contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 32})


@pytest.mark.parametrize("strategy", ["full", "lora", "prefix", "prompt_tuning"])
def test_a_stage_begins_a_new_head_there_and_leaves_a_trained_one(strategy, problem, tiny_model, tmp_path) -> None:
    start = tiny_model("bert", 0.1)
    checkpoint = checkpoints.load(start, problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer, limit=None)
    labels = np.asarray(rows["labels"])
    rare, common = (np.flatnonzero(labels == label) for label in np.unique(labels)[:2])
    uneven = rows.take(np.concatenate([rare[:1], np.tile(common, 4)[:7]]))
    expected = problem.target.prior_logits(np.asarray(uneven["labels"]))

    def bias_after(checkpoint, **settings) -> np.ndarray:
        stage.set_seed(1)
        still = Training(learning_rate=1e-12, num_train_epochs=1.0, precision="float32", **settings)
        scratch = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        result = stage.train(checkpoint, uneven, rows, problem=problem, strategy=Strategy.named(strategy)(),
                             settings=still, seed=1, scratch=scratch, name="train-test")  # fmt: skip
        return head_parameters(result.checkpoint.model)[-1].detach().numpy()

    np.testing.assert_allclose(bias_after(checkpoint), expected, atol=1e-6)
    np.testing.assert_allclose(bias_after(checkpoints.load(start, problem), prior_bias=False), 0, atol=1e-6)
    trained = checkpoints.load(start, problem)
    head_parameters(trained.model)[-1].data[:] = torch.tensor([0.3, -0.1, 0.2])[: len(expected)]
    given = head_parameters(trained.model)[-1].detach().numpy().copy()
    np.testing.assert_allclose(bias_after(trained), given, atol=1e-6)
