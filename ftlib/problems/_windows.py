"""Windows: a question and a long context become one or more inputs, each with a stretch of the context.

The same windows that transformers' tokenizers make with ``truncation="only_second"``, ``stride`` and
``return_overflowing_tokens``; a question that is too long is cut first, and where a question leaves little room the
overlap shrinks, so that any row can be encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

ROWS_AT_ONCE = 2048
"""Rows tokenized together: enough for the tokenizer's threads, few enough for memory."""

NOWHERE = -1
"""The offsets of tokens that are no part of the context."""


@dataclass(frozen=True)
class Template:
    """How a tokenizer lays out a pair.

    Attributes:
        pieces: What stands where: (token id, type id) for a special token, ("A" or "B", type id) for a text.
        num_special: Special tokens in all.
    """

    pieces: tuple[tuple[int | str, int], ...]
    num_special: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Template:
        """Return a tokenizer's layout, read off a pair that it has encoded."""
        backend: Any = tokenizer.backend_tokenizer
        backend.no_truncation()  # as it was saved, or last called
        backend.no_padding()
        encoding = backend.encode("a", "a")
        pieces: list[tuple[int | str, int]] = []
        for token, part, kind in zip(encoding.ids, encoding.sequence_ids, encoding.type_ids, strict=True):
            piece = (token, kind) if part is None else ("AB"[part], kind)
            if part is None or piece not in pieces:
                pieces.append(piece)
        return cls(tuple(pieces), sum(isinstance(piece, int) for piece, _ in pieces))


@dataclass(frozen=True)
class Tokens:
    """One text's tokens.

    Attributes:
        ids: Their ids.
        starts: Where in the text each begins, white space left out; `NOWHERE` where it stands for no character.
        ends: Where it ends.
    """

    ids: list[int]
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, encoding: Any, text: str) -> Tokens:
        """Return what a tokenizer makes of a text."""
        places = [_trimmed(text, *offsets) for offsets in encoding.offsets]
        return cls(encoding.ids, [start for start, _ in places], [end for _, end in places])


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else (NOWHERE, NOWHERE)


def windows(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, *, max_length: int, max_question_length: int, stride: int
) -> pa.Table:
    """Return a line for each window.

    Args:
        rows: question and context.
        tokenizer: A fast one.
        max_length: Tokens of a window, special ones included; less where the model takes less.
        max_question_length: Tokens kept of a question.
        stride: Tokens of the context that neighbouring windows share.

    Returns:
        row, input_ids, token_type_ids where the model has them, char_starts and char_ends (places of each token in
        the context; -1 elsewhere), num_truncated (tokens of the question that were cut, on its first window).
    """
    import pyarrow as pa

    limit = min(max_length, tokenizer.model_max_length)
    template = Template.of(tokenizer)
    lines: list[tuple[Any, ...]] = []
    for row, (question, context) in enumerate(_tokenized(rows, tokenizer)):
        kept = question.ids[: min(max_question_length, max(1, (limit - template.num_special) // 2))]
        room = max(1, limit - template.num_special - len(kept))
        num_cut = len(question.ids) - len(kept)
        for first in starts(len(context.ids), room, stride):
            last = first + room
            part = Tokens(context.ids[first:last], context.starts[first:last], context.ends[first:last])
            lines.append((row, *_line(template, kept, part), num_cut if first == 0 else 0))
    schema = _schema()
    columns: list[Any] = list(zip(*lines, strict=True)) if lines else [[] for _ in schema]
    arrays = [pa.array(column, part.type) for column, part in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    return table if "token_type_ids" in tokenizer.model_input_names else table.drop_columns(["token_type_ids"])


def starts(length: int, room: int, stride: int) -> Iterator[int]:
    """Yield where windows of `room` tokens begin in a text of `length`; each shares `stride` with the one before."""
    step = room - min(stride, room // 2)
    first = 0
    yield first
    while first + room < length:
        first += step
        yield first


def _tokenized(rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[Tokens, Tokens]]:
    backend: Any = tokenizer.backend_tokenizer
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows.slice(start, ROWS_AT_ONCE)
        questions = part["question"].to_pylist()
        contexts = part["context"].to_pylist()
        different = list(dict.fromkeys(contexts))  # several questions share a context
        encoded = backend.encode_batch(different, add_special_tokens=False)
        known = {text: Tokens.of(encoding, text) for text, encoding in zip(different, encoded, strict=True)}
        asked = backend.encode_batch(questions, add_special_tokens=False)
        for encoding, question, context in zip(asked, questions, contexts, strict=True):
            yield Tokens.of(encoding, question), known[context]


def _line(template: Template, question: list[int], context: Tokens) -> tuple[list[int], ...]:
    ids: list[int] = []
    kinds: list[int] = []
    char_starts: list[int] = []
    char_ends: list[int] = []
    for piece, kind in template.pieces:
        if piece == "B":
            added, begin, end = context.ids, context.starts, context.ends
        else:
            added = question if piece == "A" else [int(piece)]
            begin = end = [NOWHERE] * len(added)
        ids += added
        kinds += [kind] * len(added)
        char_starts += begin
        char_ends += end
    return ids, kinds, char_starts, char_ends


def _schema() -> pa.Schema:
    import pyarrow as pa

    integers = pa.list_(pa.int32())
    names = ("input_ids", "token_type_ids", "char_starts", "char_ends")
    types = (integers, pa.list_(pa.int8()), integers, integers)
    return pa.schema(
        [("row", pa.int64()), *zip(names, types, strict=True), ("num_truncated", pa.int32())]  # type: ignore[list-item]
    )


def token_span(char_starts: np.ndarray, char_ends: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """Return the tokens of a window in which characters [start, end) begin and end; None where it lacks some of them.

    Args:
        char_starts: Places of the window's tokens, `NOWHERE` outside of the context.
        char_ends: The same.
        start: In the context.
        end: In the context.
    """
    import numpy as np

    inside = np.flatnonzero(char_starts >= 0)
    covering = inside[(char_ends[inside] > start) & (char_starts[inside] < end)]
    if not len(covering) or char_starts[inside[0]] > start or char_ends[inside].max() < end:
        return None
    return int(covering[0]), int(covering[-1])
