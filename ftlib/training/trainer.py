"""The loop under `ftlib.training`: transformers' Trainer with our batches, precision, evaluation and resumption.

Imported when a stage trains; it needs torch and transformers at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from ftlib.models import cloze
from ftlib.models.checkpoints import Checkpoint, quiet
from ftlib.models.layers import ties_words
from ftlib.models.virtual_tokens import attached
from ftlib.problems.base import Problem
from ftlib.training import resumption
from ftlib.training.averaging import Average
from ftlib.training.batches import ROWS, Rows
from ftlib.training.course import Phase
from ftlib.training.dropout import cheap_dropout
from ftlib.training.embeddings import RowEmbedding, learn_rows, restore
from ftlib.training.frozen_layers import quick_frozen_layers
from ftlib.training.lazy_rows import FEWEST, LazyAdamW
from ftlib.training.penalties import Penalties, Perturbation, Pull, dropout_of
from ftlib.training.plan import Plan, laid_out
from ftlib.training.precision import autocast, bfloat16_states, resolve
from ftlib.training.priors import begin_at_frequencies
from ftlib.training.record import Record
from ftlib.training.shortcuts import Shortcuts
from ftlib.training.stage import Job
from ftlib.training.watch import Watch

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.strategies.base import Strategy
    from ftlib.training.regularization import Regularization


@dataclass(frozen=True)
class Fitted:
    """What `fit` gave beside the model's weights: see `ftlib.training.TrainResult`."""

    history: list[dict[str, float]]
    figures: dict[str, float]


def fit(
    checkpoint: Checkpoint,
    rows: Rows,
    validation: pa.Table,
    strategy: Strategy,
    job: Job,
    pulls: Mapping[str, Pull] | None = None,
) -> Fitted:
    """Train the checkpoint's model in place and leave its best weights in it. See `ftlib.training.stage.train`.

    Args:
        checkpoint: Its model adapted by the strategy.
        rows: Training rows.
        validation: Encoded validation rows.
        strategy: How the model learns.
        job: What for.
        pulls: By the names that parameters have in the model, what holds some of them to values.
    """
    model = checkpoint.model
    plan = laid_out(rows, strategy, job, pulls or {})
    if plan.settings.prior_bias:
        begin_at_frequencies(model, plan.problem, rows, plan.shape)
    embedding = _learn_rows_in_use(model, rows, job.problem)
    use_cache = getattr(model.config, "use_cache", None)
    with quiet():
        trainer = StageTrainer(checkpoint, rows, validation, plan, embedding)
        started = time.perf_counter()
        resumed = resumption.newest(job.scratch, trainer.identity)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        trainer.load_best()
    seconds = time.perf_counter() - started
    if embedding is not None:
        restore(model)
    _clean(model)
    _set_use_cache(model.config, use_cache)
    record = trainer.record
    figures = {
        "rows_per_second": trainer.rows_seen / max(seconds, 1e-9),
        "steps": float(trainer.state.global_step),
        "epochs": trainer.state.global_step / plan.steps_per_epoch,
        "best_step": float(record.best_step),
        **{f"best_{k}": v for k, v in record.best.items()},
    }
    return Fitted(record.history, figures)


def measured_as_it_is(checkpoint: Checkpoint, validation: pa.Table, job: Job) -> Fitted:
    """Return what `fit` does of a model that does not learn: its validation, and no steps."""
    found: dict[str, float] = {}
    if len(validation):
        found = job.problem.measure(checkpoint, validation, precision=resolve(job.settings.precision))
    metrics = {f"validation_{name}": float(value) for name, value in found.items()}
    figures = {"rows_per_second": 0.0, "steps": 0.0, "epochs": 0.0, "best_step": 0.0}
    history = [{"step": 0, "epoch": 0.0, **metrics}] if metrics else []
    return Fitted(history, {**figures, **{f"best_{k}": v for k, v in metrics.items()}})


def _learn_rows_in_use(model: Any, rows: Rows, problem: Problem) -> RowEmbedding | None:
    """Make the word embeddings learn only the rows that the training split uses, where they learn at all."""
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding) or not table.weight.requires_grad or ties_words(model):
        return None
    if not problem.token_columns or cloze.attached(model):
        return None
    virtual = attached(model)
    used = [torch.from_numpy(rows.lists[name].flat).unique() for name in problem.token_columns if name in rows.lists]
    first = getattr(model.config, "decoder_start_token_id", None)
    extra = [rows.padding_id, *(virtual.ids if virtual else ()), *([first] if first is not None else [])]
    beside = torch.tensor([*extra, *problem.tokens_beside_rows(model)], dtype=torch.long)
    ids = torch.cat((*used, beside)).unique()
    embedding = learn_rows(model, ids[ids >= 0])
    embedding.covers_all = True
    return embedding


def _clean(model: nn.Module) -> None:
    model.zero_grad(set_to_none=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _set_use_cache(config: Any, value: bool | None) -> None:
    """Put back what the Trainer sets in every config, of models that have no such thing too."""
    if value is not None:
        config.use_cache = value
    elif hasattr(config, "use_cache"):
        del config.use_cache


class StageTrainer(Trainer):
    """transformers' Trainer for one stage.

    Args:
        checkpoint: Its model adapted by the strategy.
        rows: Training rows.
        validation: Encoded validation rows.
        plan: What is trained, and when it is measured.
        embedding: The word embeddings, where only some of their rows learn.
    """

    model: Any
    optimizer: Any

    def __init__(
        self, checkpoint: Checkpoint, rows: Rows, validation: pa.Table, plan: Plan, embedding: RowEmbedding | None
    ) -> None:
        self.checkpoint, self.plan, self.rows, self.embedding = checkpoint, plan, rows, embedding
        self.validation = validation
        model: Any = checkpoint.model
        self.precision = resolve(plan.settings.precision)
        self.record = _record(plan)
        self.identity = resumption.identity(plan.strategy, plan.problem, plan.settings, plan.seed, rows)
        self.course = plan.strategy.course(model, plan.settings, plan.max_steps, plan.steps_per_epoch)
        self.rows_seen = 0
        self.shortcuts = Shortcuts(self)
        self.average: Average | None = None
        self.is_whole = (plan.settings.micro_batch_size or plan.settings.batch_size) >= plan.settings.batch_size
        regularization = plan.settings.regularization
        self.perturbation = Perturbation(model, regularization.adversarial) if regularization.adversarial else None
        callbacks = plan.strategy.callbacks(model)
        self.has_callbacks = bool(callbacks)
        super().__init__(
            model=model,
            args=_arguments(plan),
            train_dataset=rows,  # type: ignore[arg-type]
            data_collator=_as_it_is,
            callbacks=[*callbacks, Watch(self)],  # type: ignore[arg-type]
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False

    # -- data, optimizer, loss ---------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of batches of similar length: of two where the model can work on both at once."""
        batch_size = replace(self.plan.settings.batches, num_lengths=self.shortcuts.num_lengths())
        sampler = self.rows.sampler(batch_size, self.plan.seed)
        generator = torch.Generator().manual_seed(0)  # the loader draws a number it does not use
        return BatchLoader(self.rows, batch_sampler=sampler, collate_fn=_as_it_is, generator=generator)  # type: ignore

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return fused AdamW over the strategy's parameter groups."""
        if self.optimizer is None:
            settings = self.plan.settings
            rate = settings.learning_rate
            groups = self.plan.strategy.parameter_groups(self.model, rate, settings.weight_decay)
            if self.embedding is not None and self._can_be_lazy(self.embedding):
                self.optimizer = LazyAdamW(groups, rate, self.embedding, self.plan.max_steps)
            else:
                self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
            self.learned = resumption.learned(self.model, self.optimizer)
            self._regularize(settings.regularization)
        return self.optimizer

    def _can_be_lazy(self, embedding: RowEmbedding) -> bool:
        """Return whether rows that no batch reads may wait: they are many, and nothing else looks at all at each step.

        Those who would are penalties and averages of weights, and callbacks that a strategy brings.
        """
        regularization = self.plan.settings.regularization
        if regularization.has_penalties or regularization.averaging or self.plan.pulls or self.has_callbacks:
            return False
        return embedding.is_learning and embedding.rows.numel() >= FEWEST

    def _regularize(self, settings: Regularization) -> None:
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.penalties = Penalties(self.model, settings, learning, self.plan.pulls)
        if settings.averaging is not None:
            self.average = Average(self.learned, settings, self.plan.max_steps)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights, where the stage averages."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the schedule of the strategy's course, the same for every group."""
        if self.lr_scheduler is None:
            groups = self.optimizer.param_groups
            self.lr_scheduler = LambdaLR(self.optimizer, [self.course.multiplier] * len(groups))  # type: ignore
        return self.lr_scheduler  # type: ignore[return-value]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the strategy's loss of a batch."""
        logits = self.logits(inputs)
        loss = self._loss(logits, inputs)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _loss(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the strategy's loss; under R-Drop the mean of two passes' losses and how far they are apart."""
        strategy, problem, shape = self.plan.strategy, self.plan.problem, self.plan.shape
        loss = strategy.loss(logits, batch, problem, shape)
        weight = self.plan.settings.regularization.r_drop
        if not weight:
            return loss
        again = self.logits(batch)
        loss = (loss + strategy.loss(again, batch, problem, shape)) / 2
        return loss + weight * problem.consistency(logits, again, batch)

    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the model's logits of a batch, in the training's precision."""
        with autocast(self.precision, self.args.device):
            return self.plan.problem.forward(self.model, batch).float()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run one forward and backward pass."""
        self.rows_seen += len(inputs[ROWS])
        self.shortcuts.take(inputs)
        drawn = dict(self.plan.problem.draw(inputs, (self.plan.seed, self.state.global_step)))
        batch: Any = self._prepare_inputs(drawn)  # type: ignore[arg-type]
        if self.embedding is not None:
            self.embedding.begin_step()
        loss = self._learn(model, batch, 1.0) if self.is_whole else self._learn_in_parts(model, batch)
        self.penalties.add()
        self.record.add_loss(loss.item())
        return loss

    def _learn_in_parts(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Add the gradients of a batch's mean loss, its rows a few at a time."""
        num_rows, size = len(batch[ROWS]), self.plan.settings.micro_batch_size or len(batch[ROWS])
        total = torch.zeros(())
        for start in range(0, num_rows, size):
            part = {name: _lines(value, num_rows, start, start + size) for name, value in batch.items()}
            self.shortcuts.take(part)
            share = len(part[ROWS]) / num_rows
            total += share * self._learn(model, part, share).cpu()
        return total

    def _learn(self, model: nn.Module, batch: dict[str, Any], share: float) -> Tensor:
        """Add a batch's gradients, times `share`, to those that there are; return its loss, detached."""
        if self.perturbation is None:
            loss = self.compute_loss(model, batch)
            (loss * share).backward()
            return loss.detach()
        with self.perturbation.watched():
            loss = self.compute_loss(model, batch)
        (loss * share).backward()
        with self.perturbation.applied():
            (self.compute_loss(model, batch) * share).backward()
        return loss.detach()

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """Train, with cheap dropout masks."""
        settings = self.plan.settings
        is_cheap = not settings.gradient_checkpointing  # a block computed again has to meet the same masks
        if settings.gradient_checkpointing:
            self.model.activation_checkpointing_enable()
        with ExitStack() as stack:
            stack.enter_context(dropout_of(self.model, settings.regularization.dropout))
            stack.enter_context(bfloat16_states(self.model))
            self.masks = stack.enter_context(cheap_dropout(self.model, self.plan.seed, is_cheap=is_cheap))
            stack.enter_context(quick_frozen_layers(self.model, self.masks))
            self.model.train()
            try:
                return super().train(*arguments, **keywords)
            finally:
                self.shortcuts.lift()
                if settings.gradient_checkpointing:
                    self.model.activation_checkpointing_disable()

    def begin(self, phase: Phase) -> None:
        """Let learn what learns in a phase, and leave out of its steps what need not be computed at each."""
        waiting = {id(p) for p in phase.waiting}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(id(parameter) not in waiting)
        self.shortcuts.lay(phase)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Scale gradients down to the norm, as the Trainer does, but without three walks through all modules."""
        if self.accelerator.num_processes > 1:
            return super()._clip_grad_norm(model)
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.embedding is not None:
            learning += self.embedding.in_their_stead()
        return nn.utils.clip_grad_norm_(learning, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Count nothing: the Trainer's own count walks every parameter at every step."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log nothing: `Watch` keeps the history."""

    # -- validation --------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Return the validation loss and metrics, as "validation_<name>"."""
        if not len(self.validation):
            return {}
        with self.masks.off(), self.shortcuts.aside():
            found = self.plan.problem.measure(self.checkpoint, self.validation, precision=self.precision)
        self.model.train()
        return {f"validation_{name}": float(value) for name, value in found.items()}

    def keep_best(self) -> None:
        """Write the weights as they are now: those that the stage ends with, unless a later pass is kept."""
        if self.embedding is not None:
            self.embedding.catch_up()
        resumption.write_best(self.plan.scratch, self.learned, self.record.best_step)

    def load_best(self) -> None:
        """Put the best weights of all validation passes into the model; where there was none, the averaged ones."""
        if self.average is not None:
            self.average.settle()
        if self.record.best_step:
            resumption.read_best(self.plan.scratch, self.learned, self.record.best_step)

    # -- resumption --------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        resumption.export_callbacks(self)
        resumption.write(self.plan.scratch, self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load nothing yet: weights are read together with the optimizer, which comes later."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resumption.read(Path(checkpoint), self)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resumption.read_random_state(Path(checkpoint))


def _record(plan: Plan) -> Record:
    metric = plan.problem.validation_metric
    higher = metric != "loss" and plan.problem.target.higher_is_better(metric)
    keeps_last = not plan.settings.load_best_model_at_end
    return Record(metric, plan.settings.early_stopping_patience, higher_is_better=higher, keeps_last=keeps_last)


class BatchLoader(DataLoader):
    """A DataLoader that tells its batch sampler which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def _lines(values: Tensor, num_rows: int, start: int, stop: int) -> Tensor:
    """Return the lines of some rows of a batch's column, which has as many for each row: two where rows are pairs."""
    each = len(values) // num_rows
    return values[start * each : stop * each]


def _as_it_is(batch: Any) -> Any:
    """Return a batch that the dataset has put together already."""
    return batch


def _arguments(plan: Plan) -> TrainingArguments:
    settings = plan.settings
    return TrainingArguments(
        output_dir=str(plan.scratch),
        max_steps=plan.max_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=plan.seed,
        optim="adamw_torch_fused",
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        restore_callback_states_from_checkpoint=True,
    )
