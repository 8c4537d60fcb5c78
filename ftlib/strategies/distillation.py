"""Distillation: a student learns from a teacher's softened probabilities, and its layers, beside the gold labels.

Uses: a smaller student that keeps most of the teacher's accuracy at a fraction of its cost (some of the start
checkpoint's blocks, by `student_blocks`; a narrower copy, by `student_hidden_size`; another `base_model` with its own
tokenizer), and a student of the same size that learns from an ensemble: several teachers, or a fusion by its name.
Where the teacher is hardly better than the labels, it helps little. The teacher runs once per row, in a step of its
own; rows of `data.sources.unlabelled`, which have no gold labels, are learned from the teacher alone.

`hidden_weight` and `attention_weight` let the student's layers learn what the teacher's make of a row, student layer m
of M from teacher layer m x N / M. That helps where a student starts far from its teacher (a narrower or untrained one)
and costs disk: 2 x hidden_size bytes a token and layer, 2 x num_heads x length a token and block, in bfloat16 (MiniLM
and SST-2, three blocks: 3 and 2 KiB a token). Teacher and student have to read the same tokens.

A fusion that teaches is fitted on those members that learn from no fusion themselves. Its members have seen the rows
they teach on, as a stage that teaches has: their scores there are surer than on others, and a temperature above 1
makes up for some of it.

Hinton et al. (2015), "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531, section 2;
layers: Jiao et al. (2020), "TinyBERT", https://arxiv.org/abs/1909.10351, equations 7 to 11; a student of every other
block of its teacher, loss and temperature 2: Sanh et al. (2019), "DistilBERT", https://arxiv.org/abs/1910.01108.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, PrivateAttr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Lesson, Strategy
from ftlib.targets.losses import PLAIN, LossShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem
    from ftlib.training.imitation import Imitation
    from ftlib.training.stage import Job
    from ftlib.training.trainer import Fitted

StageName = Annotated[str, StringConstraints(min_length=1)]
Width = Annotated[int, Field(ge=1)] | None


class Distillation(Strategy):
    """A student, whole or cut out of the start checkpoint, learns from teachers; every weight learns."""

    teacher: StageName | Annotated[tuple[StageName, ...], Field(min_length=1)] = "teacher"
    """The stage or fusion that teaches, or several: the mean of their scores."""

    temperature: float = Field(2.0, gt=0)
    """Softness of the teacher's probabilities: above 1 shows more of what it thinks of the wrong labels."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the teacher's part of the loss; the gold labels have the rest."""

    hidden_weight: float = Field(0.0, ge=0)
    """Weight of the distance between hidden states, summed over layers; 0: they are not compared."""

    attention_weight: float = Field(0.0, ge=0)
    """Weight of the distance between attention scores before softmax, summed over blocks; 0: not compared."""

    layer_teacher: StageName | None = None
    """The stage whose layers are imitated; the teacher, unless there are several or a fusion."""

    student_blocks: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Blocks of the start checkpoint that make the student: how many (evenly spaced, first and last among them),
    which (from 0), or null for all."""

    student_hidden_size: Width = None
    """Numbers of the student's hidden states, those that weigh most in the start checkpoint; null for all."""

    student_heads: Width = None
    """Heads of the student's blocks; follows from student_hidden_size in models without a size of heads (bert)."""

    student_intermediate_size: Width = None
    """Neurons of the student's feed-forward parts, those that weigh most; null for all."""

    unlabelled: bool = True
    """Whether rows of data.sources.unlabelled are learned from, where there are any."""

    _imitation: Imitation | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check_layer_teacher(self) -> Self:
        if self.layer_teacher and not self._compares_layers:
            raise PydanticCustomError("layer_teacher", "layer_teacher {name!r} teaches nothing: hidden_weight and "
                                      "attention_weight are 0; raise one, or leave it out.",
                                      {"name": self.layer_teacher})  # fmt: skip
        if self._compares_layers and not self.layer_teacher and len(self.teachers) > 1:
            raise PydanticCustomError("layer_teacher", "hidden_weight and attention_weight imitate one stage; name it "
                                      "in layer_teacher, one of: {names}.",
                                      {"names": ", ".join(self.teachers)})  # fmt: skip
        return self

    @property
    def teachers(self) -> tuple[str, ...]:
        """The stages and fusions whose predictions on the training rows are learned from."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    @property
    def _compares_layers(self) -> bool:
        return self.hidden_weight > 0 or self.attention_weight > 0

    @property
    def lesson(self) -> Lesson | None:
        """What the student reads of a teacher's layers, where a weight asks for it."""
        if not self._compares_layers:
            return None
        blocks = self.student_blocks if isinstance(self.student_blocks, int | None) else len(self.student_blocks)
        teacher = self.layer_teacher or self.teachers[0]
        return Lesson(teacher, blocks, hidden=self.hidden_weight > 0, attention=self.attention_weight > 0)

    @property
    def reads_unlabelled(self) -> bool:
        """Whether rows without labels are trained on: the teachers' part of the loss needs none."""
        return self.unlabelled

    @property
    def _widths(self) -> dict[str, int | None]:
        return {
            "hidden": self.student_hidden_size,
            "heads": self.student_heads,
            "inner": self.student_intermediate_size,
        }

    @property
    def _is_narrower(self) -> bool:
        return any(self._widths.values())

    @property
    def refuses(self) -> Mapping[str, str]:
        """A prefix, where blocks or widths are cut out: it has keys and values for each of them."""
        if self.student_blocks is None and not self._is_narrower:
            return {}
        return {"prefix": "leave student_blocks out, or start from base or a stage without one"}

    def check(self, problem: Problem) -> None:
        """Refuse layers where a model does not read the rows as they are encoded, token by token."""
        super().check(problem)
        if self._compares_layers and not problem.reads_rows_as_encoded:
            raise UnsupportedError(
                f"{self.name} cannot compare layers in {problem.name}: its model reads more or other tokens than the "
                "teacher kept of a row; leave hidden_weight and attention_weight at 0."
            )

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model without the student's blocks or widths, or whose attention scores cannot be read."""
        if self.attention_weight and size.positions and not size.ends_there:
            raise UnsupportedError("attention_weight compares queries times keys, but positions enter inside this "
                                   "model's attention; leave it at 0, hidden_weight remains.")  # fmt: skip
        size = size if self.student_blocks is None else size.with_blocks(self.student_blocks)
        return size.with_widths(**self._widths) if self._is_narrower else size

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Cut the student out of the checkpoint and open every weight.

        Raises:
            UnsupportedError: If the checkpoint has no such blocks or widths, or a prefix that belongs to its blocks.
        """
        from ftlib.models.layers import keep_blocks
        from ftlib.models.peft_models import has_beyond_plain, open_weights
        from ftlib.models.widths import narrower

        self.check_start(has_beyond_plain(model))
        if self.student_blocks is not None:
            keep_blocks(model, self.student_blocks)
        if self._is_narrower:
            model = narrower(model, **self._widths)
        return open_weights(model)

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Train in one run of the loop, the teacher's layers at hand where a weight asks for them."""
        if not self._compares_layers:
            return super().learn(checkpoint, rows, validation, job)
        from ftlib.training.batches import Rows
        from ftlib.training.imitation import imitating

        if job.layers is None:
            raise UnsupportedError("hidden_weight and attention_weight need what was kept of the teacher's layers.")
        read = Rows.from_table(rows, checkpoint.tokenizer, job.problem)
        with imitating(checkpoint.model, job.layers, read) as imitation:
            taught = self.model_copy()
            taught._imitation = imitation
            return Strategy.learn(taught, checkpoint, rows, validation, job)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], problem: Problem, shape: LossShape = PLAIN) -> Tensor:
        """Return alpha x the distance to the teacher + (1 - alpha) x the loss on gold labels + that of the layers."""
        soft = problem.distillation_loss(logits, batch, self.temperature)
        total = self.alpha * soft + (1 - self.alpha) * self._gold_loss(logits, batch, problem, shape)
        if self.hidden_weight and self._imitation is not None:
            total = total + self.hidden_weight * self._imitation.hidden_loss(batch)
        if self.attention_weight and self._imitation is not None:
            total = total + self.attention_weight * self._imitation.attention_loss(batch)
        return total

    def _gold_loss(self, logits: Tensor, batch: Mapping[str, Tensor], problem: Problem, shape: LossShape) -> Tensor:
        """Return the loss on gold labels, a mean over all rows to which those without a label add nothing."""
        from ftlib.targets.losses import has_label

        known = has_label(batch["labels"]) if problem.target.no_label is not None else None
        if known is None or bool(known.all()):
            return problem.loss(logits, batch, shape)
        if not known.any():
            return logits.sum() * 0
        labelled = {name: values[known] for name, values in batch.items()}
        return problem.loss(logits[known], labelled, shape) * known.float().mean()
