"""What strategies share that train on rows of several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    from ftlib.problems.base import Problem

PLAIN_START = dict.fromkeys(("prefix", "cloze template"), "start from base, or from a stage without one")
"""What several heads cannot be combined with, with the remedy."""


def check_families(strategy: str, problem: Problem, others: Mapping[str, Problem]) -> None:
    """Refuse tasks that no one model can learn.

    Args:
        strategy: Whose check it is.
        problem: What the stage learns.
        others: The further tasks, by name.

    Raises:
        UnsupportedError: With the families of models that they are learned with.
    """
    for task, other in others.items():
        if not set(problem.families) & set(other.families):
            raise UnsupportedError(
                f"{strategy} cannot train {problem.name} ({', '.join(problem.families)}) together with {other.name} of "
                f"task {task!r} ({', '.join(other.families)}): no model is of both families; give each its own stages."
            )
