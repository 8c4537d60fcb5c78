"""A trial's score while it trains: validation passes, counted over all of its stages, so that trials can be compared.

A stage that was computed before tells nothing while it is taken from the cache; its history does. So every trial is
judged by the same numbers, whatever of it had to be computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlib.artifacts import GivenUp
from ftlib.progress import Progress

Report = Callable[[int, float], bool]
"""Takes a pass and the score after it; returns whether to give the trial up."""


@dataclass(frozen=True)
class StagePasses:
    """What a stage's passes are counted by.

    Attributes:
        step: The name of its training step.
        num_passes: How many it makes: epochs times passes an epoch; not always a whole number.
        most: How many it makes in the longest trial.
        metric: What it is validated by.
        sign: -1 where that metric falls as the search's score rises, else 1.
    """

    step: str
    num_passes: float
    most: int
    metric: str
    sign: int


class Passes:
    """Hears a trial's training, and reports each validation pass once.

    Args:
        stages: In the order in which they are trained.
        report: Who is told.
    """

    def __init__(self, stages: Sequence[StagePasses], report: Report) -> None:
        starts = [sum(stage.most for stage in stages[:i]) for i in range(len(stages))]
        self._stages = {stage.step: (start, stage) for start, stage in zip(starts, stages, strict=True)}
        self._report = report
        self._told: set[int] = set()

    def hear(self, event: Progress) -> None:
        """Hear how far a step is.

        The last word of a stage is left to `ended`: one that stops early tells another total at its end.

        Raises:
            GivenUp: If the trial is to be given up.
        """
        if event.step not in self._stages or event.done >= event.total:
            return
        _, stage = self._stages[event.step]
        score = event.metrics.get(f"validation_{stage.metric}")
        a_step = stage.num_passes / event.total
        number = math.floor((event.done + 0.5) * a_step + 1e-9)
        if score is not None and number >= 1:
            self._tell(event.step, number, score)

    def ended(self, step: str, history: Iterable[Mapping[str, Any]]) -> None:
        """Take a stage's history for what was not heard of it.

        Raises:
            GivenUp: If the trial is to be given up.
        """
        if step not in self._stages:
            return
        name = f"validation_{self._stages[step][1].metric}"
        for number, score in enumerate((row[name] for row in history if name in row), 1):
            self._tell(step, number, score)

    def _tell(self, step: str, number: int, score: float) -> None:
        start, stage = self._stages[step]
        place = start + min(number, stage.most)
        if place in self._told or not math.isfinite(score):
            return
        self._told.add(place)
        if self._report(place, stage.sign * score):
            raise GivenUp
