"""What problems on words share: words of a row, and words as pieces in windows.

A row holds its words as a list, or, where a model is served, as a text, which is split here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError, DataError, unknown

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.training.batches import Lists

ROWS_AT_ONCE = 2048
"""Rows tokenized together."""

WORD = re.compile(
    r"(?:https?://|www\.)\S+"  # addresses
    r"|[@#]?\w+(?:[-.'’_&/@:]\w+)*"  # words, also those with something inside: state-of-the-art, 3.5, a@b.c, 12:30
    r"|\S"  # any other sign alone
)
"""A word of a text that nobody has split."""

EMPTY_WORD = re.compile(r"\s*")


# -- words of rows -------------------------------------------------------------------------------------


def is_text(column: pa.ChunkedArray | pa.Array) -> bool:
    """Return whether rows hold texts, not lists of words."""
    from pyarrow import types

    return types.is_string(column.type) or types.is_large_string(column.type)


def places(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text are: first character, and one past the last."""
    return [match.span() for match in WORD.finditer(text)]


def words_of(column: pa.ChunkedArray | pa.Array) -> list[list[str]]:
    """Return the words of each row; none where there are none.

    Raises:
        DataError: If the column holds neither lists of words nor texts.
    """
    rows = as_words(column).to_pylist()
    if is_text(column):
        return [[text[a:b] for a, b in places(text)] if text else [] for text in rows]
    return [[word or "" for word in row] if row else [] for row in rows]


def as_words(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return a column as lists of text, or as texts."""
    import pyarrow as pa

    if is_text(column):
        return column
    wanted = pa.list_(pa.string())
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"words of type {column.type} cannot be read; expected a list of words a row.") from None


def lacking(column: pa.ChunkedArray | pa.Array, name: str) -> pa.Array:
    """Return why the words of rows cannot be used: none at all, or an empty one (string; null where they can)."""
    import pyarrow as pa

    def reason(words: list[str | None] | str | None) -> str | None:
        if words is None:
            return f"missing {name}"
        if isinstance(words, str):
            return None if words.strip() else f"empty {name}"
        empty = any(word is None or EMPTY_WORD.fullmatch(word) for word in words)
        return f"an empty word in {name}" if empty else None if words else f"empty {name}"

    return pa.array([reason(words) for words in as_words(column).to_pylist()], pa.string())


# -- words as pieces -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """The special tokens around a text, and the type of all of its tokens.

    Attributes:
        before: Ids of those before.
        after: Ids of those after.
        has_types: Whether the model reads token types; all are 0.
    """

    before: list[int]
    after: list[int]
    has_types: bool


def check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that does not say which word a piece is of (CheckpointError)."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(
            f"{type(tokenizer).__name__} has no fast tokenizer, without which words cannot be told apart; "
            "add tokenizer.json to the model, or choose another base_model."
        )


def encode_words(
    rows: pa.Table, column: str, tokenizer: PreTrainedTokenizerBase, *, max_length: int, stride: int
) -> pa.Table:
    """Return the words of rows as pieces; rows that are too long become several windows.

    A word that the tokenizer makes nothing of (a lone control character) is an unknown one, so that every word has a
    piece. Of words in two windows, each is predicted in the one in which it has more context.

    Args:
        rows: Holds `column`.
        column: Lists of words, or texts.
        tokenizer: Of the model to be trained or served.
        max_length: Tokens of a window, special tokens included; less where the model takes less.
        stride: Tokens that neighbouring windows share at most; no more than half a window.

    Returns:
        input_ids (list<int32>), token_type_ids (list<int8>) where the tokenizer gives them, words (list<int32>: at the
        first piece of each word that is predicted here, the word's place in its row, else -1), num_truncated
        (int32), row (int64).
    """
    import pyarrow as pa

    if column not in rows.column_names:
        raise DataError(unknown("column", column, rows.column_names, remedy=f"Rows need a column {column!r}."))
    frame = _frame(tokenizer)
    room = min(max_length, tokenizer.model_max_length) - len(frame.before) - len(frame.after)
    batches = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        words = words_of(rows[column].slice(start, ROWS_AT_ONCE))
        pieces = _pieces(words, tokenizer)
        lines = [(start + i, *line) for i, row in enumerate(pieces) for line in _lines(row, room, stride, frame)]
        batches.append(_batch(lines, frame))
    schema = _schema(frame)
    return pa.Table.from_batches(batches, schema).combine_chunks() if batches else schema.empty_table()


def token_words(words: list[str], predicted: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int | None]:
    """Return the word that each token of an encoded line is a piece of, by its place in its row; None for none.

    Args:
        words: The row's.
        predicted: The line's `words`, as `encode_words` gave them; at least one is predicted here.
        tokenizer: The same.
    """
    frame, pieces = _frame(tokenizer), _pieces([words], tokenizer)[0]
    first = next(i for i, word in enumerate(predicted) if word >= 0)
    before = [word for word in range(predicted[first]) for _ in pieces[word]]
    after = [word for word in range(predicted[first], len(words)) for _ in pieces[word]]
    inside = [*before[len(before) - first + len(frame.before) :], *after]
    size = len(predicted) - len(frame.before) - len(frame.after)
    return [*[None] * len(frame.before), *inside[:size], *[None] * len(frame.after)]


def _frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_truncation()
    backend.no_padding()
    encoding = backend.encode("a")
    inside = [i for i, part in enumerate(encoding.sequence_ids) if part is not None]
    before, after = encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]
    return Frame(before, after, "token_type_ids" in tokenizer.model_input_names)


def _pieces(rows: list[list[str]], tokenizer: PreTrainedTokenizerBase) -> list[list[list[int]]]:
    """Return the ids of the pieces of each word of each row."""
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_truncation()
    backend.no_padding()
    if _wants_space(backend):
        rows = [[f" {word}" for word in words] for words in rows]
    unknown_id = next(i for i in (tokenizer.unk_token_id, tokenizer.pad_token_id, 0) if i is not None)
    found = []
    for words, encoding in zip(
        rows, backend.encode_batch(rows, is_pretokenized=True, add_special_tokens=False), strict=True
    ):
        pieces: list[list[int]] = [[] for _ in words]
        for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
            pieces[word].append(piece)
        found.append([ids or [unknown_id] for ids in pieces])
    return found


def _wants_space(backend: Any) -> bool:
    """Return whether a byte-level tokenizer has to be shown where a word begins: " is" and "is" are two of its words.

    RoBERTa and GPT-2 are such; with add_prefix_space they put the space there by themselves.
    """
    state = json.loads(backend.to_str()).get("pre_tokenizer") or {}
    parts = state.get("pretokenizers", [state])
    return any(part.get("type") == "ByteLevel" and not part.get("add_prefix_space") for part in parts)


def _lines(words: list[list[int]], room: int, stride: int, frame: Frame) -> Iterator[tuple[list[int], list[int], int]]:
    """Yield a row's windows: ids, words and how many tokens are cut."""
    lengths = [len(pieces) for pieces in words]
    ranges = list(windows(lengths, room, stride))
    owner = owners(len(words), ranges)
    for window, (start, stop) in enumerate(ranges):
        ids, places_of = list(frame.before), [-1] * len(frame.before)
        for word in range(start, stop):
            ids += words[word]
            places_of += [word if owner[word] == window else -1, *[-1] * (lengths[word] - 1)]
        cut = max(0, len(ids) - len(frame.before) - room)  # one word alone that is longer than a window
        end = len(ids) - cut
        yield ids[:end] + frame.after, places_of[:end] + [-1] * len(frame.after), cut


def windows(lengths: list[int], room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of words that fit into a window each and together hold all.

    Args:
        lengths: Pieces of each word.
        room: Pieces of a window.
        stride: Pieces that neighbouring windows share at most; no more than half a window.
    """
    if not lengths:
        yield 0, 0
        return
    ends = [0, *accumulate(lengths)]
    start = stop = 0
    while True:
        while stop < len(lengths) and ends[stop + 1] - ends[start] <= room:
            stop += 1
        stop = max(stop, start + 1)
        yield start, stop
        if stop == len(lengths):
            return
        shared = min(stride, room // 2, max(0, room - lengths[stop]))  # so that the next word has a place, too
        start, before = stop, start
        while start - 1 > before and ends[stop] - ends[start - 1] <= shared:
            start -= 1


def owners(num_words: int, ranges: list[tuple[int, int]]) -> np.ndarray:
    """Return the window in which each word is predicted: where it is furthest from an edge that is not the row's own.

    Args:
        num_words: Words of the row.
        ranges: The words of each window: first, and one past the last.
    """
    import numpy as np

    best, owner = np.full(num_words, -1.0), np.zeros(num_words, np.int64)
    for window, (start, stop) in enumerate(ranges):
        places = np.arange(start, stop)
        left = np.full(len(places), np.inf) if start == 0 else places - start
        right = np.full(len(places), np.inf) if stop == num_words else stop - 1 - places
        context = np.minimum(left, right)
        better = context > best[start:stop]
        owner[start:stop][better] = window
        best[start:stop][better] = context[better]
    return owner


def _schema(frame: Frame) -> pa.Schema:
    import pyarrow as pa

    types = [("token_type_ids", pa.list_(pa.int8()))] if frame.has_types else []
    words = ("words", pa.list_(pa.int32()))
    columns = [("input_ids", pa.list_(pa.int32())), *types, words, ("num_truncated", pa.int32()), ("row", pa.int64())]
    return pa.schema(columns)


def _batch(lines: list[tuple[int, list[int], list[int], int]], frame: Frame) -> pa.RecordBatch:
    import pyarrow as pa

    ids, words = [line[1] for line in lines], [line[2] for line in lines]
    types = [[[0] * len(line) for line in ids]] if frame.has_types else []
    columns = [ids, *types, words, [line[3] for line in lines], [line[0] for line in lines]]
    schema = _schema(frame)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# -- encoded words -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Owned:
    """Which words encoded lines predict.

    Attributes:
        mask: Which tokens are the first piece of such a word, of all lines one after the other, shape (num_tokens,).
        num_tokens: Of each line, shape (num_lines,).
        line_of: The line of each word, shape (num_words,), as those that follow.
        words: Its place in its row.
        units: Its place among the words of all rows.
        counts: Words of each row, shape (num_rows,).
        row_ids: Each row's id; rows are in the order in which lines bring them up. Shape (num_rows,).
    """

    mask: np.ndarray
    num_tokens: np.ndarray
    line_of: np.ndarray
    words: np.ndarray
    units: np.ndarray
    counts: np.ndarray
    row_ids: np.ndarray

    @classmethod
    def of(cls, encoded: pa.Table, by: str = "row_id") -> Owned:
        """Return the words that encoded rows predict; the windows of a row share the value of the column `by`."""
        import numpy as np

        from ftlib.training.batches import Lists

        words = Lists.of(encoded["words"], -1)
        mask = words.flat >= 0
        line_of = np.repeat(np.arange(len(encoded)), words.lengths)[mask]
        ids, first, inverse = np.unique(encoded[by].to_numpy(), return_index=True, return_inverse=True)
        order = np.argsort(first)
        row_of = np.argsort(order)[inverse][line_of]
        counts = np.bincount(row_of, minlength=len(ids))
        starts = np.concatenate([[0], np.cumsum(counts)])
        place = words.flat[mask]
        return cls(mask, words.lengths, line_of, place, starts[row_of] + place, counts, ids[order])

    def in_batch(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the words of a batch of lines, padded on the right, are, and their units.

        Args:
            lines: The lines of the batch.

        Returns:
            A mask, shape (batch_size, longest), and the units of the tokens in it.
        """
        found, _ = self._units_of_tokens.batch(lines, left=False)
        return found >= 0, found[found >= 0]

    @cached_property
    def _units_of_tokens(self) -> Lists:
        import numpy as np

        from ftlib.training.batches import Lists

        units = np.full(len(self.mask), -1)
        units[self.mask] = self.units
        return Lists(units, np.concatenate([[0], np.cumsum(self.num_tokens)]), -1)


def as_column(values: np.ndarray, sizes: np.ndarray, *, large: bool = False) -> pa.Array:
    """Return flat values as a column of lists of these sizes."""
    import numpy as np
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if large:
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
