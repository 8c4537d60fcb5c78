"""A training laid out in steps: how many there are, and after which of them validation is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.training.stage import Job

if TYPE_CHECKING:
    from ftlib.strategies.base import Strategy
    from ftlib.targets.losses import LossShape
    from ftlib.training.batches import Rows
    from ftlib.training.penalties import Pull

LOSS_POINTS = 100
"""Points of the loss curve in the history, about."""


@dataclass(frozen=True, kw_only=True)
class Plan(Job):
    """A job laid out in steps, for the parts of the training that share it.

    Attributes:
        strategy: How the model learns.
        steps_per_epoch: Optimizer steps in a pass over the rows.
        max_steps: Optimizer steps in all.
        evaluate_at: Steps after which validation is read.
        log_every: Steps between points of the loss curve.
        shape: How gold labels count.
        pulls: What holds some parameters to values.
    """

    strategy: Strategy
    steps_per_epoch: int
    max_steps: int
    evaluate_at: frozenset[int]
    log_every: int
    shape: LossShape
    pulls: Mapping[str, Pull]


def laid_out(rows: Rows, strategy: Strategy, job: Job, pulls: Mapping[str, Pull]) -> Plan:
    """Return a job laid out in steps.

    Args:
        rows: Training rows.
        strategy: How the model learns.
        job: What is trained for.
        pulls: What holds some parameters to values.
    """
    settings = job.settings
    steps = len(rows.sampler(settings.batches, job.seed))
    last = max(1, -int(-settings.num_train_epochs * steps // 1))
    passes = settings.evaluations_per_epoch
    epochs = range(-(-last // steps))
    marks = {epoch * steps + round((k + 1) * steps / passes) for epoch in epochs for k in range(passes)}
    marks = {m for m in marks if 0 < m < last} | {last}
    every = -(-last // LOSS_POINTS)
    return Plan(**vars(job), strategy=strategy, steps_per_epoch=steps, max_steps=last, evaluate_at=frozenset(marks),
                log_every=every, shape=settings.regularization.shape(job.problem, rows), pulls=pulls)  # fmt: skip
