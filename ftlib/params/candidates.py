"""A choice among base models: the candidates, how they are scored before training, and the short runs that decide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator

from ftlib.errors import FtlibError
from ftlib.plugins import Section
from ftlib.selection.scoring import Method, measure_of
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from ftlib.problems.base import Problem

CHOSEN = "(chosen)"
"""What stands for the chosen candidate before it is known; no folder, package or hub id is called so by chance."""

ModelName = Annotated[str, Field(min_length=1)]
"""A hub id, a folder, package:NAME or random:FAMILY."""


class Halving(Section):
    """Short runs: every candidate learns a little, the better half goes on and learns twice as long."""

    rounds: int = Field(2, ge=1, le=8)
    """How many there are at most; a candidate that is left alone has won."""

    epochs: float = Field(0.25, gt=0)
    """Passes over the training rows in the first round, below 1 that share of them once; each round has twice as
    many."""

    keep: int | None = Field(None, ge=2)
    """How many of the best-scored candidates enter the first round; 2 to the power of rounds unless given."""

    strategy: Strategy = Field(default_factory=lambda: Strategy.named("full")())
    """How candidates learn; full, or partial, which trains the head and the last blocks at half the cost."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of the short runs."""

    batch_size: int = Field(16, ge=1)
    """Rows an optimizer step: smaller than for long runs, so that few rows make enough steps."""

    @property
    def entrants(self) -> int:
        """How many enter the first round at most."""
        return self.keep or 2**self.rounds


class BaseChoice(Section):
    """A base model that is chosen on the data, before the first stage."""

    candidates: tuple[ModelName, ...] = Field(min_length=2)
    """The base models to choose from, each a hub id, a folder, package:NAME or random:FAMILY."""

    score: Method = "logme"
    """How frozen features are scored: logme (no training, nothing to tune), or linear_probe (cross-validated linear
    models). Where there are no labels for that, models that can answer as they are are scored by their loss."""

    rows: int = Field(1000, ge=10)
    """Training rows that are read for the score."""

    halving: Halving | None = Halving()
    """Short runs of the best-scored candidates, compared on validation; null: the score decides."""

    def __str__(self) -> str:
        """Return it in words."""
        *others, last = self.candidates
        return f"the best of {', '.join(others)} and {last}"

    @property
    def num_rounds(self) -> int:
        """How many rounds of short runs there can be: none is left to run in once one candidate is."""
        return min(self.halving.rounds, math.ceil(math.log2(len(self.candidates)))) if self.halving else 0

    def problems(self, problem: Problem) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what is wrong beyond single values, each with the keys below base_model where it stands."""
        for i, name in enumerate(self.candidates):
            if name in self.candidates[:i]:
                yield ("candidates", i), f"{name!r} is named already; each candidate once."
        if self.halving is None and measure_of(problem, self.score) is None:
            line = f"is null, but {problem.name} has no labels that a linear head could learn, so nothing would decide"
            yield ("halving",), f"{line}; leave it out for short runs."
        for line in self._wrong_strategies(problem):
            yield ("halving", "strategy"), line

    def _wrong_strategies(self, problem: Problem) -> Iterator[str]:
        strategy = self.halving.strategy if self.halving else None
        if strategy is None:
            return
        if strategy.teachers or not strategy.trains:
            what = "learns from other stages" if strategy.teachers else "trains nothing"
            yield f"{strategy.name} {what}, so that short runs would not compare candidates; choose full or partial."
        try:
            strategy.check(problem)
        except FtlibError as error:
            yield str(error)

    def left_out(self, problem: Problem) -> dict[str, str]:
        """Return the candidates that the problem cannot be learned with, and why, of those on this machine."""
        from ftlib.models.families import reason_against
        from ftlib.models.pretrained import folder_at_hand

        folders = {name: folder for name in self.candidates if (folder := folder_at_hand(name))}
        found = {name: reason_against(folder, problem) for name, folder in folders.items()}
        return {name: reason for name, reason in found.items() if reason}


_name = TypeAdapter(ModelName)


def _by_form(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Take a mapping for a choice, a list for its candidates, and anything else for a name, so that an error speaks of
    the one that was meant."""
    if isinstance(value, BaseChoice):
        return value
    given = {"candidates": value} if isinstance(value, list | tuple) else value
    return BaseChoice.model_validate(given) if isinstance(given, dict) else _name.validate_python(given)


Listed = Annotated[list[ModelName], Field(min_length=2)]
"""Candidates alone, all else of the choice as it is by default."""

BaseModel = Annotated[
    ModelName | BaseChoice, WrapValidator(_by_form, json_schema_input_type=ModelName | Listed | BaseChoice)
]
"""A base model by its name, or a choice."""
