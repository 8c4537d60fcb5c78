"""Continual learning: the next task is learned without losing the ones before, by replay, EWC or old heads' outputs.

Trained plainly on a new task, an encoder drifts away from the heads of the old ones. Four brakes, in any combination:

- `replay_rows`: some rows of every earlier task are trained on beside the new ones, with their own heads, on their gold
  answers and on what was said of them before (`replay_held`). The surest where old rows may be kept: the more rows, the
  less is lost; `replay_held: 3` and `head_ratio: 0.1` lose least (docs/benchmarks.md).
- `ewc`: weights that the earlier tasks' likelihood depends on are held to where they were. Needs no old row while
  training, only to measure the weights once; too strong, it stops the new task as well.
- `lwf`: the old heads are held to what they said of the new rows before. Needs no old row at all, and helps where new
  rows look like old ones; on unlike texts old heads say little.
- ``training.regularization.l2_sp``: all shared weights are held alike. The plainest, and weaker than replay.

Where old data is at hand and time is no matter, `multi_task` on all of it is the upper bound.

Replay: rows are a reservoir sample (Vitter 1985, https://doi.org/10.1145/3147.3165), shown beside new ones as in
Chaudhry et al. (2019), "On Tiny Episodic Memories in Continual Learning", https://arxiv.org/abs/1902.10486, and held to
earlier outputs as in Buzzega et al. (2020), "Dark Experience for General Continual Learning",
https://arxiv.org/abs/2004.07211 (DER++; here softened divergence in the place of squared differences). EWC:
Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural networks", https://arxiv.org/abs/1612.00796,
equation 3. Learning without forgetting: Li and Hoiem (2016), https://arxiv.org/abs/1606.09282, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.strategies._tasks import PLAIN_START, check_families
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.training.course import Course
    from ftlib.training.mixing import Part, Recorded
    from ftlib.training.penalties import Pull
    from ftlib.training.stage import Job, Training
    from ftlib.training.trainer import Fitted


class Continual(Strategy):
    """The stage's task is learned while those that its start has learned are kept; every weight learns."""

    reads_earlier_tasks: ClassVar[bool] = True

    replay_rows: int = Field(500, ge=0)
    """Rows of earlier tasks that are trained on, too; 0: none."""

    replay_for: Literal["each", "all"] = "each"
    """Whether so many rows are kept of each earlier task, or of all together, each row with the same chance."""

    replay_ratio: float = Field(0.5, gt=0, lt=1)
    """Share of the batches that are of earlier tasks, evenly divided among them."""

    replay_held: float = Field(1.0, ge=0)
    """Weight of the distance of what is said of replayed rows from what was said before, beside their gold answers
    (dark experience replay); 0: gold answers alone."""

    ewc: float = Field(0.0, ge=0)
    """Weight of the squared distance of shared weights from where they were, each times its Fisher information, which
    is small: 1e2 to 1e5; 0: none."""

    fisher: Literal["model", "empirical"] = "model"
    """Of which answers: drawn from the model itself, or the gold ones. Where a row's answer is no label or number, it
    is always of gold ones."""

    fisher_rows: int = Field(256, ge=1)
    """Rows of each earlier task that the Fisher information is measured on."""

    ewc_decay: float = Field(1.0, gt=0, le=1)
    """What a task's Fisher information counts less for each task learned since (online EWC)."""

    lwf: float = Field(0.0, ge=0)
    """Weight of the distance of earlier heads' outputs on the new rows from what they were; 0: none. 1 is usual."""

    temperature: float = Field(2.0, gt=0)
    """Of `lwf` and `replay_held`: softness of both outputs."""

    chosen_by: Literal["own", "mean"] = "mean"
    """With replay, what the best weights are chosen by: the new task's metric, or the mean over it and the replayed
    ones' (of a loss, its exponential; of an error, 1 / (1 + error))."""

    head_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which heads learn alone, so that a new one, drawn at random, does not move the encoder."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """What several heads cannot be combined with."""
        return PLAIN_START

    def check_others(self, problem: Problem, others: Mapping[str, Problem]) -> None:
        """Refuse tasks that no one model can learn, and `lwf` where an earlier head cannot read the new rows.

        Raises:
            UnsupportedError: With the reason and what to choose instead.
        """
        from ftlib.problems.base import Problem as Plain

        check_families(self.name, problem, others)
        if not self.lwf:
            return
        if type(problem).draw is not Plain.draw:
            raise UnsupportedError(
                f"continual cannot use lwf with {problem.name}: its rows are masked anew at each step, and earlier "
                "heads are asked once what they say of them; set lwf: 0, and use replay_rows or ewc."
            )
        for task, other in others.items():
            if not _reads_any_text(other):
                raise UnsupportedError(
                    f"continual cannot use lwf with {other.name} of task {task!r}: its head does not give labels or a "
                    "number for any text; set lwf: 0, and use replay_rows or ewc."
                )

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Open every weight.

        Raises:
            UnsupportedError: If the checkpoint has more than a plain one.
        """
        from ftlib.models.peft_models import has_beyond_plain

        self.check_start(has_beyond_plain(model))
        return super().adapt(model, problem)

    def course(self, model: PreTrainedModel, settings: Training, max_steps: int, steps_per_epoch: int) -> Course:
        """Return the course: heads alone for `head_ratio` of the steps, then all."""
        from ftlib.training.course import head_first

        return head_first(model, self.head_ratio, settings, max_steps)

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Measure what is to be kept, then train.

        Raises:
            CheckpointError: If the start has no head for an earlier task.
        """
        from ftlib.models.siblings import sibling
        from ftlib.training.batches import Rows
        from ftlib.training.mixing import Mixture, fit_together, part_of
        from ftlib.training.stage import TaskRows
        from ftlib.training.trainer import fit

        if not job.others:
            return super().learn(checkpoint, rows, validation, job)
        _check_heads(checkpoint, job)
        models = {task: sibling(checkpoint, given.problem, task) for task, given in job.others.items()}
        pulls = self._pulls(checkpoint, models, job) if self.ewc else {}
        if not (self.replay_rows or self.lwf):
            given = Rows.from_table(rows, checkpoint.tokenizer, job.problem)
            return fit(checkpoint, given, validation, self, job, pulls)
        own = part_of(checkpoint, TaskRows(job.problem, rows, validation), job)
        own, recorded = self._recorded(own, models, job) if self.lwf else (own, [])
        replayed = self._replayed(models, job)
        mixture = Mixture({job.task: own, **replayed}, recorded=recorded, chosen_by_mean=self.chosen_by == "mean",
                          can_recall=not job.settings.gradient_checkpointing)  # fmt: skip
        return fit_together(mixture, self._counts(mixture.tasks, job), self, job, pulls)

    def _pulls(self, checkpoint: Checkpoint, models: Mapping[str, Checkpoint], job: Job) -> Mapping[str, Pull]:
        """Return what EWC holds the shared weights with."""
        from ftlib.training.batches import Rows
        from ftlib.training.forgetting import consolidated, fisher, shared_parameters

        shared = shared_parameters(checkpoint.model)
        found = []
        for task, given in job.others.items():
            rows = Rows.from_table(given.train, checkpoint.tokenizer, given.problem)
            found.append(fisher(models[task], given.problem, rows, shared, num_rows=self.fisher_rows, of=self.fisher,
                                seed=job.seed))  # fmt: skip
        return consolidated(found, shared, self.ewc, self.ewc_decay)

    def _recorded(self, own: Part, models: Mapping[str, Checkpoint], job: Job) -> tuple[Part, list[Recorded]]:
        """Return the own task with what earlier heads say of its rows, and where that is."""
        from dataclasses import replace

        from ftlib.training.forgetting import recorded
        from ftlib.training.mixing import Recorded

        columns, listed = {}, []
        for task, given in job.others.items():
            column = f"before/{task}"
            columns[column] = recorded(models[task], given.problem, own.rows)
            listed.append(Recorded(task, given.problem, models[task], column, self.lwf, self.temperature))
        return replace(own, rows=replace(own.rows, fixed={**own.rows.fixed, **columns})), listed

    def _replayed(self, models: Mapping[str, Checkpoint], job: Job) -> dict[str, Part]:
        """Return the earlier tasks with the rows of theirs that are trained on."""
        from dataclasses import replace

        from ftlib.training.forgetting import remembered, with_own_answers
        from ftlib.training.mixing import part_of

        if not self.replay_rows:
            return {}
        tables = {task: given.train for task, given in job.others.items()}
        chosen = remembered(tables, self.replay_rows, for_each=self.replay_for == "each", seed=job.seed)
        parts = {}
        for task, rows in chosen.items():
            given = job.others[task]
            told = with_own_answers(models[task], given.problem, rows) if self.replay_held else rows
            part = part_of(models[task], replace(given, train=told), job)
            parts[task] = replace(part, held=self.replay_held, temperature=self.temperature)
        return parts

    def _counts(self, parts: list[Part], job: Job) -> tuple[int, ...]:
        """Return the batches of each task in an epoch: all of the own, and a share of earlier ones."""
        own = len(parts[0].rows.sampler(job.settings.batches, job.seed))
        earlier = len(parts) - 1
        each = round(own * self.replay_ratio / (1 - self.replay_ratio) / earlier) if earlier else 0
        return (own, *[max(1, each)] * earlier)


def _reads_any_text(problem: Problem) -> bool:
    """Return whether a problem's head gives labels or a number for any text that its model is given."""
    from ftlib.problems._learning import Learning
    from ftlib.problems.base import Problem as Plain

    is_plain = type(problem).forward is Plain.forward and type(problem.learning) is Learning
    return is_plain and problem.target.kind in ("single_label", "multi_label", "value")


def _check_heads(checkpoint: Checkpoint, job: Job) -> None:
    for task in job.others:
        if task not in checkpoint.heads:
            kept = ", ".join(sorted(checkpoint.heads)) or "none"
            raise CheckpointError(
                f"continual: what {job.name} starts from keeps no head for task {task!r} (kept: {kept}); start from a "
                "stage that learned it."
            )
