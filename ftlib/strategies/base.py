"""The Strategy contract: how a checkpoint is fine-tuned. Four hooks and a loss, all with defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.errors import UnsupportedError
from ftlib.plugins import Plugin
from ftlib.problems.base import MAIN
from ftlib.targets.losses import PLAIN, LossShape

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, TrainerCallback

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem
    from ftlib.training.course import Course
    from ftlib.training.stage import Job, Training
    from ftlib.training.trainer import Fitted

LANGUAGE_MODEL_HEAD = "language model's head"
"""What a checkpoint has that has learned to predict words."""


@dataclass(frozen=True)
class Lesson:
    """What a stage learns from the layers of another one, on its training rows.

    Attributes:
        teacher: The stage.
        num_blocks: How many blocks the student has, where that is known; else all of the teacher's layers are kept.
        hidden: Whether hidden states are learned.
        attention: Whether attention scores are.
    """

    teacher: str
    num_blocks: int | None
    hidden: bool
    attention: bool


class Strategy(Plugin):
    """How a checkpoint is fine-tuned. The defaults fine-tune every weight."""

    kind: ClassVar[str] = "strategy"

    leaves: ClassVar[frozenset[str]] = frozenset()
    """What its checkpoints have that plain ones lack, such as "prefix". Stages that start from them leave it too."""

    reads_earlier_tasks: ClassVar[bool] = False
    """Whether it trains on rows of the tasks that its start has learned before, too, so as not to lose them."""

    @property
    def names_weights(self) -> bool:
        """Whether it names weights of the model, so that `adapt` may find that there are none of the name."""
        return False

    @property
    def trains(self) -> bool:
        """Whether there are weights to learn; else the checkpoint is measured as it is."""
        return True

    @property
    def refuses(self) -> Mapping[str, str]:
        """What the checkpoint that it starts from may not have, each with the remedy; nothing by default."""
        return {}

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the stages and fusions whose predictions on the training rows `loss` needs; none by default."""
        return ()

    @property
    def reads_unlabelled(self) -> bool:
        """Whether it trains on rows without labels, too (`data.sources.unlabelled`)."""
        return False

    @property
    def lesson(self) -> Lesson | None:
        """What `learn` reads of a stage's layers (`Job.layers`); nothing by default."""
        return None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of further tasks whose rows it trains on beside the stage's own; none by default."""
        return ()

    @property
    def keeps_head(self) -> bool:
        """Whether stages of other tasks that start from its checkpoint keep its head, and so still answer its task."""
        return True

    def check(self, problem: Problem) -> None:
        """Refuse, before any work, a problem that this strategy cannot train.

        Raises:
            UnsupportedError: With what it does support and what to do.
        """
        reason = problem.refuses.get(self.name)
        if reason:
            raise UnsupportedError(f"{self.name} cannot train {problem.name}: {reason}.")

    def check_others(self, problem: Problem, others: Mapping[str, Problem]) -> None:
        """Refuse, before any work, tasks whose rows cannot be learned together; by default all can.

        Args:
            problem: What the stage learns.
            others: What the further tasks are whose rows it reads, by name.

        Raises:
            UnsupportedError: With the reason and what to choose instead.
        """

    def check_settings(self, settings: Training) -> None:
        """Refuse, before any work, settings of the training that have no meaning here; by default none.

        Raises:
            UnsupportedError: With the setting and what to do.
        """

    def check_start(self, has: Collection[str], stage: str = "") -> None:
        """Refuse, before any work, a checkpoint that this strategy cannot go on from.

        Args:
            has: What the strategies that made the checkpoint have left in it, and `LANGUAGE_MODEL_HEAD` where the stage
                has learned to predict words.
            stage: The stage that it comes from, where that is known.

        Raises:
            UnsupportedError: With what stands in the way and what to do.
        """
        for what, remedy in self.refuses.items():
            if what in has:
                origin = f", which stage {stage!r} leaves" if stage else ""
                raise UnsupportedError(f"{self.name} cannot start from a checkpoint with a {what}{origin}; {remedy}.")

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse, before any work, a checkpoint that is too small, and return what this strategy leaves of it.

        Args:
            size: Of the checkpoint that it starts from.
            problem: What is learned.

        Raises:
            UnsupportedError: With what is too small and what to do.
        """
        return size

    def open(self, folder: Path, problem: Problem, task: str = MAIN) -> Checkpoint:
        """Return the checkpoint that the stage starts from, with the head that it trains; seed first.

        Args:
            folder: What `checkpoints.fetch` or `save` wrote.
            problem: What is learned, its labels filled in.
            task: What it is called: a checkpoint may keep heads of several tasks.

        Raises:
            CheckpointError: If it cannot be opened.
            UnsupportedError: If it has not what the strategy needs.
        """
        from ftlib.models import checkpoints

        return checkpoints.load(folder, problem, task)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Return the model to train: freeze, wrap or add what is learned; by default every weight learns.

        Called once, after seeding.

        Args:
            model: As `open` gives it; ``model.token_layout`` says what is known of its tokenizer.
            problem: What is learned, its labels filled in.

        Raises:
            UnsupportedError: If this strategy cannot train such a model.
        """
        from ftlib.models.peft_models import open_weights

        return open_weights(model)

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return AdamW's parameter groups over the trainable parameters; no decay on biases and norms.

        Those are the parameters of one dimension, as they are in every transformer.
        """
        from ftlib.training.groups import decayed

        return decayed(model.parameters(), learning_rate, weight_decay)

    def course(self, model: PreTrainedModel, settings: Training, max_steps: int, steps_per_epoch: int) -> Course:
        """Return which parameters learn when, and how rates go; by default all at every step, as the settings say.

        Args:
            model: As training has it; the parameters that learn are those that require a gradient.
            settings: The stage's.
            max_steps: Optimizer steps of the stage.
            steps_per_epoch: Optimizer steps of a pass over the rows.
        """
        from ftlib.training.course import phased

        schedule, warmup_ratio = settings.lr_scheduler_type, settings.warmup_ratio
        return phased((1,), ((),), max_steps=max_steps, schedule=schedule, warmup_ratio=warmup_ratio)

    def callbacks(self, model: PreTrainedModel) -> list[TrainerCallback]:
        """Return Trainer callbacks that the strategy needs.

        `on_evaluate` tells them of each validation pass: its metrics, and as "is_best" whether it is the best so far.
        A rate that they change in `on_pre_optimizer_step` holds for that step. One that has a state of its own is
        transformers' ExportableState, so that a killed stage resumes.
        """
        return []

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], problem: Problem, shape: LossShape = PLAIN) -> Tensor:
        """Return the scalar loss of a batch.

        Args:
            logits: What the problem's `forward` gives, such as shape (batch_size, num_labels).
            batch: The problem's `model_targets`: "labels", and what `Problem.teach` adds where there are teachers.
            problem: What is learned.
            shape: How gold labels count, as the stage's regularization says.
        """
        return problem.loss(logits, batch, shape)

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Train the model that `adapt` gave, in place, on the rows; by default in one run of the loop.

        See `ftlib.training.stage.train`, which calls this once, for the arguments. A killed stage calls it again, with
        what the loop has left in `scratch`.
        """
        from ftlib.training.batches import Rows
        from ftlib.training.trainer import fit, measured_as_it_is

        if not self.trains:
            return measured_as_it_is(checkpoint, validation, job)
        return fit(checkpoint, Rows.from_table(rows, checkpoint.tokenizer, job.problem), validation, self, job)

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model to save: merge or unwrap what `adapt` added."""
        return model
