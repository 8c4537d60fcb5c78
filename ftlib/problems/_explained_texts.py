"""What is explained where a text is written: how likely it is, given what was read.

The log-probability of the whole text, its end included, less the same of an empty source, is what the source tells of
it (their pointwise mutual information, in nats); its words share that out. The answer's own tokens, which each next
one is also written from, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ftlib.problems import _generation
from ftlib.problems._questions import Posed, Question
from ftlib.problems._reading import Listening, Place, Reading, within
from ftlib.targets.losses import IGNORED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.targets.texts import Texts

SHOWN = 60
"""Characters of a text by which it is called."""


def questions(target: Texts, scores: np.ndarray) -> list[Question]:
    """Return the question for each row's best candidate; a unit is the text.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_units, 1).
    """
    return [
        Question(row, _short(text), None, text, "log_probability") for row, text in enumerate(target.decode(scores))
    ]


def _short(text: str) -> str:
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text or "nothing"


def pose(
    problem: Problem,
    checkpoint: Checkpoint,
    rows: pa.Table,
    asked: Sequence[Question],
    read: Callable[[Listening, list[int], int], Reading],
) -> list[Posed]:
    """Return rows with the texts as their labels, as a student is taught a teacher's text.

    Args:
        problem: Whose `forward` gives the logits of the labels.
        checkpoint: The model.
        rows: The row of each question.
        asked: The questions.
        read: From the tokenizer that encoded, a row's prompt and its number to where the prompt's tokens are.
    """
    import pyarrow as pa

    listening = Listening(checkpoint.tokenizer)
    encoded = problem.encode(rows, listening)  # type: ignore[arg-type]
    told = [([question.unit], [1.0]) for question in asked]
    row_ids = pa.chunked_array([pa.array(range(len(asked)), pa.int64())])
    taught = problem.teach(encoded, [_generation.predictions_table(row_ids, told)], checkpoint.tokenizer)
    prompts = encoded["input_ids"].to_pylist()
    found = []
    for i in range(len(asked)):
        line, reading = _learned(taught.slice(i, 1)), read(listening, prompts[i], i)
        behind = len(line["input_ids"][0]) - len(reading.places)
        known = [token for token in line["labels"][0].as_py() if token != IGNORED]
        found.append(Posed(line, Reading(reading.texts, [*reading.places, *[None] * behind]), _log_probability(known)))
    return found


def of_columns(rows: pa.Table, names: Sequence[str]) -> Callable[[Listening, list[int], int], Reading]:
    """Return how prompts are read whose texts are columns."""
    texts = list(zip(*([text or "" for text in rows[name].to_pylist()] for name in names), strict=True))
    return lambda listening, ids, i: listening.reading(ids, names, texts[i])


def of_messages(conversations: Sequence[Sequence[dict[str, str]]]) -> Callable[[Listening, list[int], int], Reading]:
    """Return how prompts are read that a template lays conversations out in: each message is a text of its own."""

    def read(listening: Listening, ids: list[int], i: int) -> Reading:
        (whole,), places = listening.places(ids)
        names = [f"messages {n} {message['role']}" for n, message in enumerate(conversations[i], 1)]
        said = [message["content"].strip() for message in conversations[i]]
        starts, end = [0] * len(said), len(whole)
        for n in reversed(range(len(said))):  # from the last one: of a long conversation the oldest are left out
            starts[n] = whole.rfind(said[n], 0, end)
            end = starts[n] if starts[n] >= 0 else 0
        inside = [next(filter(None, _in_messages(place, starts, said)), None) for place in places]
        return Reading(dict(zip(names, said, strict=True)), inside)

    return read


def _in_messages(place: Place | None, starts: Sequence[int], said: Sequence[str]) -> Iterator[Place | None]:
    """Yield where a token of a laid out conversation is in each of the messages that are there."""
    if place is not None:
        yield from (within((n, *place[1:]), starts, said) for n, start in enumerate(starts) if start >= 0)


def _learned(taught: pa.Table) -> pa.Table:
    """Return an encoded row with the teacher's text in the place of the gold one."""
    given = {name.removeprefix("teacher_"): taught[name] for name in taught.column_names if name.startswith("teacher_")}
    rest = {name: taught[name] for name in taught.column_names if name not in given and not name.startswith("teacher_")}
    return type(taught).from_pydict({**rest, **given})


def _log_probability(tokens: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return how a text's log-probability follows from the logits of its tokens, copy after copy."""

    def score(logits: Tensor) -> Tensor:
        each = logits.reshape(-1, len(tokens), logits.shape[-1]).log_softmax(-1)
        return each[:, range(len(tokens)), tokens].sum(1)

    return score
