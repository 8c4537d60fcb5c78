"""How problems answer whose answers are generated texts: each row's candidates, weighed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ftlib.problems import _explained_texts as explained
from ftlib.problems import _generation
from ftlib.problems._answering import Answering

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems._questions import Posed, Question
    from ftlib.problems.base import Problem
    from ftlib.targets.layout import Layout
    from ftlib.targets.texts import Texts


class TextAnswering(Answering):
    """A row is answered with the best of its candidates, which models support."""

    def align(
        self, problem: Problem, predictions: Sequence[pa.Table], rows: pa.Table
    ) -> tuple[np.ndarray, Layout | None]:
        """Return the members' support of all distinct texts of each row."""
        return _generation.align(predictions)

    def answers(
        self, problem: Problem, scores: np.ndarray, rows: pa.Table, layout: Layout | None
    ) -> dict[str, Sequence[Any]]:
        """Return prediction, score, and alternatives (text and score each, best first)."""
        return _generation.answers(scores, _target(problem, layout))

    def questions(
        self, problem: Problem, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None
    ) -> list[Question]:
        """Return the question for each text that is written."""
        return explained.questions(_target(problem, layout), scores)

    def pose(
        self, problem: Problem, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]
    ) -> list[Posed]:
        """Return rows with the texts behind them."""
        read = explained.of_columns(rows, problem.text_columns)
        return explained.pose(problem, checkpoint, rows, questions, read)


def _target(problem: Problem, layout: Layout | None) -> Texts:
    return cast("Texts", problem.target.over(layout))
