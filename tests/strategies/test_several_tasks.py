"""Strategies of several tasks: with every problem, one after the other, and refused where there is a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.stage import TaskRows, Training
from tests import contracts

TinyModel = Callable[..., Path]
FULL, MULTI_TASK, CONTINUAL, PRETRAINING = (
    Strategy.named(name) for name in ("full", "multi_task", "continual", "continued_pretraining")
)
NAMES = [name for name in Problem.available() if name != "text_classification"]
QUICK = ("token_classification", "text_regression")
BESIDE = {"image_text": "image_text_classification"}
"""What every problem is learned beside: a text classification, or what the family of its models can learn."""


def problem_of(name: str) -> Problem:
    return contracts.bound(Problem.named(name)()).model_copy(update={"max_length": 64})


SINGLE, MASKED = problem_of("text_classification"), problem_of("masked_language_modeling")


def learned(
    start: Path, out: Path, strategy: Strategy, problem: Problem, task: str, others: dict[str, Problem], **settings: Any
) -> stage.TrainResult:
    """Train a task on four rows, save it, and return what was trained."""
    stage.set_seed(4)
    checkpoint = strategy.open(start, problem, task)
    rows = {name: contracts.encoded_rows(p, checkpoint.tokenizer) for name, p in {task: problem, **others}.items()}
    chosen = {"learning_rate": 2e-3, "num_train_epochs": 1.0, "batch_size": 8, "precision": "float32", **settings}
    result = stage.train(
        checkpoint,
        rows[task],
        rows[task],
        problem=problem,
        strategy=strategy,
        settings=Training(**chosen),
        seed=4,
        scratch=out / "scratch",
        name="train-test",
        task=task,
        others={name: TaskRows(p, rows[name], rows[name]) for name, p in others.items()},
    )
    checkpoints.save(result.checkpoint, out)
    return result


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES])
def test_every_problem_is_learned_beside_another_and_then_kept_while_that_goes_on(
    name: str, tiny_model: TinyModel, tmp_path: Path
):
    problem = problem_of(name)
    family = problem.families[0]
    other = problem_of(BESIDE.get(family, "text_classification"))
    start = contracts.start_model(problem, tiny_model)
    both = learned(start, tmp_path / "a", MULTI_TASK(others=("other",)), problem, "main", {"other": other})
    assert both.checkpoint.heads.keys() == {"other"}
    assert any(key.startswith("validation_other_") for row in both.history for key in row)
    strategy = CONTINUAL(replay_rows=3, ewc=10.0, fisher_rows=2)
    learned(tmp_path / "a", tmp_path / "b", strategy, other, "other", {"main": problem})
    opened = checkpoints.load(tmp_path / "b", problem, "main")
    assert np.isfinite(problem.measure(opened, contracts.encoded_rows(problem, opened.tokenizer))["loss"])


@pytest.mark.parametrize("brake", [CONTINUAL(), CONTINUAL(replay_rows=0, ewc=1e6)], ids=["replay", "ewc"])
def test_each_brake_keeps_what_plain_training_loses(brake: Strategy, forgetful: tuple[Path, float], tmp_path: Path):
    start, plain = forgetful
    assert loss_after(start, tmp_path, brake) < 0.5 * plain


@pytest.fixture(scope="module")
def forgetful(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A model that knows eight rows by heart, and its loss on them after another task at a rate that wrecks it."""
    folder = tmp_path_factory.mktemp("forgetful")
    learned(tiny_model("bert"), folder / "first", FULL(), SINGLE, "main", {}, num_train_epochs=25.0)
    plain = loss_after(folder / "first", folder / "plain", FULL())
    assert plain > 1.0
    return folder / "first", plain


def loss_after(start: Path, out: Path, strategy: Strategy) -> float:
    """Return a model's loss on its first task after it has learned another."""
    others = {"main": SINGLE} if strategy.reads_earlier_tasks else {}
    wrecking = {"num_train_epochs": 12.0, "learning_rate": 1e-2, "early_stopping_patience": None}
    learned(start, out, strategy, problem_of("text_pair_classification"), "pairs", others, **wrecking)
    kept = checkpoints.load(out, SINGLE, "main")
    return SINGLE.measure(kept, contracts.encoded_rows(SINGLE, kept.tokenizer))["loss"]


def test_a_template_asks_the_head_that_a_stage_of_raw_texts_has_learned(tiny_model: TinyModel, tmp_path: Path):
    words = {"account": ("login",), "billing": ("refund",), "bug": ("app",)}
    cloze = Strategy.named("cloze")(template="{text} It was {mask}.", verbalizer=words, train=False)
    with pytest.raises(UnsupportedError, match="without a language model's head"):
        cloze.open(tiny_model("bert"), SINGLE)
    pretrained = learned(tiny_model("bert"), tmp_path / "a", PRETRAINING(), MASKED, "corpus", {})
    asked = learned(tmp_path / "a", tmp_path / "b", cloze, SINGLE, "main", {})
    tokenizer = asked.checkpoint.tokenizer
    (text,) = contracts.raw_rows(SINGLE, 1)["text"].to_pylist()
    sentence = tokenizer(f"{text} It was [MASK].", return_tensors="pt")
    gap = sentence["input_ids"][0] == tokenizer.mask_token_id
    ids = tokenizer.convert_tokens_to_ids([word for (word,) in words.values()])
    with torch.no_grad():
        by_hand = pretrained.checkpoint.model(**sentence).logits[0, gap][0, ids]
    rows = contracts.encoded_rows(SINGLE, tokenizer, limit=1)
    np.testing.assert_allclose(contracts.logits(asked.checkpoint, rows, SINGLE)[0], by_hand, atol=1e-5)
    trained = learned(tmp_path / "a", tmp_path / "c", cloze.model_copy(update={"train": True}), SINGLE, "main", {})
    assert trained.checkpoint.heads == {}  # a template answers its own task alone


def test_a_task_that_the_start_has_not_learned_cannot_be_kept(tiny_model: TinyModel, tmp_path: Path):
    with pytest.raises(CheckpointError, match="keeps no head for task 'main'"):
        learned(tiny_model("bert"), tmp_path, CONTINUAL(), MASKED, "corpus", {"main": SINGLE})


@pytest.mark.parametrize(
    ("problem", "other", "line"),
    [
        (MASKED, SINGLE, "its rows are masked anew at each step"),
        (SINGLE, problem_of("token_classification"), "does not give labels or a number for any text"),
        (SINGLE, problem_of("image_text_classification"), "no model is of both families"),
    ],
    ids=["masked rows", "word by word", "images"],
)
def test_what_earlier_heads_cannot_say_of_new_rows_is_refused(problem: Problem, other: Problem, line: str):
    with pytest.raises(UnsupportedError, match=line):
        CONTINUAL(lwf=1.0).check_others(problem, {"before": other})


@pytest.mark.parametrize("family", ["bert", "roberta_lm"])
def test_a_classifier_starts_from_an_encoder_that_read_raw_texts(family: str, tiny_model: TinyModel, tmp_path: Path):
    read = learned(
        tiny_model(family), tmp_path / "a", PRETRAINING(head_ratio=0.3), MASKED, "corpus", {}, num_train_epochs=4.0
    )
    stage.set_seed(1)
    opened = checkpoints.load(tmp_path / "a", SINGLE, "main").model
    theirs = dict(read.checkpoint.model.base_model.named_parameters())
    for name, parameter in opened.base_model.encoder.named_parameters():
        assert torch.equal(parameter, theirs[f"encoder.{name}"]), name
    result = learned(tmp_path / "a", tmp_path / "b", FULL(), SINGLE, "main", {})
    assert set(result.checkpoint.heads) == {"corpus"}
    kept = checkpoints.load(tmp_path / "b", MASKED, "corpus")
    assert kept.model.get_output_embeddings().weight is kept.model.get_input_embeddings().weight
    found = MASKED.measure(kept, contracts.encoded_rows(MASKED, kept.tokenizer))
    assert found["loss"] < 1.5 * read.figures["best_validation_loss"]


def test_a_head_that_is_not_wanted_is_left_behind_and_frozen_words_stay(tiny_model: TinyModel, tmp_path: Path):
    strategy = PRETRAINING(keep_head=False, learn_embeddings=False)
    start = tiny_model("bert")
    read = learned(start, tmp_path / "a", strategy, MASKED, "corpus", {}, num_train_epochs=3.0)
    result = learned(tmp_path / "a", tmp_path / "b", FULL(), SINGLE, "main", {})
    assert result.checkpoint.heads == {}
    words = checkpoints.load(start, MASKED).model.get_input_embeddings().weight
    assert torch.equal(read.checkpoint.model.get_input_embeddings().weight, words)


def test_heads_learn_alone_first_where_that_is_asked_for(tiny_model: TinyModel, tmp_path: Path):
    settings = {"num_train_epochs": 2.0, "batch_size": 4, "evaluations_per_epoch": 2}
    start = tiny_model("bert_lm")
    alone = learned(start, tmp_path / "a", PRETRAINING(head_ratio=0.99), MASKED, "corpus", {}, **settings)
    before = checkpoints.load(start, MASKED).model.state_dict()
    after = alone.checkpoint.model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("cls.") for name in moved)
