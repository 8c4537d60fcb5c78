"""Questions: which scores of a row are explained, and how a model is asked for one.

A problem says which scores its answers rest on (`Problem.questions`), and, for a model, what it reads and how the
score follows from its logits (`Problem.pose`). What adds to a score, `ftlib.explaining` finds out, alike for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ftlib.problems._reading import Listening, Reading

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target

Scale = Literal["probability", "value", "log_probability"]

MOST = 3
"""Of a row with several answers, such as spans or labels, so many are explained at most."""


@dataclass(frozen=True)
class Question:
    """One score of one row.

    Attributes:
        row: The row's position.
        name: What the score is that of: a label, "Rome: LOC", a text.
        score: The score, as the model has it; None where a fusion has none on this scale.
        unit: What the problem knows it by.
        scale: What the score is.
        instead: What the model answers, where that is something else.
    """

    row: int
    name: str
    score: float | None
    unit: Any = None
    scale: Scale = "probability"
    instead: str = ""


@dataclass(frozen=True, eq=False)
class Posed:
    """A question as one model is asked it.

    Attributes:
        line: One encoded row: what `Problem.forward` reads.
        reading: Where its tokens are in the row's texts.
        score: From the logits that `forward` gives of several copies of the line to their scores, shape (num_copies,).
        blank: Column -> what stands in an input that says nothing, for columns that hold no tokens.
        name: What the score is that of, where only the model's vocabulary says so.
    """

    line: pa.Table
    reading: Reading
    score: Callable[[Tensor], Tensor]
    blank: Mapping[str, Tensor] = field(default_factory=dict)
    name: str = ""


# -- labels and numbers --------------------------------------------------------------------------------


def about_labels(target: Target, scores: np.ndarray, label: str | None) -> list[Question]:
    """Return the questions for the labels, or the numbers, that rows are given.

    Args:
        target: One whose scores are a row's own.
        scores: Shape (num_rows, num_outputs).
        label: The label to explain, whatever the answer is.
    """
    answers = target.decode(scores)
    found = []
    for row, (line, answer) in enumerate(zip(scores, answers, strict=True)):
        for output in _outputs(line, target, label):
            name = target.labels[output] if target.labels else "value"
            given = answer if isinstance(answer, list) else [answer]
            instead = "" if not target.labels or name in given else ", ".join(given) or "no label"
            scale: Scale = "probability" if target.labels else "value"
            found.append(Question(row, name, float(line[output]), output, scale, instead))
    return found


def _outputs(scores: np.ndarray, target: Target, label: str | None) -> list[int]:
    """Return which scores of a row are explained: those of the answer, or of the likeliest label where it has none."""
    import numpy as np

    if label is not None:
        return [target.labels.index(label)]
    if target.kind != "multi_label":
        return [int(scores.argmax())]
    given = np.flatnonzero(target.predicted(scores[None])[0] > 0)
    ranked = sorted(given.tolist(), key=lambda i: -scores[i])[:MOST]
    return ranked or [int(scores.argmax())]


def of_output(kind: str, output: int) -> Callable[[Tensor], Tensor]:
    """Return how a label's score, or a number, follows from logits of shape (num_copies, num_outputs)."""

    def score(logits: Tensor) -> Tensor:
        if kind == "single_label":
            return logits.softmax(-1)[:, output]
        return logits.sigmoid()[:, output] if kind == "multi_label" else logits.reshape(len(logits), -1)[:, output]

    return score


def pose(problem: Problem, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
    """Return what a model reads of rows with one line each, whose logits are the row's own.

    Args:
        problem: Its texts are those of `text_columns`.
        checkpoint: The model.
        rows: The row of each question.
        questions: By the number of an output.
    """
    encoded, readings = read(problem, checkpoint, rows, problem.text_columns)
    kind = problem.target.kind
    return [
        Posed(encoded.slice(i, 1), reading, of_output(kind, question.unit))
        for i, (reading, question) in enumerate(zip(readings, questions, strict=True))
    ]


def read(
    problem: Problem, checkpoint: Checkpoint, rows: pa.Table, names: Sequence[str]
) -> tuple[pa.Table, list[Reading]]:
    """Return rows encoded as the problem does it, one line each, and where their tokens are in their texts.

    Args:
        problem: What is learned.
        checkpoint: Whose tokenizer is used.
        rows: Its input columns.
        names: The columns that hold texts.
    """
    listening = Listening(checkpoint.tokenizer)
    encoded = problem.encode(rows, listening)  # type: ignore[arg-type]
    texts = zip(*([text or "" for text in rows[name].to_pylist()] for name in names), strict=True)
    ids = encoded["input_ids"].to_pylist()
    return encoded, [listening.reading(of, names, given) for of, given in zip(ids, texts, strict=True)]
