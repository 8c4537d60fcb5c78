"""Contracts that every strategy keeps, whatever its name: written once, run over all that are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.prediction import predict, run
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.batches import Rows
from ftlib.training.stage import Training, TrainResult

LEARNS = {"full": 2e-3, "lora": 1e-2, "distillation": 2e-3, "prefix": 3e-2, "prompt_tuning": 3e-2}
"""Rates at which a tiny random model learns; others get the middle."""


@dataclass
class Trained:
    """A strategy trained on a few rows, with all that a contract looks at."""

    start: dict[str, np.ndarray]
    result: TrainResult
    reloaded: Checkpoint
    rows: pa.Table
    problem: Problem
    folder: Path


def bound(problem: Problem) -> Problem:
    """Return the problem with the labels that its examples use."""
    return problem.bind(problem.target.learn(canonical_labels(problem)))


def canonical_labels(problem: Problem, limit: int | None = None) -> pa.Array:
    """Return the labels of the problem's examples, as cleaning leaves them."""
    labels = pa.array([row[problem.label_column] for row in problem.examples()[:limit]])
    return problem.target.parse(pa.chunked_array([labels]))[0]


def raw_rows(problem: Problem, limit: int | None = None) -> pa.Table:
    """Return the texts of the problem's examples."""
    examples = problem.examples()[:limit]
    return pa.table({name: [row[name] for row in examples] for name in problem.text_columns})


def encoded_rows(problem: Problem, tokenizer: Any, limit: int | None = 8) -> pa.Table:
    """Return the problem's examples as `ftlib.data.encode` writes rows."""
    encoded = problem.encode(raw_rows(problem, limit), tokenizer)
    labels = problem.target.encode(canonical_labels(problem, limit))
    columns: dict[str, Any] = {"row_id": np.arange(len(labels)) * 3 + 5}
    columns |= {c: encoded.column(c) for c in ("input_ids", "token_type_ids") if c in encoded.column_names}
    columns["labels"] = fixed(labels) if labels.ndim == 2 else labels
    return pa.table(columns)


def fixed(values: np.ndarray) -> pa.Array:
    """Return rows of numbers as a column of vectors."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def with_teacher(rows: pa.Table, problem: Problem) -> pa.Table:
    """Return rows with the logits of a teacher that knows the gold labels."""
    labels = np.stack(rows.column("labels").to_numpy(zero_copy_only=False))
    if problem.target.kind == "single_label":
        logits = np.eye(problem.target.num_outputs)[labels] * 6 - 3
    else:
        logits = labels.reshape(len(labels), -1) * (1 if problem.target.kind == "value" else 6)
    return rows.append_column("teacher_logits", fixed(logits.astype(np.float32)))


def repeated(rows: pa.Table, times: int) -> pa.Table:
    """Return the rows several times over, each with an id of its own."""
    table = pa.concat_tables([rows] * times)
    return table.set_column(0, "row_id", pa.array(np.arange(len(table))))


def train_on_examples(
    strategy: Strategy,
    problem: Problem,
    start: Path,
    scratch: Path,
    *,
    num_epochs: float = 8.0,
    learning_rate: float | None = None,
    **settings: Any,
) -> Trained:
    """Train a strategy on eight of the problem's examples, save it and open it again."""
    problem = bound(problem).model_copy(update={"max_length": 96})
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, problem)
    before = weights(checkpoint.model)
    rows = encoded_rows(problem, checkpoint.tokenizer)
    chosen = {
        "learning_rate": learning_rate or LEARNS.get(strategy.name, 5e-3),
        "num_train_epochs": num_epochs,
        "batch_size": 8,
        "lr_scheduler_type": "constant_with_warmup",
        "early_stopping_patience": None,
        "precision": "float32",
        **settings,
    }
    result = stage.train(
        checkpoint,
        repeated(with_teacher(rows, problem) if strategy.teachers else rows, 10),
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
    return Trained(before, result, checkpoints.load(folder, problem), rows, problem, folder)


def weights(model: Any) -> dict[str, np.ndarray]:
    """Return a copy of a model's weights by name."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def logits(checkpoint: Checkpoint, rows: pa.Table) -> np.ndarray:
    """Return a checkpoint's logits."""
    table = predict(checkpoint, rows).table
    return np.stack(table.column("logits").to_numpy(zero_copy_only=False))


def check_reload(trained: Trained) -> None:
    """A saved checkpoint opens to the same logits, and saving it again gives the same bytes."""
    np.testing.assert_array_equal(
        logits(trained.result.checkpoint, trained.rows), logits(trained.reloaded, trained.rows)
    )
    again = trained.folder.with_name("again")
    checkpoints.save(trained.reloaded, again)
    first = {p.relative_to(trained.folder): p.read_bytes() for p in trained.folder.rglob("*") if p.is_file()}
    second = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert sorted(first) == sorted(second)
    assert [str(p) for p in first if first[p] != second[p]] == []


def check_overfits(trained: Trained, share: float = 0.35) -> None:
    """Eight rows can be learned by heart: the loss falls far below where it began, answers are right."""
    losses = [row["validation_loss"] for row in trained.result.history if "validation_loss" in row]
    assert min(losses) < share * losses[0], losses[:: max(1, len(losses) // 10)]


def check_figures(trained: Trained) -> None:
    """The settings that are saved say what was trained, and how large it is."""
    settings = trained.reloaded.settings
    assert settings["problem"] == trained.problem.model_dump(mode="json")
    assert 0 < settings["num_trainable_parameters"] <= settings["num_parameters"]
    assert 0 < settings["inference_parameters"] < settings["num_parameters"]


def check_gradients(strategy: Strategy, problem: Problem, start: Path) -> None:
    """A backward pass reaches every parameter that the strategy opens, and no other."""
    problem = bound(problem).model_copy(update={"max_length": 96})
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, problem)
    rows = encoded_rows(problem, checkpoint.tokenizer)
    model = strategy.adapt(checkpoint.model, problem)
    given = Rows.from_table(with_teacher(rows, problem), checkpoint.tokenizer)
    batch = given.batch(np.arange(len(given)))
    targets = {name: batch.pop(name) for name in given.targets}
    before = run(model, given)
    loss = strategy.loss(model.train()(**batch).logits, targets, problem)
    loss.backward()
    opened = {id(p) for group in strategy.parameter_groups(model, 1e-3, 0.01) for p in group["params"]}
    assert opened == {id(p) for p in model.parameters() if p.requires_grad}
    assert before.shape == (len(given), problem.target.num_outputs)
    for name, parameter in model.named_parameters():
        if id(parameter) in opened:
            assert parameter.grad is not None, f"{name} gets no gradient"
        else:
            assert parameter.grad is None, f"{name} is frozen but gets a gradient"
