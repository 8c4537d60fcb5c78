"""Multi-task learning: several problems share one encoder, a head each, and are trained together.

Tasks that ask for like things of a text help each other, most a small one beside a large one; the encoder becomes one
that all heads can read, so one model is served for all. Tasks that have nothing in common, or one that is far larger,
take more than they give: compare with `full` on the task alone. With sampling "proportional" small tasks drown beside
large ones; "temperature" and "uniform" repeat their rows.

Each batch is of one task and passes through its head. The checkpoint is a plain one of the stage's own task and keeps
the other heads; the history has every task's own metrics, the others' as validation_<task>_<metric>.

Caruana (1997), "Multitask Learning", https://doi.org/10.1023/A:1007379606734; as it is done here, with batches of one
task mixed at random: Liu et al. (2019), "Multi-Task Deep Neural Networks for Natural Language Understanding",
https://arxiv.org/abs/1901.11504, algorithm 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ftlib.errors import UnsupportedError, unknown
from ftlib.strategies._tasks import PLAIN_START, check_families
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.training.mixing import Mixture
    from ftlib.training.stage import Job
    from ftlib.training.trainer import Fitted

TaskName = Annotated[str, StringConstraints(min_length=1)]


class MultiTask(Strategy):
    """The stage's task and others are learned together; every weight learns."""

    others: tuple[TaskName, ...] = ()
    """The tasks that are learned beside the stage's own, by name. Without any it is `full`."""

    sampling: Literal["proportional", "temperature", "uniform"] = "proportional"
    """How often tasks are seen: as their rows are many; less unevenly; all alike. An epoch has as many batches as all
    tasks' rows make."""

    temperature: float = Field(2.0, ge=1)
    """Of sampling "temperature": a task's share is its number of rows to the power of 1 / temperature."""

    weighting: Literal["fixed", "uncertainty"] = "fixed"
    """What a task's loss counts: as `weights` say, or by a variance that is learned for each task, so that tasks whose
    loss stays high count less (Kendall et al. 2018, https://arxiv.org/abs/1705.07115)."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Task -> what its loss counts, 1 where none is given; the experiment's own task is called main."""

    variance_learning_rate: float = Field(1e-2, gt=0)
    """Rate of the learned variances: that of weights would hardly move them within a stage."""

    chosen_by: Literal["own", "mean"] = "own"
    """What the best weights are chosen by: the own task's metric, or the mean over all tasks' metrics (of a loss, its
    exponential; of an error, 1 / (1 + error))."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """What several heads cannot be combined with."""
        return PLAIN_START

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are learned beside the stage's own."""
        return self.others

    def check_others(self, problem: Problem, others: Mapping[str, Problem]) -> None:
        """Refuse tasks that no one model can learn.

        Raises:
            UnsupportedError: With the families of models that they are learned with.
        """
        check_families(self.name, problem, others)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Open every weight.

        Raises:
            UnsupportedError: If the checkpoint has more than a plain one.
        """
        from ftlib.models.peft_models import has_beyond_plain

        self.check_start(has_beyond_plain(model))
        return super().adapt(model, problem)

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return AdamW's groups, with one of its own for learned variances."""
        from ftlib.training.groups import decayed

        found = [p for name, p in model.named_parameters() if name.endswith("log_variances")]
        others = [p for p in model.parameters() if not any(p is one for one in found)]
        groups = decayed(others, learning_rate, weight_decay)
        return [*groups, *decayed(found, self.variance_learning_rate, 0.0)]

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Train all tasks in one run of the loop.

        Raises:
            UnsupportedError: If a weight is for a task that there is not.
        """
        from ftlib.training.mixed_rows import counts
        from ftlib.training.mixing import fit_together

        names = (job.task, *job.others)
        for task in self.weights:
            if task not in names:
                raise UnsupportedError(f"multi_task: weights: {unknown('task', task, names)}")
        if not job.others:
            return super().learn(checkpoint, rows, validation, job)
        mixture = self._mixture(checkpoint, rows, validation, job)
        sizes = [len(part.rows.sampler(job.settings.batches, job.seed)) for part in mixture.tasks]
        return fit_together(mixture, counts(sizes, self.sampling, self.temperature), self, job)

    def _mixture(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Mixture:
        from ftlib.models.siblings import sibling
        from ftlib.training.mixing import Mixture, Uncertainty, part_of
        from ftlib.training.stage import TaskRows

        own = TaskRows(job.problem, rows, validation)
        parts = {job.task: part_of(checkpoint, own, job, self.weights.get(job.task, 1.0))}
        for task, given in job.others.items():
            other = sibling(checkpoint, given.problem, task)
            parts[task] = part_of(other, given, job, self.weights.get(task, 1.0))
        squared = [part.problem.target.kind == "value" for part in parts.values()]
        uncertainty = Uncertainty(squared) if self.weighting == "uncertainty" else None
        return Mixture(parts, uncertainty=uncertainty, chosen_by_mean=self.chosen_by == "mean")
