"""How members' predictions become scores of the same units, and these what a person is told.

A problem names an `Answering` (`Problem.answering`), and its hooks of the same names hand on to it. The one here fits
one vector of logits a row; for texts that are written it is in `_text_answering`, for tokens of a text in
`_token_learning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems._questions import Posed, Question
    from ftlib.problems.base import Problem
    from ftlib.targets.layout import Layout


class Answering:
    """The contract of the values that problems answer by; each method is the hook of that name in `Problem`."""

    def align(
        self, problem: Problem, predictions: Sequence[pa.Table], rows: pa.Table
    ) -> tuple[np.ndarray, Layout | None]:
        """Return the members' scores, as the target makes them of logits; each row is a unit."""
        import numpy as np

        from ftlib.ensembling import finite_logits

        target = problem.target
        return np.stack([target.scores(finite_logits(table, target.num_outputs)) for table in predictions]), None

    def references(self, problem: Problem, rows: pa.Table, layout: Layout | None) -> np.ndarray:
        """Return the gold answers as the target encodes them."""
        from ftlib.training.batches import values

        if problem.label_column in rows.column_names:
            return problem.target.over(layout).encode(problem.gold(rows))
        return values(rows["labels"])

    def answers(
        self, problem: Problem, scores: np.ndarray, rows: pa.Table, layout: Layout | None
    ) -> dict[str, Sequence[Any]]:
        """Return prediction, confidence where the target has one, and score:<label>."""
        target = problem.target.over(layout)
        columns: dict[str, Sequence[Any]] = {"prediction": target.decode(scores)}
        sure = target.confidence(scores)
        if sure is not None:
            columns["confidence"] = sure  # type: ignore[assignment]
        if target.labels and layout is None:
            columns |= {f"score:{label}": scores[:, i] for i, label in enumerate(target.labels)}  # type: ignore[misc]
        return columns

    def questions(
        self, problem: Problem, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None
    ) -> list[Question]:
        """Return the questions for the labels, or the numbers, that rows are given."""
        from ftlib.problems._questions import about_labels

        return about_labels(problem.target.over(layout), scores, label)

    def pose(
        self, problem: Problem, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]
    ) -> list[Posed]:
        """Return the rows as the model reads them, its logits being the row's own."""
        from ftlib.problems._questions import pose

        return pose(problem, checkpoint, rows, questions)
