"""The course of a stage: which parameters learn when, and how their rates rise and fall.

Most strategies have the simplest one: everything that `adapt` opened learns at every step, and the rate follows the
schedule of the stage's `training` section. Gradual unfreezing and its kin divide the steps into phases. A
parameter that waits for its phase has no gradient, costs no backward work of its own and no optimizer state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from ftlib.training.stage import Training

    Multiplier = Callable[[int], float]

Schedule = Literal["linear", "cosine", "constant_with_warmup", "slanted_triangular"]

CUT_FRACTION, RATIO = 0.1, 32
"""Of the slanted triangle: the share of steps in which it rises, and its top over its bottom (ULMFiT's)."""


@dataclass(frozen=True)
class Phase:
    """Steps in which the same parameters learn.

    Attributes:
        start: The first step, from 0.
        stop: One beyond the last.
        waiting: Parameters that do not learn yet.
    """

    start: int
    stop: int
    waiting: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Course:
    """What a stage does from its first step to its last.

    Attributes:
        phases: One after the other, without gaps; the last one ends with the stage.
        multiplier: Step -> what each group's peak rate is multiplied by.
    """

    phases: tuple[Phase, ...]
    multiplier: Multiplier

    @property
    def last_start(self) -> int:
        """The step from which everything learns that ever will: no patience is lost before it."""
        return self.phases[-1].start

    def at(self, step: int) -> Phase:
        """Return the phase of a step."""
        return next((phase for phase in self.phases if step < phase.stop), self.phases[-1])


def phased(
    shares: Sequence[float],
    waiting: Sequence[Collection[Parameter]],
    *,
    max_steps: int,
    schedule: Schedule,
    warmup_ratio: float,
    restarts: bool = False,
) -> Course:
    """Return a course of phases.

    Args:
        shares: Each phase's share of the steps, in any unit. A phase too short for a step of its own is left out.
        waiting: What does not learn yet in each of them.
        max_steps: Optimizer steps in all.
        schedule: As in `multiplier`.
        warmup_ratio: As in `multiplier`.
        restarts: Whether the schedule begins anew with each phase.
    """
    phases = _phases(shares, waiting, max_steps)
    if restarts:
        return Course(phases, _restarting(phases, schedule, warmup_ratio))
    return Course(phases, multiplier(schedule, max_steps, warmup_ratio))


def head_first(model: PreTrainedModel, head_ratio: float, settings: Training, max_steps: int) -> Course:
    """Return a course in which heads learn alone for a share of the steps, then everything.

    Args:
        model: As training has it; the parameters that learn are those that require a gradient.
        head_ratio: That share; 0: everything from the first step on.
        settings: Of the schedule.
        max_steps: Optimizer steps of the stage.
    """
    from ftlib.models.heads import own_parameters

    own = {id(p) for p in own_parameters(model).values()} if head_ratio else set()
    below = [p for p in model.parameters() if p.requires_grad and id(p) not in own] if head_ratio else []
    schedule, warmup_ratio = settings.lr_scheduler_type, settings.warmup_ratio
    return phased((head_ratio, 1 - head_ratio), (below, ()), max_steps=max_steps, schedule=schedule,
                  warmup_ratio=warmup_ratio)  # fmt: skip


def _phases(shares: Sequence[float], waiting: Sequence[Collection[Parameter]], max_steps: int) -> tuple[Phase, ...]:
    total, done, ends = sum(shares), 0.0, []
    for share in shares:
        done += share
        ends.append(round(max_steps * done / total))
    ends[-1] = max_steps
    starts = [0, *ends[:-1]]
    triples = zip(starts, ends, waiting, strict=True)
    return tuple(Phase(start, stop, tuple(held)) for start, stop, held in triples if stop > start)


def multiplier(schedule: Schedule, num_steps: int, warmup_ratio: float) -> Multiplier:
    """Return a schedule as a function of the step, from 0.

    Args:
        schedule: "linear", "cosine" and "constant_with_warmup" as in transformers; "slanted_triangular": a steep
            rise in the first tenth and a long fall (Howard and Ruder 2018, equation 3), without warm-up. Where a
            tenth of the steps is no whole number, the paper's falls below zero; this one ends with the steps.
        num_steps: How long it is.
        warmup_ratio: Share of the steps in which the rate rises from 0.
    """
    shape, warmup = SCHEDULES[schedule], round(warmup_ratio * num_steps)
    return partial(shape, num_steps=num_steps, warmup=warmup)


def _rise(step: int, warmup: int) -> float:
    return step / max(1, warmup)


def _linear(step: int, *, num_steps: int, warmup: int) -> float:
    if step < warmup:
        return _rise(step, warmup)
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup))


def _cosine(step: int, *, num_steps: int, warmup: int) -> float:
    if step < warmup:
        return _rise(step, warmup)
    done = (step - warmup) / max(1, num_steps - warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * done)))


def _constant(step: int, *, num_steps: int, warmup: int) -> float:
    return _rise(step, warmup) if step < warmup else 1.0


def _slanted_triangular(step: int, *, num_steps: int, warmup: int) -> float:
    cut = max(1, math.floor(num_steps * CUT_FRACTION))
    share = step / cut if step < cut else 1 - (step - cut) / max(1, num_steps - cut)
    return (1 + share * (RATIO - 1)) / RATIO


SCHEDULES: dict[Schedule, Callable[..., float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant_with_warmup": _constant,
    "slanted_triangular": _slanted_triangular,
}


def _restarting(phases: Sequence[Phase], schedule: Schedule, warmup_ratio: float) -> Multiplier:
    shapes = [multiplier(schedule, phase.stop - phase.start, warmup_ratio) for phase in phases]

    def restarted(step: int) -> float:
        for phase, shape in zip(phases, shapes, strict=True):
            if step < phase.stop:
                return shape(step - phase.start)
        return 0.0

    return restarted
