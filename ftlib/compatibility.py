"""What goes with what: every strategy and every fusion with every problem, as the plugins themselves say.

Asked of `Strategy.check` and `Fusion.check` with all parameters at their defaults, so no model is opened. The
contract tests hold each answer to its word: a pair that is not refused here learns, or combines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ftlib.errors import FtlibError
from ftlib.fusion.base import Fusion
from ftlib.plugins import Plugin, plural
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy


@dataclass(frozen=True)
class Matrix:
    """A family of plugins with every problem.

    Attributes:
        kind: The family in the plural: "strategies" or "fusions".
        does: What a pair that goes together does: "trains", "combines".
        names: The family's plugins.
        problems: Every problem.
        refusals: (problem, plugin) -> the reason; missing where they go together.
    """

    kind: str
    does: str
    names: tuple[str, ...]
    problems: tuple[str, ...]
    refusals: dict[tuple[str, str], str]

    def reason(self, problem: str, name: str) -> str | None:
        """Return why a pair is refused, with "it" for the problem's name, so that equal reasons are equal; or None."""
        refusal = self.refusals.get((problem, name))
        return refusal and re.sub(rf"\b{problem}\b", "it", refusal)

    def reasons(self) -> tuple[str, ...]:
        """Return the reasons, each once, in the order in which they are met row by row."""
        met = (self.reason(problem, name) for problem in self.problems for name in self.names)
        return tuple(dict.fromkeys(reason for reason in met if reason))

    def dump(self) -> dict[str, Any]:
        """Return problem -> plugin -> what it does, or {"refuses": reason}, for JSON."""
        return {
            problem: {
                name: {"refuses": self.refusals[problem, name]} if (problem, name) in self.refusals else self.does
                for name in self.names
            }
            for problem in self.problems
        }


def strategies() -> Matrix:
    """Return which strategy trains which problem."""
    return _matrix(Strategy, "trains", lambda strategy, problem: strategy.check(problem))


def fusions() -> Matrix:
    """Return which fusion combines the predictions of which problem."""
    return _matrix(Fusion, "combines", lambda fusion, problem: fusion.check(problem.target))


def _matrix(base: type[Plugin], does: str, check: Callable[[Any, Problem], None]) -> Matrix:
    plugins = {name: base.named(name)() for name in base.available()}
    problems = {name: Problem.named(name)() for name in Problem.available()}
    refusals = {}
    for problem_name, problem in problems.items():
        for name, plugin in plugins.items():
            try:
                check(plugin, problem)
            except FtlibError as error:
                refusals[problem_name, name] = str(error)
    return Matrix(plural(base.kind), does, tuple(plugins), tuple(problems), refusals)
