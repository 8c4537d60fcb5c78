"""Distillation: a student learns from a teacher's softened probabilities beside the gold labels.

Two uses: a smaller student (`student_blocks`) that keeps most of the teacher's accuracy at a fraction of its cost, and
a student of the same size that learns from an ensemble (several teachers: their mean scores). Where the teacher is
hardly better than the labels, it helps little. The teacher runs once per row, in a step of its own.

Hinton et al. (2015), "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531, section 2;
a student of every other block of its teacher, loss and temperature 2: Sanh et al. (2019), "DistilBERT",
https://arxiv.org/abs/1910.01108.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from ftlib.strategies.base import Strategy
from ftlib.targets.losses import PLAIN, LossShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedModel

    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem

StageName = Annotated[str, StringConstraints(min_length=1)]


class Distillation(Strategy):
    """A student, whole or some blocks of the start checkpoint, learns from teachers; every weight learns."""

    teacher: StageName | Annotated[tuple[StageName, ...], Field(min_length=1)] = "teacher"
    """The stage that teaches, or several: the mean of their scores."""

    temperature: float = Field(2.0, gt=0)
    """Softness of the teacher's probabilities: above 1 shows more of what it thinks of the wrong labels."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the teacher's part of the loss; the gold labels have the rest."""

    student_blocks: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Blocks of the start checkpoint that make the student: how many (evenly spaced, first and last among them),
    which (from 0), or null for all."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """The stages whose predictions on the training rows are learned from."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    @property
    def refuses(self) -> Mapping[str, str]:
        """A prefix, where blocks are cut out: it has keys and values for each of them."""
        if self.student_blocks is None:
            return {}
        return {"prefix": "leave student_blocks out, or start from base or a stage without one"}

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model without the student's blocks."""
        return size if self.student_blocks is None else size.with_blocks(self.student_blocks)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Cut the student out of the checkpoint and open every weight.

        Raises:
            UnsupportedError: If the checkpoint has no such blocks, or a prefix that belongs to its blocks.
        """
        from ftlib.models.layers import keep_blocks
        from ftlib.models.peft_models import has_beyond_plain, open_weights

        self.check_start(has_beyond_plain(model))
        if self.student_blocks is not None:
            keep_blocks(model, self.student_blocks)
        return open_weights(model)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], problem: Problem, shape: LossShape = PLAIN) -> Tensor:
        """Return alpha x the distance to the teacher + (1 - alpha) x the loss on gold labels."""
        gold = problem.loss(logits, batch, shape)
        soft = problem.distillation_loss(logits, batch, self.temperature)
        return self.alpha * soft + (1 - self.alpha) * gold
