"""What happens around a stage's steps: phases, validation, checkpoints, and progress for those who watch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from ftlib.errors import FtlibError
from ftlib.progress import Progress, emit
from ftlib.training.groups import group_of

if TYPE_CHECKING:
    from ftlib.training.course import Phase
    from ftlib.training.trainer import StageTrainer

EMIT_SECONDS = 0.25


class Watch(TrainerCallback):
    """Keeps the history, validates, keeps the best weights, stops early, asks for checkpoints, tells progress."""

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer, self.plan = trainer, trainer.plan
        self.phase: Phase | None = None
        self.learning_rate = 0.0
        self.last_told = self.last_saved = time.monotonic()

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Give the step's dropout masks their seed; open what learns from this step on."""
        self.trainer.masks.at_step(state.global_step)
        phase = self.trainer.course.at(state.global_step)
        if phase is not self.phase:
            self.phase = phase
            self.trainer.begin(phase)

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the rate of the step just taken, and the decay of word embeddings that it did not touch."""
        groups = self.trainer.optimizer.param_groups
        self.learning_rate = max(group["lr"] for group in groups)
        embedding = self.trainer.embedding
        if embedding is not None and embedding.is_learning:
            group = group_of(self.trainer.optimizer, embedding.rows)
            embedding.decay(group["lr"], group["weight_decay"])

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Do what is due after a step."""
        step, record = state.global_step, self.trainer.record
        epoch = step / self.plan.steps_per_epoch
        if not record.is_finite:
            raise FtlibError(
                f"{self.plan.name}: the loss is not a number at step {step:,}; lower training.learning_rate "
                f"({self.plan.settings.learning_rate:g})."
            )
        if step % self.plan.log_every == 0 or step == self.plan.max_steps:
            record.log_loss(step, epoch, self.learning_rate)
        if self.trainer.average is not None:
            self.trainer.average.add(step)
        is_validated = step in self.plan.evaluate_at
        if is_validated:
            self._validate(step, epoch, control)
        done = step >= self.plan.max_steps or control.should_training_stop
        now = time.monotonic()
        if not done and now - self.last_saved >= self.plan.settings.checkpoint_seconds:
            control.should_save = True
            self.last_saved = now
        if done or is_validated or now - self.last_told >= EMIT_SECONDS:
            self.last_told = now
            emit(Progress(self.plan.name, step, step if done else self.plan.max_steps, "steps", record.newest))

    def _validate(self, step: int, epoch: float, control: TrainerControl) -> None:
        record, trainer = self.trainer.record, self.trainer
        with trainer.averaged():
            metrics = trainer.validate()
            is_best = record.log_validation(step, epoch, metrics)
            if record.best_step == step:
                trainer.keep_best()
        if step <= trainer.course.last_start:
            record.num_worse = 0
        if record.should_stop:
            control.should_training_stop = True
        trainer.callback_handler.on_evaluate(trainer.args, trainer.state, control, {**metrics, "is_best": is_best})
