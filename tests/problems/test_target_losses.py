from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F

from ftlib.targets.base import Target
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

THREE = ("a", "b", "c")
TARGETS = [SingleLabel(THREE), MultiLabel(THREE), Value()]
LABELS = {
    "single_label": torch.tensor([0, 2, 1, 1]),
    "multi_label": torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    "value": torch.tensor([0.5, -1.0, 3.8, 5.0]),
}
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.kind)


def some_logits(target: Target, seed: int = 0) -> torch.Tensor:
    return torch.randn(4, target.num_outputs, generator=torch.Generator().manual_seed(seed)) * 3


# -- losses --------------------------------------------------------------------------------------------


@each_target
def test_the_loss_is_the_one_that_transformers_takes(target: Target):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=32, **target.config())).eval()
    labels = LABELS[target.kind]
    outputs = model(input_ids=torch.randint(20, (4, 7)), labels=labels)
    assert outputs.logits.shape == (4, target.num_outputs)
    torch.testing.assert_close(target.loss(outputs.logits, labels), outputs.loss)


def test_the_losses_are_the_textbooks_formulas():
    probabilities = torch.tensor([[0.7, 0.2, 0.1]])
    entropy = SingleLabel(THREE).loss(probabilities.log(), torch.tensor([1]))
    assert entropy.item() == pytest.approx(-math.log(0.2))
    both = MultiLabel(("a", "b")).loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]))
    assert both.item() == pytest.approx((-math.log(0.5) - math.log(0.25)) / 2)
    assert Value().loss(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 5.0])).item() == pytest.approx((1 + 4) / 2)


@each_target
def test_one_row_alone_has_a_loss(target: Target):
    loss = target.loss(some_logits(target)[:1], LABELS[target.kind][:1])
    assert loss.shape == ()


@each_target
def test_losses_are_taken_in_float32_from_half_precision(target: Target):
    halves = some_logits(target).bfloat16()
    assert target.loss(halves, LABELS[target.kind]).dtype == torch.float32
    assert target.distillation_loss(halves, halves, 2.0).dtype == torch.float32


# -- distillation --------------------------------------------------------------------------------------


def test_distillation_of_one_label_is_the_divergence_of_softened_probabilities():
    student, teacher = (some_logits(SingleLabel(THREE), seed).double() for seed in (1, 2))
    p, q = (F.softmax(logits / 3, dim=-1) for logits in (teacher, student))
    expected = (p * (p / q).log()).sum(dim=-1).mean() * 9
    loss = SingleLabel(THREE).distillation_loss(student, teacher, 3.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_distillation_of_several_labels_is_the_cross_entropy_of_softened_sigmoids():
    student, teacher = (some_logits(MultiLabel(THREE), seed).double() for seed in (1, 2))
    p, q = (torch.sigmoid(logits / 3) for logits in (teacher, student))
    expected = -(p * q.log() + (1 - p) * (1 - q).log()).mean() * 9
    loss = MultiLabel(THREE).distillation_loss(student, teacher, 3.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_distillation_of_numbers_is_the_squared_distance():
    student, teacher = (some_logits(Value(), seed) for seed in (1, 2))
    expected = ((student - teacher) ** 2).mean()
    torch.testing.assert_close(Value().distillation_loss(student, teacher, 7.0), expected)


@each_target
@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_a_student_equal_to_its_teacher_stays_so(target: Target, temperature: float):
    student = some_logits(target).requires_grad_()
    target.distillation_loss(student, some_logits(target), temperature).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-6, rtol=0)


@each_target
def test_no_gradient_reaches_the_teacher(target: Target):
    student, teacher = some_logits(target, 1).requires_grad_(), some_logits(target, 2).requires_grad_()
    target.distillation_loss(student, teacher, 2.0).backward()
    assert teacher.grad is None
    assert student.grad is not None


@each_target
def test_gradients_keep_their_size_at_high_temperatures(target: Target):
    def size(temperature: float) -> float:
        student = some_logits(target, 1).requires_grad_()
        target.distillation_loss(student, some_logits(target, 2), temperature).backward()
        return student.grad.norm().item()

    assert 0.2 < size(50.0) / size(1.0) < 5


# -- scores --------------------------------------------------------------------------------------------

logits = hnp.arrays(np.float32, (3, 4, 3), elements=st.floats(-60, 60, width=32))


@given(logits)
def test_scores_are_torchs_probabilities(values: np.ndarray):
    tensor = torch.from_numpy(values).double()
    np.testing.assert_allclose(SingleLabel(THREE).scores(values), tensor.softmax(dim=-1).numpy(), atol=1e-12)
    np.testing.assert_allclose(MultiLabel(THREE).scores(values), tensor.sigmoid().numpy(), atol=1e-12)
    assert (Value().scores(values) == values).all()


@given(logits)
def test_the_scores_of_mean_logits_are_the_mean_scores(values: np.ndarray):
    for target in TARGETS:
        one = values[..., : target.num_outputs]
        mean = target.scores(one).mean(axis=0)
        np.testing.assert_allclose(target.scores(target.mean_logits(list(one))), mean, atol=1e-9)
        assert np.isfinite(target.mean_logits(list(one))).all()


def test_mean_logits_of_one_label_are_logarithms_of_probabilities():
    values = np.random.default_rng(0).normal(size=(3, 4, 3))
    mean = SingleLabel(THREE).scores(values).mean(axis=0)
    np.testing.assert_allclose(np.exp(SingleLabel(THREE).mean_logits(list(values))), mean)


@given(logits)
def test_copies_of_one_model_have_its_own_mean(values: np.ndarray):
    for target in TARGETS:
        one = values[0][:, : target.num_outputs]
        np.testing.assert_allclose(target.scores(target.mean_logits([one, one])), target.scores(one), atol=1e-9)


@each_target
def test_scores_are_float64_of_the_logits_shape(target: Target):
    for shape in [(target.num_outputs,), (5, target.num_outputs), (2, 5, target.num_outputs)]:
        scores = target.scores(np.zeros(shape, np.float32))
        assert scores.shape == shape
        assert scores.dtype == np.float64


def test_a_label_is_given_from_its_threshold_on():
    scores = np.array([[0.3, 0.29, 0.9], [0.0, 0.1, 0.2]])
    assert MultiLabel(THREE, threshold=0.3).decode(scores) == [["a", "c"], []]


def test_of_equally_probable_labels_the_first_is_given():
    assert SingleLabel(THREE).decode(np.array([[0.4, 0.4, 0.2]])) == ["a"]
