"""Spans in tags, by array operations: which there are, which two sequences share, and the best legal sequence.

A span is what conlleval reads (https://aclanthology.org/W03-0419, the scorer of CoNLL 2000 to 2003), and seqeval in
its default mode: it begins at B-X, or at I-X after O or another type, and goes on while I-X follows. So a sequence
that no tagger should give has a reading, too. Plain tags (parts of speech) are spans of one word each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

OUTSIDE = "O"
BIO = re.compile(r"(?s)([BI])-(.+)")
SMALLEST = 1e-300
"""Probabilities below it count as it where a logarithm is taken."""
PADDED_WORDS = 200_000
"""Words decoded together, padding included."""


@dataclass(frozen=True, eq=False)
class TagSet:
    """What a problem's tags mean.

    Attributes:
        types: Types of spans, in the order of the tags; of plain tags, the tags themselves.
        is_plain: Whether tags have no B- and I-.
        type_of: Each tag's type, -1 for O, shape (num_tags,).
        begins: Which tags begin a span wherever they are, shape (num_tags,).
        inner: The I- tags, shape (num_inner,).
        begin_of: The B- tag of each, or, where there is none, the I- tag itself, shape (num_inner,).
    """

    types: tuple[str, ...]
    is_plain: bool
    type_of: np.ndarray
    begins: np.ndarray
    inner: np.ndarray
    begin_of: np.ndarray


def is_bio(labels: tuple[str, ...]) -> bool:
    """Return whether tags are O, B- and I- ones, and not O alone."""
    return any(BIO.fullmatch(label) for label in labels) and all(
        label == OUTSIDE or BIO.fullmatch(label) for label in labels
    )


@lru_cache(maxsize=64)
def tag_set(labels: tuple[str, ...], is_plain: bool) -> TagSet:
    """Return what tags mean, as arrays."""
    import numpy as np

    every = np.arange(len(labels))
    if is_plain:
        nothing = np.array([], dtype=np.int64)
        return TagSet(labels, True, every, np.ones(len(labels), bool), nothing, nothing)
    parts = [BIO.fullmatch(label) for label in labels]
    types = tuple(dict.fromkeys(part[2] for part in parts if part))
    type_of = np.array([types.index(part[2]) if part else -1 for part in parts], dtype=np.int64)
    begins = np.array([part is not None and part[1] == "B" for part in parts], dtype=bool)
    inner = np.flatnonzero((type_of >= 0) & ~begins)
    found = {int(type_of[i]): int(i) for i in np.flatnonzero(begins)}
    begin_of = np.array([found.get(int(type_of[i]), int(i)) for i in inner], dtype=np.int64)
    return TagSet(types, False, type_of, begins, inner, begin_of)


# -- spans ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of words, ordered.

    Attributes:
        first: Where each begins, shape (num_spans,).
        last: Its last word.
        type: Its type's number.
    """

    first: np.ndarray
    last: np.ndarray
    type: np.ndarray

    def among(self, others: Spans, num_words: int) -> np.ndarray:
        """Return which spans the others hold, too: same words, same type; bool, shape (num_spans,)."""
        import numpy as np

        last, kind = np.full(num_words, -1), np.full(num_words, -1)
        last[others.first], kind[others.first] = others.last, others.type
        return (last[self.first] == self.last) & (kind[self.first] == self.type)


def spans(ids: np.ndarray, splits: np.ndarray, tags: TagSet) -> Spans:
    """Return the spans of tagged rows.

    Args:
        ids: Tags of all words, rows one after the other, shape (num_words,).
        splits: Where each row begins, and the last one's end, shape (num_rows + 1,).
        tags: What the tags mean.
    """
    import numpy as np

    types = tags.type_of[ids]
    if tags.is_plain or not len(ids):
        every = np.arange(len(ids))
        return Spans(every, every, types)
    opens, closes = _borders(splits)
    inside = types >= 0
    changes = opens.copy()
    changes[1:] |= types[1:] != types[:-1]
    start = inside & (changes | tags.begins[ids])
    end = closes.copy()
    end[:-1] |= start[1:] | (types[1:] != types[:-1])
    first = np.flatnonzero(start)
    return Spans(first, np.flatnonzero(inside & end), types[first])


def _borders(splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which words are the first, and the last, of their row."""
    import numpy as np

    first, last = np.zeros(splits[-1], bool), np.zeros(splits[-1], bool)
    has = splits[1:] > splits[:-1]
    first[splits[:-1][has]], last[splits[1:][has] - 1] = True, True
    return first, last


# -- legal sequences -----------------------------------------------------------------------------------


def illegal_words(ids: np.ndarray, splits: np.ndarray, tags: TagSet) -> np.ndarray:
    """Return the words whose tag is I-X where neither B-X nor I-X is before it, ascending."""
    import numpy as np

    if tags.is_plain or not len(ids):
        return np.array([], dtype=np.int64)
    types = tags.type_of[ids]
    follows = np.zeros(len(ids), bool)
    follows[1:] = types[1:] == types[:-1]
    follows &= ~_borders(splits)[0]
    return np.flatnonzero((types >= 0) & ~tags.begins[ids] & ~follows)


def best_legal(scores: np.ndarray, splits: np.ndarray, tags: TagSet) -> np.ndarray:
    """Return each row's most probable legal sequence of tags, shape (num_words,).

    Viterbi (1967), https://doi.org/10.1109/TIT.1967.1054010, with no weights on transitions but 0 for illegal ones.
    A row whose most probable tags are legal already has them; only the others are searched.

    Args:
        scores: Probabilities, shape (num_words, num_tags).
        splits: As for `spans`.
        tags: What the tags mean.
    """
    import numpy as np

    ids = scores.argmax(-1)
    wrong = illegal_words(ids, splits, tags)
    if not len(wrong):
        return ids
    rows = np.unique(np.searchsorted(splits, wrong, side="right") - 1)
    rows = rows[np.argsort(np.diff(splits)[rows], kind="stable")]
    while len(rows):
        longest = np.diff(splits)[rows[-1]]
        count = min(len(rows), max(1, PADDED_WORDS // int(longest)))
        _decode(scores, ids, splits, rows[-count:], tags)
        rows = rows[:-count]
    return ids


def _decode(scores: np.ndarray, ids: np.ndarray, splits: np.ndarray, rows: np.ndarray, tags: TagSet) -> None:
    """Write the best legal sequences of some rows into `ids`."""
    import numpy as np

    lengths = np.diff(splits)[rows]
    columns = np.arange(lengths.max())
    real = columns < lengths[:, None]
    places = np.where(real, splits[rows][:, None] + columns, 0)
    logs = np.log(np.maximum(scores[places], SMALLEST))
    ids[places[real]] = _viterbi(logs, real, tags)[real]


def _viterbi(logs: np.ndarray, real: np.ndarray, tags: TagSet) -> np.ndarray:
    """Return the best legal tags, shape (num_rows, num_words).

    Args:
        logs: Log-probabilities, shape (num_rows, num_words, num_tags).
        real: Which words are there, shape (num_rows, num_words).
        tags: What the tags mean.
    """
    import numpy as np

    num_rows, num_words, num_tags = logs.shape
    rows, unchanged = np.arange(num_rows), np.arange(num_tags)
    best = logs[:, 0].copy()
    best[:, tags.inner] = -np.inf
    came_from = np.empty((num_words, num_rows, num_tags), np.int64)
    for word in range(1, num_words):
        before = best.argmax(1)
        origin = np.repeat(before[:, None], num_tags, axis=1)
        value = np.repeat(best[rows, before][:, None], num_tags, axis=1)
        begun, going_on = best[:, tags.begin_of], best[:, tags.inner]
        origin[:, tags.inner] = np.where(begun >= going_on, tags.begin_of, tags.inner)
        value[:, tags.inner] = np.maximum(begun, going_on)
        here = real[:, word, None]
        best = np.where(here, value + logs[:, word], best)
        came_from[word] = np.where(here, origin, unchanged)
    chosen = np.empty((num_rows, num_words), np.int64)
    chosen[:, -1] = best.argmax(1)
    for word in range(num_words - 1, 0, -1):
        chosen[:, word - 1] = came_from[word, rows, chosen[:, word]]
    return chosen
