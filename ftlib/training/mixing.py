"""Several tasks trained in one loop: a batch is of one task, and goes through that task's head.

To the loop the tasks are one problem (`Mixture`), one model with siblings (`ftlib.models.siblings`) and one set of rows
(`ftlib.training.mixed_rows`). Imported when a stage trains; it needs torch at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ftlib.models.checkpoints import Checkpoint
from ftlib.models.heads import taken
from ftlib.models.layers import ties_words
from ftlib.models.siblings import Memory, attach, detach, follow
from ftlib.targets.losses import PLAIN, LossShape
from ftlib.training.batches import Rows
from ftlib.training.mixed_rows import TASK, MixedRows, column_of
from ftlib.training.priors import begin_at_frequencies
from ftlib.training.trainer import Fitted, fit

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.models.heads import Head
    from ftlib.problems.base import Problem
    from ftlib.strategies.base import Strategy
    from ftlib.training.penalties import Pull
    from ftlib.training.precision import Precision
    from ftlib.training.regularization import Regularization
    from ftlib.training.stage import Job, TaskRows

MEAN = "mean"
"""What the mean over the tasks' validation metrics is called."""


@dataclass(frozen=True)
class Part:
    """One task of a mixture.

    Attributes:
        problem: What is learned in it.
        checkpoint: The model with its head.
        rows: Its training rows.
        validation: Its encoded validation rows.
        shape: How gold labels count in it.
        weight: What its loss is multiplied by.
        held: What the distance from its teacher is multiplied by, where its rows have one.
        temperature: Softness of both.
    """

    problem: Problem
    checkpoint: Checkpoint
    rows: Rows
    validation: pa.Table
    shape: LossShape = PLAIN
    weight: float = 1.0
    held: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Recorded:
    """What an earlier task's head said of the new task's rows before the stage: learning without forgetting.

    Attributes:
        task: What the earlier task is called.
        problem: What it is.
        checkpoint: The model with its head.
        column: The column of the new task's rows that holds its logits.
        weight: What the distance from them is multiplied by.
        temperature: Softness of both.
    """

    task: str
    problem: Problem
    checkpoint: Checkpoint
    column: str
    weight: float
    temperature: float


class Uncertainty(nn.Module):
    """A learned log variance for each task, by which its loss counts.

    Kendall, Gal and Cipolla (2018), "Multi-Task Learning Using Uncertainty to Weigh Losses",
    https://arxiv.org/abs/1705.07115, section 3: with s the logarithm of the variance, a loss L on labels (a softmax)
    counts as exp(-s) L + s / 2 (equation 10), a squared error as exp(-s) L / 2 + s / 2 (equation 7).

    Args:
        halved: For each task, whether its loss is a squared error.
    """

    def __init__(self, halved: Sequence[bool]) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(len(halved)))
        self.factors = [0.5 if is_squared else 1.0 for is_squared in halved]

    def forward(self, loss: Tensor, task: int) -> Tensor:
        """Return a task's loss as it counts."""
        log_variance = self.log_variances[task]
        return self.factors[task] * torch.exp(-log_variance) * loss + log_variance / 2


class Mixture:
    """Several tasks as the loop sees a problem: each batch goes to the task that it says it is of.

    Args:
        parts: The tasks by name, the stage's own first.
        recorded: What the stage's own rows are held to beside their gold answers.
        uncertainty: How losses count, where that is learned.
        chosen_by_mean: Whether the best weights are those of the best mean over the tasks, or of the own one's metric.
        can_recall: Whether the blocks of a batch need to run once only for several heads.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        *,
        recorded: Sequence[Recorded] = (),
        uncertainty: Uncertainty | None = None,
        chosen_by_mean: bool = False,
        can_recall: bool = True,
    ) -> None:
        self.parts, self.tasks, self.own = dict(parts), list(parts.values()), next(iter(parts.values()))
        self.recorded, self.uncertainty, self.chosen_by_mean = recorded, uncertainty, chosen_by_mean
        self.model: Any = self.own.checkpoint.model
        self.memory = Memory(self.model) if recorded and can_recall else None
        self.beside: Tensor | None = None

    # -- what the loop asks of a problem -----------------------------------------------------------

    @property
    def token_columns(self) -> tuple[str, ...]:
        """Columns of all tasks whose values are looked up; () where a task may look up any, or says them, too."""
        if any(not part.problem.token_columns or ties_words(part.checkpoint.model) for part in self.tasks):
            return ()
        return tuple(column_of(task, n) for task, part in self.parts.items() for n in part.problem.token_columns)

    def tokens_beside_rows(self, model: Any) -> tuple[int, ...]:
        """Return tokens that the tasks look up beside those in their rows."""
        found = (part.problem.tokens_beside_rows(part.checkpoint.model) for part in self.tasks)
        return tuple(token for tokens in found for token in tokens)

    @property
    def validation_metric(self) -> str:
        """What the best weights are chosen by."""
        return MEAN if self.chosen_by_mean else self.own.problem.validation_metric

    @property
    def target(self) -> Mixture:
        """What is predicted: itself, asked for its metrics."""
        return self

    def higher_is_better(self, metric: str) -> bool:
        """Return whether a larger value of the metric is a better one."""
        return self.chosen_by_mean or self.own.problem.target.higher_is_better(metric)

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """Return what shapes training beside the rows: the tasks, and how their losses count."""
        counts = {task: [vars(p.shape), p.weight, p.held, p.temperature] for task, p in self.parts.items()}
        return {task: [part.problem.model_dump(**how), *counts[task]] for task, part in self.parts.items()}

    def draw(self, batch: Mapping[str, Tensor], seed: Sequence[int]) -> Mapping[str, Tensor]:
        """Return a batch with what its task draws anew."""
        return self._of(batch).problem.draw(batch, seed)

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of a batch's own head."""
        part = self._of(batch)
        given = {name: values for name, values in batch.items() if name != TASK and name not in self._columns()}
        if part is not self.own:
            follow(part.checkpoint.model, model)
            return part.problem.forward(part.checkpoint.model, given)
        if not self.recorded:
            return part.problem.forward(model, given)
        return self._forward_recorded(model, given, batch)

    def _forward_recorded(self, model: Any, given: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Return the own head's logits, and keep how far the earlier heads are from what they said before."""
        if self.memory is None:
            logits = self.own.problem.forward(model, given)
        else:
            with self.memory.noted():
                logits = self.own.problem.forward(model, given)
        distances = [self._distance(one, model, given, batch) for one in self.recorded]
        self.beside = torch.stack(distances).sum()
        return logits

    def _distance(self, one: Recorded, model: Any, given: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        other = one.checkpoint.model
        follow(other, model)
        read = readable(given, one.problem)
        if self.memory is not None and self.memory.fits(given["input_ids"].shape):
            with self.memory.recalled():
                logits = one.problem.forward(other, read)
        else:
            logits = one.problem.forward(other, read)
        wanted = {"teacher_logits": batch[one.column]}
        return one.weight * one.problem.distillation_loss(logits.float(), wanted, one.temperature)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the loss of a batch's task, as it counts."""
        part = self._of(batch)
        loss = part.problem.loss(logits, batch, part.shape) * part.weight
        if part.held:
            loss = loss + part.held * part.problem.distillation_loss(logits, batch, part.temperature)
        if self.uncertainty is not None:
            return self.uncertainty(loss, self.tasks.index(part))
        return loss + self.beside if part is self.own and self.beside is not None else loss

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return how far two passes are apart, as the batch's task measures it."""
        return self._of(batch).problem.consistency(one, other, batch)

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the own task's loss and metrics, those of the others as "<task>_<name>", and the mean over tasks."""
        found: dict[str, float] = {}
        values = []
        for task, part in self.parts.items():
            follow(part.checkpoint.model, self.model)
            if not len(part.validation):
                continue
            measured = part.problem.measure(part.checkpoint, part.validation, precision=precision)
            values.append(_as_score(part.problem, measured))
            found |= measured if part is self.own else {f"{task}_{n}": value for n, value in measured.items()}
        return {**found, MEAN: sum(values) / len(values)} if self.chosen_by_mean else found

    # -- tasks -------------------------------------------------------------------------------------

    def _of(self, batch: Mapping[str, Tensor]) -> Part:
        return self.tasks[int(batch[TASK][0])]

    def _columns(self) -> frozenset[str]:
        return frozenset(one.column for one in self.recorded)

    def siblings(self) -> dict[str, tuple[Problem, Checkpoint]]:
        """Return the problems and models of all tasks beside the stage's own."""
        beside = {task: (part.problem, part.checkpoint) for task, part in self.parts.items() if part is not self.own}
        return {**{one.task: (one.problem, one.checkpoint) for one in self.recorded}, **beside}


def readable(batch: Mapping[str, Tensor], problem: Problem) -> dict[str, Tensor]:
    """Return what a problem's model reads of another task's batch."""
    names = (*problem.model_inputs, "attention_mask")
    return {name: batch[name] for name in names if name in batch}


def _as_score(problem: Problem, measured: Mapping[str, float]) -> float:
    """Return a task's validation metric as a number of which more is better: of losses and errors, between 0 and 1."""
    metric = problem.validation_metric
    value = measured[metric]
    if metric == "loss":
        return math.exp(-value)
    return value if problem.target.higher_is_better(metric) else 1 / (1 + value)


# -- training ------------------------------------------------------------------------------------------


def part_of(checkpoint: Checkpoint, rows: TaskRows, job: Job, weight: float = 1.0) -> Part:
    """Return a task as a part of a mixture; its head, where it is new, begins at its labels' frequencies.

    Args:
        checkpoint: The model with the task's head.
        rows: What the task is, and its rows.
        job: The stage's, whose regularization says how gold labels count.
        weight: What its loss is multiplied by.
    """
    problem = rows.problem
    given = Rows.from_table(rows.train, checkpoint.tokenizer, problem)
    shape = _regularization(job, problem).shape(problem, given)
    if job.settings.prior_bias:
        begin_at_frequencies(checkpoint.model, problem, given, shape)
    return Part(problem, checkpoint, given, rows.validation, shape, weight)


def _regularization(job: Job, problem: Problem) -> Regularization:
    """Return how gold labels count in a task, as far as the stage's regularization has a meaning for it."""
    settings, target = job.settings.regularization, problem.target
    changes: dict[str, Any] = {}
    if target.kind == "value":
        changes |= {"label_smoothing": 0.0, "focal_gamma": 0.0}
    by_name = isinstance(settings.class_weights, dict) and problem is not job.problem
    if by_name or not target.can_be_weighted:
        changes["class_weights"] = None
    return settings.model_copy(update=changes)


def fit_together(
    mixture: Mixture, counts: Sequence[int], strategy: Strategy, job: Job, pulls: Mapping[str, Pull] | None = None
) -> Fitted:
    """Train the tasks of a mixture in one run of the loop, and keep the heads of the others in the own checkpoint.

    Args:
        mixture: The tasks.
        counts: Batches of each in an epoch.
        strategy: How they learn.
        job: The stage's.
        pulls: What holds weights: see `fit`.
    """
    checkpoint = mixture.own.checkpoint
    rows = MixedRows.of({task: part.rows for task, part in mixture.parts.items()}, counts)
    further = [mixture.uncertainty] if mixture.uncertainty is not None else []
    siblings = mixture.siblings()
    attach(checkpoint.model, {task: one.model for task, (_, one) in siblings.items()}, *further)
    shaped = {"label_smoothing": 0.0, "focal_gamma": 0.0, "class_weights": None}  # each part has its own shape
    plain = job.settings.regularization.model_copy(update=shaped)
    settings = job.settings.model_copy(update={"regularization": plain, "prior_bias": False})
    mixed = replace(job, problem=cast("Problem", mixture), settings=settings)
    try:
        fitted = fit(checkpoint, rows, mixture.own.validation, strategy, mixed, pulls)
    finally:
        detach(checkpoint.model)
    for task, (problem, one) in siblings.items():
        follow(one.model, checkpoint.model)
        checkpoint.heads[task] = _head(problem, one, job.others[task].validation)
    return fitted


def _head(problem: Problem, checkpoint: Checkpoint, validation: pa.Table) -> Head:
    tuned = problem.tune(checkpoint, validation) if len(validation) else {}
    return taken(checkpoint.model, {"problem": problem.model_dump(mode="json"), "tuned": tuned})
