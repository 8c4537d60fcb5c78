"""What is explained where a text is its own answer: one of its tokens, by the words around it or before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ftlib.problems._questions import MOST, Posed, Question
from ftlib.problems._reading import Listening, Place, Reading
from ftlib.targets.losses import IGNORED
from ftlib.targets.token_likelihood import SMALLEST, TEXT, TOKEN

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.targets.token_likelihood import TokenLikelihood


# -- the least expected token --------------------------------------------------------------------------


def least_expected(target: TokenLikelihood, scores: np.ndarray) -> list[Question]:
    """Return the question for each row's least expected token; a unit is its number among the row's predicted ones.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_units, 1).
    """
    import numpy as np

    layout = target.laid_out
    is_gold = layout.units[TOKEN].to_numpy() < 0  # type: ignore[index]
    found = []
    for row in range(layout.num_rows):
        units = slice(layout.splits[row], layout.splits[row + 1])
        logs = np.log(np.maximum(scores[units, 0][is_gold[units]], SMALLEST))
        if len(logs):
            place = int(logs.argmin())
            found.append(Question(row, "token", float(logs[place]), place, "log_probability"))
    return found


def pose_before(
    problem: Problem, checkpoint: Checkpoint, rows: pa.Table, asked: Sequence[Question], num_leading: int
) -> list[Posed]:
    """Return each row up to its token, from the line on in which it is: the words before it are weighed.

    Args:
        problem: A text of it may go on in further lines, each of which begins with the last one's last token.
        checkpoint: The model.
        rows: The row of each question.
        asked: The questions.
        num_leading: Tokens before a text's own.
    """
    listening = Listening(checkpoint.tokenizer)
    encoded = problem.encode(rows, listening)  # type: ignore[arg-type]
    owners = encoded["row"].to_pylist()
    found = []
    for i, question in enumerate(asked):
        line, place, before = _locate(encoded, [n for n, row in enumerate(owners) if row == i], question.unit)
        ids, text = encoded["input_ids"][line].as_py()[: place + 1], rows["text"][i].as_py()
        own = listening.encode(text, add_special_tokens=False, verbose=False)
        inside: list[Place | None] = [*[None] * num_leading, *listening.places(own)[1], None]
        reading = Reading({"text": text}, inside[before : before + len(ids)])
        name = _word(reading, place) or "the end"
        posed = _line(encoded, line, ids, place, ids[place])
        found.append(Posed(posed, reading, _log_probability(ids[place]), name=name))
    return found


def _locate(encoded: pa.Table, lines: Sequence[int], number: int) -> tuple[int, int, int]:
    """Return a row's n-th predicted token's line and place in it, and how many are predicted before that line."""
    before = 0
    for line in lines:
        places = [i for i, label in enumerate(encoded["labels"][line].as_py()) if label != IGNORED]
        if number < before + len(places):
            break
        before += len(places)
    return line, places[number - before], before


# -- hidden tokens -------------------------------------------------------------------------------------


def guesses(target: TokenLikelihood, scores: np.ndarray) -> list[Question]:
    """Return the questions for what rows' first hidden places are guessed to be; a unit is the place and the token.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_units, 1).
    """
    layout, best = target.laid_out, target.best(scores)
    units = layout.units.select([TOKEN, TEXT]).take(best).to_pylist()  # type: ignore[union-attr]
    found, seen = [], dict.fromkeys(range(layout.num_rows), 0)
    for row, unit, score in zip(layout.row_of[best].tolist(), units, scores[best, 0].tolist(), strict=True):
        if seen[row] < MOST:
            found.append(Question(row, unit[TEXT], score, (seen[row], unit[TOKEN])))
        seen[row] += 1
    return found


def pose_around(problem: Problem, checkpoint: Checkpoint, rows: pa.Table, asked: Sequence[Question]) -> list[Posed]:
    """Return each row with its hidden places, of which one is looked at: the words around it are weighed."""
    listening = Listening(checkpoint.tokenizer)
    encoded = problem.encode(rows, listening)  # type: ignore[arg-type]
    found = []
    for i, question in enumerate(asked):
        ids, labels = encoded["input_ids"][i].as_py(), encoded["labels"][i].as_py()
        given = [label if label >= 0 else token for token, label in zip(ids, labels, strict=True)]
        number, token = question.unit
        place = [n for n, label in enumerate(labels) if label != IGNORED][number]
        reading = listening.reading(given, ("text",), (rows["text"][i].as_py(),))
        own = [at if token == gold else None for at, token, gold in zip(reading.places, ids, given, strict=True)]
        line = _line(encoded, i, ids, place, labels[place])
        hidden = _word(reading, place) if labels[place] >= 0 else ""
        name = f"{question.name}, hidden: {hidden}" if hidden else question.name
        found.append(Posed(line, Reading(reading.texts, own), _probability(token), name=name))
    return found


def _word(reading: Reading, place: int) -> str:
    """Return what stands at a token in the text that is read; "" where it stands for nothing."""
    where = reading.places[place]
    return reading.texts["text"][where[1] : where[2]].strip() if where else ""


# -- both ----------------------------------------------------------------------------------------------


def _line(encoded: pa.Table, line: int, ids: Sequence[int], place: int, label: int) -> pa.Table:
    """Return an encoded line with these tokens, of which one alone is predicted."""
    import pyarrow as pa

    columns: dict[str, Any] = {name: encoded[name].slice(line, 1) for name in encoded.column_names}
    labels = [IGNORED] * len(ids)
    labels[place] = label
    integers = pa.list_(pa.int32())
    columns |= {"input_ids": pa.array([ids], integers), "labels": pa.array([labels], integers)}
    return pa.table(columns)


def _probability(token: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits.softmax(-1)[:, token]


def _log_probability(token: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits.log_softmax(-1)[:, token]
