"""Train one stage, fast and resumable, on `transformers.Trainer`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ftlib.errors import DataError
from ftlib.plugins import Section
from ftlib.problems.base import MAIN
from ftlib.training.course import Schedule
from ftlib.training.regularization import Regularization

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.heads import Head
    from ftlib.problems.base import Problem
    from ftlib.strategies.base import Strategy
    from ftlib.training.batches import BatchSize


class Training(Section):
    """How one stage is trained, whatever its strategy."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate. Full fine-tuning wants 1e-5 to 1e-4, adapters 1e-4 to 1e-3, prompts 1e-3 to 1e-1."""

    num_train_epochs: float = Field(3.0, gt=0)
    """Passes over the training rows."""

    batch_size: int = Field(32, ge=1)
    """Rows an optimizer step."""

    batch_tokens: int | None = Field(None, ge=1)
    """The most tokens an optimizer step reads, padding included: batches of long rows hold fewer rows, and memory is
    bounded; a row that is longer goes alone. null: any number."""

    micro_batch_size: int | None = Field(None, ge=1)
    """Rows that pass through the model at once: a batch goes in parts, their gradients accumulated, which takes less
    memory and more time; null: the whole batch."""

    gradient_checkpointing: bool = False
    """Compute each block anew in the backward pass instead of keeping what it made: far less memory, a third slower."""

    warmup_ratio: float = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""

    lr_scheduler_type: Schedule = "linear"
    """How the learning rate falls after warm-up; slanted_triangular rises and falls by itself, without one."""

    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decoupled decay; biases and normalisation weights have none."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""

    prior_bias: bool = True
    """Begin with the bias of a new head at the frequencies of the training labels (of numbers, at their mean), so that
    the first steps need not teach every weight what is rare; nothing changes where all labels are as frequent."""

    regularization: Regularization = Regularization()
    """Penalties, noise and averages against learning rows by heart; all off unless set."""

    evaluations_per_epoch: int = Field(1, ge=0)
    """Validation passes an epoch; 0: a single one, at the end, so that the last weights are kept."""

    load_best_model_at_end: bool = True
    """Keep the weights of the best validation pass; false: those of the last one, which learned longest. With few
    validation rows and few epochs the best pass is often the luckiest, and the last one better on other rows."""

    early_stopping_patience: int | None = Field(3, ge=1)
    """Stop after this many validation passes without a better score; null never stops."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the processor multiplies it faster, else float32."""

    checkpoint_seconds: float = Field(60.0, gt=0)
    """Seconds between the checkpoints that a killed stage resumes from. Shapes no result."""

    @property
    def batches(self) -> BatchSize:
        """How large batches are."""
        from ftlib.training.batches import BatchSize

        return BatchSize(self.batch_size, self.batch_tokens)


@dataclass(frozen=True)
class TaskRows:
    """Another task whose rows a stage reads beside its own.

    Attributes:
        problem: What is learned in it, its labels filled in.
        train: Encoded training rows.
        validation: Encoded validation rows.
    """

    problem: Problem
    train: pa.Table
    validation: pa.Table


@dataclass(frozen=True)
class Job:
    """What a stage is trained for and how, beside its model and its rows.

    Attributes:
        problem: What is learned, its labels filled in.
        settings: Rates, batches, epochs.
        seed: Of the batches and the dropout; weights are drawn from the generators that `set_seed` seeds.
        scratch: Where checkpoints of the unfinished run are kept.
        name: The step's name, for progress.
        task: What the stage's own task is called.
        others: Further tasks by name, where the strategy asks for their rows; the one learned last comes first.
        layers: What was kept of a teacher's layers, where the strategy has a `lesson`.
    """

    problem: Problem
    settings: Training
    seed: int
    scratch: Path
    name: str
    task: str = MAIN
    others: Mapping[str, TaskRows] = field(default_factory=dict)
    layers: Path | None = None


@dataclass(frozen=True)
class TrainResult:
    """What training a stage gave.

    Attributes:
        checkpoint: The model to save, its best weights loaded, with its tokenizer and settings.
        history: Rows of {"step", "epoch", "loss", "learning_rate"} and {"step", "epoch", "validation_..."}; the
            same for the same inputs, machine and seed.
        figures: train_seconds, rows_per_second, num_parameters, num_trainable_parameters, epochs, steps...
    """

    checkpoint: Checkpoint
    history: list[dict[str, float]]
    figures: dict[str, float]


def read_task(folder: Path) -> TaskRows:
    """Return a task's rows from what the encode step wrote."""
    from ftlib.data.encode import read_encoded
    from ftlib.files import read_json
    from ftlib.problems.base import Problem

    problem = Problem.model_validate(read_json(folder / "problem.json"))
    return TaskRows(problem, *(read_encoded(folder / f"{split}.parquet") for split in ("train", "validation")))


def set_seed(seed: int) -> None:
    """Seed every random generator that a stage uses; call it before weights are loaded."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def train(
    checkpoint: Checkpoint,
    train_rows: pa.Table,
    validation_rows: pa.Table,
    *,
    problem: Problem,
    strategy: Strategy,
    settings: Training,
    seed: int,
    scratch: Path,
    name: str,
    task: str = MAIN,
    others: Mapping[str, TaskRows] | None = None,
    layers: Path | None = None,
) -> TrainResult:
    """Train one stage and return its checkpoint with the best weights of all validation passes.

    A run that finds its own unfinished checkpoints in `scratch` goes on from the newest whole one, and ends with
    the same weights and history as a run that was never broken.

    Args:
        checkpoint: Where to start; its model is changed.
        train_rows: Encoded rows: row_id, input_ids, [token_type_ids], labels, and teacher_logits where the strategy
            has teachers.
        validation_rows: The same, without teachers.
        problem: See `Job`.
        strategy: How.
        settings: See `Job`.
        seed: See `Job`.
        scratch: See `Job`.
        name: See `Job`.
        task: See `Job`; `checkpoint` was opened for it.
        others: See `Job`.
        layers: See `Job`.

    Raises:
        UnsupportedError: If the strategy cannot train this problem or model.
        DataError: If there are no rows to train on.
    """
    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.layers import count
    from ftlib.models.peft_models import merged

    others = others or {}
    strategy.check(problem)
    strategy.check_others(problem, {name: rows.problem for name, rows in others.items()})
    strategy.check_settings(settings)
    settings.regularization.check(problem)
    if len(train_rows) == 0:
        raise DataError("there are no rows to train on.")
    tokenizer, width = checkpoint.tokenizer, _width(checkpoint.model)
    model = strategy.adapt(merged(checkpoint.model), problem)  # an adapter is merged, so that any strategy goes on
    num_trainable = count(model).trainable
    started = time.perf_counter()
    adapted = Checkpoint(model, tokenizer, heads=dict(checkpoint.heads))
    job = Job(problem, settings, seed, scratch, name, task, others, layers)
    fitted = strategy.learn(adapted, train_rows, validation_rows, job)
    seconds = time.perf_counter() - started
    finished = Checkpoint(strategy.finish(model).eval(), tokenizer)
    finished.heads = _kept(adapted.heads, finished.model, width)
    facts = _facts(finished.model, num_trainable)
    tuned = problem.tune(finished, validation_rows) if len(validation_rows) else {}
    made = {"strategy": strategy.name, "task": task, "problem": problem.model_dump(mode="json")}
    finished.settings |= {**made, **facts}
    finished.settings |= {} if strategy.keeps_head else {"keeps_head": False}
    finished.settings |= {"tuned": tuned} if tuned else {}
    figures = {**{k: float(v) for k, v in facts.items()}, **fitted.figures, "train_seconds": seconds}
    return TrainResult(finished, fitted.history, figures)


def _width(model: PreTrainedModel) -> int:
    words: Any = model.get_input_embeddings()
    return words.weight.shape[-1]


def _kept(heads: dict[str, Head], model: PreTrainedModel, width: int) -> dict[str, Head]:
    """Return the other tasks' heads that go with a finished model: those of a plain one, as wide as it was."""
    from ftlib.models.peft_models import has_beyond_plain

    return heads if not has_beyond_plain(model) and _width(model) == width else {}


def _facts(model: PreTrainedModel, num_trainable: int) -> dict[str, int]:
    """Return how large a finished model is, what it costs to run, and how much of it was trained."""
    from ftlib.models.layers import count

    sizes = count(model)
    return {
        "num_parameters": sizes.parameters,
        "num_trainable_parameters": num_trainable,
        "inference_parameters": sizes.inference,
        "num_virtual_tokens": _num_virtual_tokens(model),
    }


def _num_virtual_tokens(model: PreTrainedModel) -> int:
    """Return how many tokens beyond the text every row costs: inserted ones, a template's, and those of a prefix."""
    from ftlib.models import cloze
    from ftlib.models.virtual_tokens import attached

    virtual, form = attached(model), cloze.attached(model)
    prefixes = (getattr(config, "num_virtual_tokens", 0) or 0 for config in getattr(model, "peft_config", {}).values())
    return len(virtual.ids if virtual else ()) + (form.template.num_added if form else 0) + sum(prefixes)
