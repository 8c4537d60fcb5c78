"""The `tuning` section: which values `ftlib tune` tries, how it chooses them, and when it gives a trial up."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ftlib.plugins import Section

Number = int | float


class Range(Section):
    """The values that one parameter may take: from low to high, or a list of choices."""

    low: Number | None = None
    """The smallest value."""

    high: Number | None = None
    """The largest value."""

    log: bool = False
    """Draw on a logarithmic scale: every factor is as likely as any other. Right for rates and penalties."""

    step: Number | None = Field(None, gt=0)
    """Only low, low + step, low + 2 step... An integer has steps of 1 unless given."""

    choices: tuple[Any, ...] | None = Field(None, min_length=1)
    """The values themselves, of any kind, instead of low and high: names, numbers, lists, mappings."""

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        problem = self._problem()
        if problem:
            raise PydanticCustomError("range", "{line}", {"line": problem})
        return self

    def _problem(self) -> str | None:
        low, high = self.low, self.high
        if self.choices is not None:
            return self._problem_of_choices(self.choices)
        if low is None or high is None:
            return "needs low and high, or choices; write {low: 1.0e-5, high: 1.0e-3, log: true} or {choices: [4, 8]}."
        if low >= high:
            return f"goes from {low} to {high}; low must be below high."
        if self.log and low <= 0:
            return f"starts at {low}; on a logarithmic scale low must be above 0. Raise low, or leave log out."
        if self.step is None:
            return None
        if self.log:
            return "has both log and step; leave one of them out, or list the choices."
        return f"has steps of {self.step} from {low} to {high}: none fits in." if self.step > high - low else None

    def _problem_of_choices(self, choices: tuple[Any, ...]) -> str | None:
        given = [name for name in ("low", "high", "step") if getattr(self, name) is not None] + ["log"] * self.log
        if given:
            return f"has choices and {' and '.join(given)}; give choices alone, or low and high."
        said = [repr(choice) for choice in choices]
        twice = next((text for i, text in enumerate(said) if text in said[:i]), None)
        return f"names the choice {twice} twice; each once." if twice else None


class Tuning(Section):
    """What `ftlib tune` searches. `ftlib run` does not read it."""

    space: dict[str, Range] = Field(min_length=1)
    """Params path, as --set takes it (stages.full.training.learning_rate) -> the values that are tried there."""

    num_trials: int = Field(20, ge=1)
    """How many combinations are tried in all; a grid with fewer ends earlier."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """How combinations are chosen: tpe learns from the trials so far where good ones lie; random does not; grid tries
    every combination of choices and steps."""

    pruner: Literal["median", "hyperband", "none"] = "median"
    """When a trial is given up early, by its validation scores while it trains: median, once its best one is below the
    median of earlier trials at that pass; hyperband gives several groups of trials budgets of their own."""

    num_startup_trials: int = Field(5, ge=1)
    """How many trials are drawn at random, and never given up, before sampler and pruner go by what they have seen."""
