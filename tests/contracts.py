"""Contracts that every strategy keeps, whatever its name: written once, run over all that are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ftlib.data.encode import encode
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.layers import head_names
from ftlib.prediction import predict
from ftlib.problems._learning import vectors
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.batches import Rows
from ftlib.training.stage import Training, TrainResult

LEARNS = {
    "full": 2e-3,
    "lora": 1e-2,
    "distillation": 2e-3,
    "prefix": 3e-2,
    "prompt_tuning": 3e-2,
    "p_tuning": 1e-2,
    "ia3": 2e-2,
    "gradual_unfreezing": 1e-2,
}
"""Rates at which a tiny random model learns; others get the middle."""

FIRST = {"encoder": "bert", "encoder_decoder": "t5", "causal": "llama", "image_text": "clip"}
"""The tiny model that stands for each family of base models."""


STARTS = {"cloze": "bert_lm"}
"""What strategies start from that need more of a model than its backbone."""


@dataclass
class Watched:
    """The weights as a strategy found them and as it left them, by name; the frozen ones apart."""

    frozen: dict[str, np.ndarray] = field(default_factory=dict)
    opened: dict[str, np.ndarray] = field(default_factory=dict)
    after: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Trained:
    """A strategy trained on a few rows, with all that a contract looks at."""

    first_loss: float
    watched: Watched
    start: dict[str, np.ndarray]
    result: TrainResult
    reloaded: Checkpoint
    rows: pa.Table
    problem: Problem
    folder: Path


def bound(problem: Problem) -> Problem:
    """Return the problem with the labels that its examples use."""
    return problem.bind(problem.target.learn(canonical_labels(problem))) if problem.target.has_labels else problem


def canonical_labels(problem: Problem, limit: int | None = None) -> pa.Array:
    """Return the labels of the problem's examples, as cleaning leaves them."""
    labels = pa.array([row[problem.label_column] for row in problem.examples()[:limit]])
    rows = with_column(raw_rows(problem, limit), problem.label_column, labels)
    canonical, reasons = problem.read_labels(rows)
    assert reasons.null_count == len(reasons), reasons
    return canonical


def raw_rows(problem: Problem, limit: int | None = None) -> pa.Table:
    """Return the inputs of the problem's examples."""
    examples = problem.examples()[:limit]
    return pa.table({name: [row[name] for row in examples] for name in problem.input_columns})


def with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return rows with a column, in the place of the one of that name where an input is its own answer."""
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, values)
    return rows.append_column(name, values)


def labelled_rows(problem: Problem, limit: int | None = None) -> pa.Table:
    """Return the problem's examples as the split step writes them: row_id, inputs and canonical labels."""
    rows = raw_rows(problem, limit)
    rows = with_column(rows, problem.label_column, canonical_labels(problem, limit))
    return rows.add_column(0, "row_id", pa.array(np.arange(len(rows)) * 3 + 5))


def encoded_rows(problem: Problem, tokenizer: Any, limit: int | None = 8) -> pa.Table:
    """Return the problem's examples as the encode step writes them."""
    return encode(labelled_rows(problem, limit), problem, tokenizer)[0]


def with_teacher(rows: pa.Table, problem: Problem) -> pa.Table:
    """Return rows with the logits of a teacher that knows the gold labels."""
    labels = np.stack(rows.column("labels").to_numpy(zero_copy_only=False))
    if problem.target.kind == "single_label":
        logits = np.eye(problem.target.num_outputs)[labels] * 6 - 3
    else:
        logits = labels.reshape(len(labels), -1) * (1 if problem.target.kind == "value" else 6)
    return rows.append_column("teacher_logits", vectors(logits.astype(np.float32)))


SIMPLE = frozenset({"single_label", "multi_label", "value"})
"""Kinds of target whose labels a teacher's logits can be written from."""


def taught(rows: pa.Table, problem: Problem, teacher: Callable[[], Checkpoint]) -> pa.Table:
    """Return rows with what a student learns: of a teacher that knows the labels, else of the one given."""
    if problem.target.kind in SIMPLE:
        return with_teacher(rows, problem)
    checkpoint = teacher()
    predictions = predict(checkpoint, rows, problem).table
    places = {row: i for i, row in enumerate(predictions["row_id"].to_pylist())}
    at = pa.array([places[row] for row in rows["row_id"].to_pylist()])
    return problem.teach(rows, [predictions.take(at)], checkpoint.tokenizer)


def repeated(rows: pa.Table, times: int) -> pa.Table:
    """Return the rows several times over."""
    return pa.concat_tables([rows] * times)


def start_model(problem: Problem, tiny_model: Callable[..., Path], strategy: str = "") -> Path:
    """Return the folder of a tiny model of the first family that a problem is learned with, or as a strategy needs."""
    return tiny_model(STARTS.get(strategy, FIRST[problem.families[0]]))


@contextmanager
def watching(strategy: Strategy) -> Iterator[Watched]:
    """Look at a strategy's weights after `adapt` and before `finish`."""
    kind, watched = type(strategy), Watched()
    adapt, finish = kind.adapt, kind.finish

    def looking(self: Strategy, model: Any, problem: Problem) -> Any:
        adapted = adapt(self, model, problem)
        for name, parameter in adapted.named_parameters():
            kept = watched.opened if parameter.requires_grad else watched.frozen
            kept[name] = parameter.detach().numpy().copy()
        return adapted

    def finishing(self: Strategy, model: Any) -> Any:
        watched.after |= {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
        return finish(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "adapt", looking)
        patch.setattr(kind, "finish", finishing)
        yield watched


def train_on_examples(
    strategy: Strategy,
    problem: Problem,
    start: Path,
    scratch: Path,
    *,
    num_epochs: float = 4.0,
    learning_rate: float | None = None,
    **settings: Any,
) -> Trained:
    """Train a strategy on eight of the problem's examples, save it and open it again."""
    problem = bound(problem).model_copy(update={"max_length": 96})
    stage.set_seed(3)
    checkpoint = strategy.open(start, problem)
    before = weights(checkpoint.model)
    rows = encoded_rows(problem, checkpoint.tokenizer)
    first_loss = problem.measure(checkpoint, rows)["loss"]
    chosen = {
        "learning_rate": learning_rate or LEARNS.get(strategy.name, 5e-3),
        "num_train_epochs": num_epochs,
        "batch_size": 8,
        "lr_scheduler_type": "constant_with_warmup",
        "early_stopping_patience": None,
        "load_best_model_at_end": False,  # the best may be from before the last weights were opened
        "precision": "float32",
        **settings,
    }

    def teacher() -> Checkpoint:
        return train_on_examples(Strategy.named("full")(), problem, start, scratch / "teacher").result.checkpoint

    known = taught(rows, problem, teacher) if strategy.teachers else rows
    stage.set_seed(3)
    with watching(strategy) as watched:
        result = stage.train(
            checkpoint,
            repeated(known, 20),
            rows,
            problem=problem,
            strategy=strategy,
            settings=Training(**chosen),
            seed=3,
            scratch=scratch / "scratch",
            name="train-test",
        )
    folder = scratch / "saved"
    checkpoints.save(result.checkpoint, folder)
    return Trained(first_loss, watched, before, result, checkpoints.load(folder, problem), rows, problem, folder)


def weights(model: Any) -> dict[str, np.ndarray]:
    """Return a copy of a model's weights by name."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def logits(checkpoint: Checkpoint, rows: pa.Table, problem: Problem) -> np.ndarray:
    """Return a checkpoint's logits."""
    table = predict(checkpoint, rows, problem).table
    return np.stack(table.column("logits").to_numpy(zero_copy_only=False))


def check_reload(trained: Trained) -> None:
    """A saved checkpoint opens to the same logits, and saving it again gives the same bytes."""
    before, after = (
        predict(checkpoint, trained.rows, trained.problem).table
        for checkpoint in (trained.result.checkpoint, trained.reloaded)
    )
    assert before.equals(after)
    again = trained.folder.with_name("again")
    checkpoints.save(trained.reloaded, again)
    first = {p.relative_to(trained.folder): p.read_bytes() for p in trained.folder.rglob("*") if p.is_file()}
    second = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert sorted(first) == sorted(second)
    assert [str(p) for p in first if first[p] != second[p]] == []


BY_HEART, STEERED = 0.35, 0.95
"""To what share of its start the loss falls: of rows that can be learned by heart, and where that cannot be."""


def check_overfits(trained: Trained) -> None:
    """Eight rows can be learned by heart: the loss falls far below where it began, answers are right.

    Masks that are drawn anew cannot be, nor can a few weights make a frozen random model without a head say all that
    it never could: there it is enough that the loss falls.
    """
    losses = [row["validation_loss"] for row in trained.result.history if "validation_loss" in row]
    share = BY_HEART if can_be_learned_by_heart(trained) else STEERED
    assert min(losses) < share * trained.first_loss, [trained.first_loss, *losses]


def can_be_learned_by_heart(trained: Trained) -> bool:
    """Return whether most weights learn, or a head does, on rows that are the same each time."""
    watched = trained.watched
    opened, frozen = (sum(v.size for v in kept.values()) for kept in (watched.opened, watched.frozen))
    has_head = bool(head_names(trained.reloaded.model))
    return type(trained.problem).draw is Problem.draw and (opened > frozen or has_head)


def check_weights(trained: Trained) -> None:
    """What the strategy froze is as it was, to the bit; what it opened has moved."""
    watched = trained.watched
    for name, before in watched.frozen.items():
        if name in watched.after:
            np.testing.assert_array_equal(watched.after[name], before, err_msg=f"{name} is frozen but was changed")
    shared = [name for name in watched.opened if name in watched.after]
    still = [name for name in shared if np.array_equal(watched.after[name], watched.opened[name])]
    assert not watched.opened or shared
    assert still == []


def check_figures(trained: Trained) -> None:
    """The settings that are saved say what was trained, and how large it is."""
    settings = trained.reloaded.settings
    assert settings["problem"] == trained.problem.model_dump(mode="json")
    learns = Strategy.named(settings["strategy"])().trains
    assert (settings["num_trainable_parameters"] > 0) == learns
    assert settings["num_trainable_parameters"] <= settings["num_parameters"]
    assert 0 < settings["inference_parameters"] < settings["num_parameters"]


def check_gradients(strategy: Strategy, problem: Problem, start: Path) -> None:
    """A backward pass reaches every parameter that the strategy opens, and no other."""
    problem = bound(problem).model_copy(update={"max_length": 96})
    stage.set_seed(3)
    checkpoint = strategy.open(start, problem)
    rows = encoded_rows(problem, checkpoint.tokenizer)
    model = strategy.adapt(checkpoint.model, problem)
    known = taught(rows, problem, lambda: Checkpoint(model, checkpoint.tokenizer))
    given = Rows.from_table(known, checkpoint.tokenizer, problem)
    batch = given.batch(np.arange(len(given)))
    loss = strategy.loss(problem.forward(model.train(), batch), batch, problem)
    loss.backward()
    opened = {id(p) for group in strategy.parameter_groups(model, 1e-3, 0.01) for p in group["params"]}
    assert opened == {id(p) for p in model.parameters() if p.requires_grad}
    for name, parameter in model.named_parameters():
        if id(parameter) in opened:
            assert parameter.grad is not None, f"{name} gets no gradient"
        else:
            assert parameter.grad is None, f"{name} is frozen but gets a gradient"
