"""Distillation: its losses are the papers', the teacher runs once a row, and what cannot be compared is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ftlib.errors import ArtifactError, UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.layers import block_list, keep_blocks
from ftlib.models.observing import Observer
from ftlib.models.widths import narrower
from ftlib.prediction import describe
from ftlib.problems.base import Problem
from ftlib.strategies.base import Lesson, Strategy
from ftlib.training import layer_states, stage
from ftlib.training.batches import Rows
from ftlib.training.imitation import imitating
from ftlib.training.stage import Training, TrainResult
from tests import contracts

PROBLEM = contracts.bound(Problem.named("text_classification")())
BOTH = Lesson("teacher", 1, hidden=True, attention=True)


def opened(folder: Path, seed: int = 0) -> Checkpoint:
    stage.set_seed(seed)
    return checkpoints.load(folder, PROBLEM)


def distillation(**fields: Any) -> Strategy:
    return Strategy.named("distillation")(**fields)


def described(teacher: Checkpoint, folder: Path, lesson: Lesson = BOTH) -> pa.Table:
    """Let a teacher predict the examples, its layers noted on the way; return the rows with its logits."""
    rows = contracts.encoded_rows(PROBLEM, teacher.tokenizer)
    folder.mkdir(exist_ok=True)
    return PROBLEM.teach(rows, [describe(teacher, rows, PROBLEM, lesson, folder, precision="float32").table])


# -- the losses ----------------------------------------------------------------------------------------


def kept(values: torch.Tensor) -> torch.Tensor:
    """Return a teacher's values as they are kept."""
    return values.detach().bfloat16().float()


def scores_of(model: Any, states: torch.Tensor, number: int) -> torch.Tensor:
    """Return a block's attention scores head by head, A of equation 7, from what enters it."""
    attention, heads = block_list(model)[number - 1].attention.self, model.config.num_attention_heads
    query, key = (part(states)[0].chunk(heads, dim=-1) for part in (attention.query, attention.key))
    return torch.stack([q @ k.T / q.shape[1] ** 0.5 for q, k in zip(query, key, strict=True)])


def by_hand(student: Any, teacher: Any, rows: pa.Table, projections: Any, layers: dict[int, int]) -> dict[str, Any]:
    """Return equations 7 to 9 of TinyBERT, row by row, by plain transformers' forward."""
    losses: dict[str, list[torch.Tensor]] = {"hidden": [], "attention": []}
    for ids in rows["input_ids"].to_pylist():
        mine, theirs = (
            model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            for model in (student, teacher)
        )
        hidden = [((projections[bool(m)](mine[m]) - kept(theirs[layers[m]])) ** 2).mean() for m in layers]
        losses["hidden"].append(torch.stack(hidden).sum())
        pairs = [
            (scores_of(student, mine[m - 1], m), scores_of(teacher, theirs[g - 1], g)) for m, g in layers.items() if m
        ]
        if pairs[0][0].shape == pairs[0][1].shape:
            losses["attention"].append(sum(((one - kept(other)) ** 2).mean() for one, other in pairs))  # type: ignore
    return {name: torch.stack(each).mean() for name, each in losses.items() if each}


@pytest.mark.parametrize("width", [32, 16])
def test_layer_losses_and_their_gradients_are_those_of_the_formula(width, tiny_model, tmp_path):
    teacher, student = opened(tiny_model("bert")), opened(tiny_model("bert"), seed=1).model
    keep_blocks(student, 1)
    student = narrower(student, hidden=width).train()  # no dropout in this one
    rows = described(teacher, tmp_path, Lesson("teacher", 1, hidden=True, attention=width == 32))
    given = Rows.from_table(rows, teacher.tokenizer, PROBLEM)
    batch = given.__getitems__(np.arange(len(given)))
    with imitating(student, tmp_path, given) as imitation:
        PROBLEM.forward(student, batch)
        found = {"hidden": imitation.hidden_loss(batch)}
        if width == 32:
            found["attention"] = imitation.attention_loss(batch)
        projections = [imitation.embedding_projection, imitation.hidden_projection]
        expected = by_hand(student, teacher.model, rows, projections, {0: 0, 1: 2})
        learned = list(student.parameters())
        assert set(found) == set(expected)
        for name, loss in found.items():
            torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)
            ours, theirs = (torch.autograd.grad(x, learned, retain_graph=True, allow_unused=True)
                            for x in (loss, expected[name]))  # fmt: skip
            assert [g is None for g in ours] == [g is None for g in theirs]
            pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None]
            assert pairs
            for one, other in pairs:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_all_parts_of_the_loss_are_weighed_and_added(tiny_model, tmp_path):
    teacher, student = opened(tiny_model("bert")), opened(tiny_model("bert"), seed=1)
    rows = described(teacher, tmp_path, Lesson("teacher", None, hidden=True, attention=True))
    given = Rows.from_table(rows, teacher.tokenizer, PROBLEM)
    batch = given.__getitems__(np.arange(len(given)))
    with imitating(student.model, tmp_path, given) as imitation:
        chosen = distillation(alpha=0.3, temperature=3.0, hidden_weight=0.2, attention_weight=0.7)
        chosen._imitation = imitation
        logits = PROBLEM.forward(student.model, batch)
        mine, theirs = (torch.log_softmax(x / 3, -1) for x in (logits, batch["teacher_logits"]))
        soft = 9 * (theirs.exp() * (theirs - mine)).sum(-1).mean()
        gold = torch.nn.functional.cross_entropy(logits, batch["labels"])
        layers = 0.2 * imitation.hidden_loss(batch) + 0.7 * imitation.attention_loss(batch)
        torch.testing.assert_close(chosen.loss(logits, batch, PROBLEM), 0.3 * soft + 0.7 * gold + layers)


@pytest.mark.parametrize(("student", "teacher", "layers"), [(4, 12, (0, 3, 6, 9, 12)), (3, 6, (0, 2, 4, 6)),
                                                            (2, 2, (0, 1, 2)), (4, 6, (0, 2, 3, 5, 6))])  # fmt: skip
def test_student_layers_imitate_teacher_layers_evenly_the_last_the_last(student, teacher, layers):
    assert layer_states.layer_map(student, teacher) == layers


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta", "llama"])
def test_hidden_states_are_those_that_transformers_gives_for_every_place(architecture, tiny_model):
    model = opened(tiny_model(architecture)).model
    given = {"input_ids": torch.tensor([[5, 9, 12, 7, 3]])}
    with torch.no_grad(), Observer(model, hidden=(0, 1, 2)) as observer:
        expected = model(**given, output_hidden_states=True).hidden_states
        last = 1 if architecture == "llama" else 2  # there, a norm follows the last block
        for layer in range(last + 1):
            torch.testing.assert_close(observer.states[layer], expected[layer])
        assert all("forward" in vars(block) for block in block_list(model))  # so that no shortcut takes its place
    assert not any("forward" in vars(block) for block in block_list(model))


# -- a stage -------------------------------------------------------------------------------------------


def trained(start: Path, rows: pa.Table, layers: Path | None, scratch: Path, **fields: Any) -> TrainResult:
    settings = fields.pop("settings", {})
    checkpoint = opened(start, seed=3)
    return stage.train(
        checkpoint,
        rows,
        rows,
        problem=PROBLEM,
        strategy=distillation(**fields),
        settings=Training(**{"learning_rate": 5e-3, "num_train_epochs": 3.0, "batch_size": 4, "precision": "float32",
                             "lr_scheduler_type": "constant_with_warmup"} | settings),
        seed=3,
        scratch=scratch,
        name="train-student",
        layers=layers,
    )  # fmt: skip


def distance(model: Any, teacher: Checkpoint, rows: pa.Table, layers: Path) -> float:
    given = Rows.from_table(rows, teacher.tokenizer, PROBLEM)
    batch = given.__getitems__(np.arange(len(given)))
    with torch.no_grad(), imitating(model, layers, given) as imitation:
        PROBLEM.forward(model, batch)
        return float(imitation.hidden_loss(batch))


def test_a_student_s_layers_come_nearer_to_its_teacher_s_and_leave_no_trace(tiny_model, tmp_path):
    teacher = opened(tiny_model("bert"))
    rows = described(teacher, tmp_path / "layers", Lesson("teacher", 1, hidden=True, attention=False))
    plain = trained(tiny_model("bert"), rows, None, tmp_path / "a", student_blocks=1)
    near = trained(tiny_model("bert"), rows, tmp_path / "layers", tmp_path / "b", student_blocks=1, hidden_weight=10.0)
    far, close = (distance(r.checkpoint.model, teacher, rows, tmp_path / "layers") for r in (plain, near))
    assert close < 0.8 * far
    assert set(near.checkpoint.model.state_dict()) == set(plain.checkpoint.model.state_dict())
    assert near.figures["num_trainable_parameters"] == plain.figures["num_trainable_parameters"]


@pytest.mark.parametrize("way", [{"micro_batch_size": 2}, {"gradient_checkpointing": True}])
def test_a_batch_in_parts_or_computed_again_learns_the_same(way, tiny_model, tmp_path):
    teacher = opened(tiny_model("bert"))
    rows = described(teacher, tmp_path / "layers", Lesson("teacher", 1, hidden=True, attention=True))
    fields = {"student_blocks": 1, "hidden_weight": 1.0, "attention_weight": 1.0, "layers": tmp_path / "layers"}
    first, second = (
        trained(
            tiny_model("bert"), rows, scratch=tmp_path / name, settings={"num_train_epochs": 1.0, **settings}, **fields
        )
        for name, settings in (("whole", {}), ("other", way))
    )
    for name, value in first.checkpoint.model.state_dict().items():
        torch.testing.assert_close(second.checkpoint.model.state_dict()[name], value, rtol=1e-3, atol=2e-5)


def test_a_killed_student_goes_on_to_the_same_weights(tiny_model, tmp_path, monkeypatch: pytest.MonkeyPatch):
    from ftlib.training.watch import Watch

    teacher = opened(tiny_model("bert", 0.1))
    rows = described(teacher, tmp_path / "layers", Lesson("teacher", 1, hidden=True, attention=False))
    fields: dict[str, Any] = {"student_blocks": 1, "student_hidden_size": 16, "hidden_weight": 1.0}
    fields |= {"settings": {"checkpoint_seconds": 1e-6}, "layers": tmp_path / "layers"}
    whole = trained(tiny_model("bert", 0.1), rows, scratch=tmp_path / "whole", **fields)
    step_end = Watch.on_step_end

    def killed(self: Watch, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt
        step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_end", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tiny_model("bert", 0.1), rows, scratch=tmp_path / "broken", **fields)
    resumed = trained(tiny_model("bert", 0.1), rows, scratch=tmp_path / "broken", **fields)
    assert resumed.history == whole.history
    for name, value in whole.checkpoint.model.state_dict().items():
        assert torch.equal(resumed.checkpoint.model.state_dict()[name], value), name


# -- refusals ------------------------------------------------------------------------------------------


def test_what_was_kept_of_other_tokens_or_is_not_there_is_refused(tiny_model, tmp_path):
    teacher = opened(tiny_model("bert"))
    rows = described(teacher, tmp_path / "layers")
    with pytest.raises(ArtifactError, match="other tokens"):
        trained(
            tiny_model("bert"), rows.slice(1), tmp_path / "layers", tmp_path / "a", student_blocks=1, hidden_weight=1
        )
    with pytest.raises(ArtifactError, match="nothing of a teacher's layers"):
        trained(tiny_model("bert"), rows, tmp_path, tmp_path / "b", student_blocks=1, hidden_weight=1)


def test_heads_that_are_fewer_than_the_teacher_s_are_refused_with_both_numbers(tiny_model, tmp_path):
    rows = described(opened(tiny_model("bert")), tmp_path / "layers", Lesson("t", None, hidden=False, attention=True))
    with pytest.raises(UnsupportedError, match="it has 2, the teacher 4"):
        trained(tiny_model("bert"), rows, tmp_path / "layers", tmp_path, student_hidden_size=16, attention_weight=1)


@pytest.mark.parametrize(("architecture", "reason"), [("llama", "inside attention"), ("gpt2", "in one layer")])
def test_scores_that_cannot_be_read_are_refused_by_the_model_s_name(architecture, reason, tiny_model, tmp_path):
    with pytest.raises(UnsupportedError, match=reason):
        described(opened(tiny_model(architecture)), tmp_path)


def test_a_teacher_with_virtual_tokens_is_refused(tiny_model, tmp_path):
    start = tiny_model("bert")
    teacher = contracts.train_on_examples(Strategy.named("prompt_tuning")(), PROBLEM, start, tmp_path, num_epochs=1.0)
    with pytest.raises(UnsupportedError, match="virtual tokens"):
        described(teacher.reloaded, tmp_path / "layers")


@pytest.mark.parametrize("problem", ["multiple_choice", "translation", "masked_language_modeling", "dialogue",
                                     "image_text_classification"])  # fmt: skip
def test_layers_are_not_compared_where_a_row_is_more_than_one_line_of_tokens(problem):
    chosen = Problem.named(problem)()
    distillation().check(chosen)
    with pytest.raises(UnsupportedError, match=f"distillation cannot compare layers in {problem}"):
        distillation(hidden_weight=1.0).check(chosen)


def test_layers_are_imitated_of_one_teacher_that_is_named_where_there_are_several():
    with pytest.raises(ValueError, match="name it in layer_teacher, one of: a, b"):
        distillation(teacher=("a", "b"), hidden_weight=1.0)
    with pytest.raises(ValueError, match="teaches nothing"):
        distillation(teacher=("a", "b"), layer_teacher="a")
    assert distillation(
        teacher=("a", "b"), layer_teacher="c", hidden_weight=1.0, student_blocks=(0, 1)
    ).lesson == Lesson("c", 2, hidden=True, attention=False)
