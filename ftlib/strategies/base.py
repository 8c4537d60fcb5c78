"""The Strategy contract: how a checkpoint is fine-tuned. Four hooks and a loss, all with defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedModel, TrainerCallback

    from ftlib.problems.base import Problem


class Strategy(Plugin):
    """How a checkpoint is fine-tuned. The defaults fine-tune every weight."""

    kind: ClassVar[str] = "strategy"

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the stages whose predictions on the training rows `loss` needs; none by default."""
        return ()

    def check(self, problem: Problem) -> None:
        """Refuse, before any work, a problem that this strategy cannot train.

        Raises:
            UnsupportedError: With what it does support and what to do.
        """

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Return the model to train: freeze, wrap or add what is learned. Called once, after seeding."""
        return model

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return AdamW's parameter groups over the trainable parameters; no decay on biases and norms."""
        raise NotImplementedError

    def callbacks(self, model: PreTrainedModel) -> list[TrainerCallback]:
        """Return Trainer callbacks that the strategy needs."""
        return []

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], problem: Problem) -> Tensor:
        """Return the scalar loss of a batch.

        Args:
            logits: Model outputs, shape (batch_size, num_labels) for sequence problems.
            batch: "labels", and "teacher_logits" where the strategy has teachers.
        """
        return problem.target.loss(logits, batch["labels"])

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model to save: merge or unwrap what `adapt` added."""
        return model
