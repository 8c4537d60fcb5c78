"""Gradual unfreezing: the head learns first, then block after block joins it from the top down.

ULMFiT's way of not forgetting: no block moves before what is above it has stopped shaking it. Its three parts are all
here: unfreezing, lower rates for lower blocks, and a slanted triangular schedule. It helps where rows are few (some
hundreds) and the base model is good; with many rows it mostly costs steps in which lower blocks might have learned.
It is cheaper than full fine-tuning, since the backward pass ends at the lowest open block.

Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification",
https://arxiv.org/abs/1801.06146, section 3.3; with a schedule that begins anew when a block joins (`cyclic`):
as chain-thaw in Felbo et al. (2017), https://arxiv.org/abs/1708.00524, where every phase is a fine-tuning of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy
from ftlib.training.course import Schedule

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from ftlib.training.course import Course
    from ftlib.training.stage import Training


class GradualUnfreezing(Strategy):
    """Blocks begin to learn one after the other, from the top down, each with a lower rate than the one above."""

    blocks_per_phase: int = Field(1, ge=1)
    """How many levels join at once; the head is the first, the word embeddings are the last."""

    epochs_per_phase: float | None = Field(None, gt=0)
    """How long a phase is, ULMFiT's is 1; the last one, in which all learn, has the rest. null: equally long phases in
    the first half of the training, the last one the second half."""

    rate_divisor: float = Field(2.6, ge=1)
    """What the rate of a level is divided by for the level below; 1: all learn at `learning_rate`."""

    lr_scheduler_type: Schedule | None = "slanted_triangular"
    """The schedule; null: the one of the training section."""

    cyclic: bool = False
    """Begin the schedule anew with each phase."""

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return groups level by level: learning_rate / rate_divisor ^ (levels above)."""
        from ftlib.training.groups import falling

        return falling(model, learning_rate, 1 / self.rate_divisor, weight_decay)

    def course(self, model: PreTrainedModel, settings: Training, max_steps: int, steps_per_epoch: int) -> Course:
        """Return a phase for each group of levels.

        Raises:
            UnsupportedError: If the phases take longer than the training.
        """
        from ftlib.training.course import phased
        from ftlib.training.groups import levels

        waiting = self._waiting(levels(model))
        shares = self._shares(len(waiting), max_steps, steps_per_epoch)
        return phased(
            shares,
            waiting,
            max_steps=max_steps,
            schedule=self.lr_scheduler_type or settings.lr_scheduler_type,
            warmup_ratio=settings.warmup_ratio,
            restarts=self.cyclic,
        )

    def _waiting(self, levels: list[list[Parameter]]) -> list[list[Parameter]]:
        """Return what waits in each phase: the levels below those that have joined."""
        joined = [*range(1, len(levels), self.blocks_per_phase), len(levels)]
        return [[p for level in levels[: len(levels) - count] for p in level] for count in joined]

    def _shares(self, num_phases: int, max_steps: int, steps_per_epoch: int) -> list[float]:
        if self.epochs_per_phase is None:
            return [1.0] * (num_phases - 1) + [max(1.0, num_phases - 1)]
        length = self.epochs_per_phase * steps_per_epoch
        rest = max_steps - length * (num_phases - 1)
        if rest <= 0:
            raise UnsupportedError(
                f"gradual_unfreezing: {num_phases} phases of {self.epochs_per_phase:g} epochs take longer than the "
                f"training, {max_steps / steps_per_epoch:g} epochs; raise num_train_epochs or blocks_per_phase, or "
                "leave epochs_per_phase out."
            )
        return [length] * (num_phases - 1) + [rest]
