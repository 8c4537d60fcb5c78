"""What is explained where one of a row's own choices is right: the probability of the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ftlib.problems._questions import Posed, Question
from ftlib.problems._reading import Listening, Place, Reading

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.targets.choice import Choice


def questions(target: Choice, scores: np.ndarray) -> list[Question]:
    """Return the question for each row's answer; a unit is its position among the choices.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_units, 1).
    """
    told = zip(
        target.decode(scores),
        target.confidence(scores).tolist(),
        target.positions_in_rows(scores).tolist(),
        strict=True,
    )
    return [Question(row, *answer) for row, answer in enumerate(told)]


def pose(
    problem: Problem, checkpoint: Checkpoint, rows: pa.Table, asked: Sequence[Question], lengths: str
) -> list[Posed]:
    """Return rows with the text and every choice; a word of the text adds what it adds beside each of the choices.

    Args:
        problem: Whose `forward` gives a number for each choice.
        checkpoint: The model.
        rows: The row of each question.
        asked: The questions.
        lengths: The encoded column that says how many tokens the text has with each choice.
    """
    listening = Listening(checkpoint.tokenizer)
    encoded = problem.encode(rows, listening)  # type: ignore[arg-type]
    ids, sizes = encoded["input_ids"].to_pylist(), encoded[lengths].to_pylist()
    return [
        Posed(encoded.slice(i, 1), _reading(listening, ids[i], sizes[i]), _share(question.unit))
        for i, question in enumerate(asked)
    ]


def _share(position: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits.softmax(-1)[:, position]


def _reading(listening: Listening, ids: list[int], sizes: list[int]) -> Reading:
    """Return where tokens are in the text (number 0) and in the choices (from 1), each of which is read with it."""
    texts: dict[str, str] = {}
    places: list[Place | None] = []
    first = 0
    for number, size in enumerate(sizes, 1):
        (text, choice), told = listening.places(ids[first : first + size])
        texts |= {"text": text, f"choices {number}": choice}
        places += [None if at is None else (number * at[0], *at[1:]) for at in told]
        first += size
    return Reading(texts, places)
