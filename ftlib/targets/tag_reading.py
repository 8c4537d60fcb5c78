"""Tags as sources write them, read into one form: BIO, or plain tags.

    scheme  an entity of two words, next to one of a word, of the same type
    bio     B-PER I-PER B-PER     every span begins with B
    iob1    I-PER I-PER B-PER     B only where a span follows another of its type (CoNLL 2003 as distributed)
    bioes   B-PER E-PER S-PER     the last word and the only word have marks of their own (BILOU, BMES alike)
    plain   NNP NNP NNP           no spans: parts of speech

Tjong Kim Sang & Veenstra (1999), "Representing Text Chunks", https://aclanthology.org/E99-1023; BILOU: Ratinov & Roth
(2009), https://aclanthology.org/W09-1119.

A tag that cannot stand where it is (I-PER after O) is read as conlleval reads it: it begins a span.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ftlib.errors import DataError
from ftlib.targets import reading as read
from ftlib.targets.tag_spans import OUTSIDE, is_bio

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.base import Column

Scheme = Literal["auto", "bio", "bioes", "iob1", "plain"]

PREFIXED = re.compile(r"(?s)([BIESLUM])-(.+)")
CODES = {"B": 1, "I": 2, "M": 2, "E": 3, "L": 3, "S": 4, "U": 4}
BEGIN, INSIDE, END, SINGLE = 1, 2, 3, 4
UNKNOWN = -1
MISSING = "missing tags"
MISSING_TAG = "missing tag"
MARKED_RATIO = 0.5
"""Of the tags other than O: where fewer begin with B-, I-..., all are plain."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Words:
    """The tags of all rows, one after the other.

    Attributes:
        names: The different tags.
        ids: Each word's, as a position in `names`; -1 where it is missing. Shape (num_words,).
        splits: Where each row begins, and the last one's end, shape (num_rows + 1,).
        missing: Which rows have no tags at all, bool, shape (num_rows,).
    """

    names: list[str]
    ids: np.ndarray
    splits: np.ndarray
    missing: np.ndarray

    @property
    def row_of(self) -> np.ndarray:
        """Each word's row."""
        import numpy as np

        return np.repeat(np.arange(len(self.splits) - 1), np.diff(self.splits))

    def shown(self, word: int) -> str:
        """Return a word's tag."""
        return self.names[self.ids[word]] if self.ids[word] >= 0 else "nothing"


def as_lists(column: Column) -> pa.Array:
    """Return a column of tags as lists of text; text is split at white space.

    Raises:
        DataError: If it holds neither lists nor text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array = read.flat(column)
    if pa.types.is_null(array.type):
        return array.cast(pa.list_(pa.string()))
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return pc.split_pattern_regex(pc.utf8_trim_whitespace(array.cast(pa.string())), r"\s+")
    if not read.is_list(array) or pa.types.is_nested(array.type.value_type):
        raise DataError(f"tags of type {array.type} cannot be read; expected a list of tags a row.")
    names = read.names(read.flat(array.flatten()))
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return pa.ListArray.from_arrays(_offsets(lengths), names, mask=array.is_null())


def read_tags(
    column: Column, scheme: Scheme, labels: tuple[str, ...], *, reject_illegal: bool
) -> tuple[pa.Array, pa.Array]:
    """Return tags in BIO, or plain (list<string>, null where they cannot be used), and why rows cannot be used.

    Args:
        column: Lists of names, or of ids (positions in `labels`), a row.
        scheme: What they are written in; auto finds out.
        labels: The tags that there are, () where they are not known.
        reject_illegal: Whether a sequence that its scheme does not allow is a reason; else it is repaired.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    words = _words(as_lists(column), labels)
    scheme = scheme_of(words, labels) if scheme == "auto" else scheme
    reasons = _Reasons(words)
    reasons.add_words(_where_true(words.ids < 0), lambda word: MISSING_TAG)
    names, ids = (words.names, words.ids) if scheme == "plain" else _as_bio(words, scheme, reject_illegal, reasons)
    if labels:
        strange = [name not in labels for name in names]
        reasons.add_words(_where(ids, strange), lambda word: f"unknown label {names[ids[word]]!r}")
    told = reasons.column()
    values = pa.array(names, pa.string()).take(pa.array(ids, mask=ids < 0))
    lists = pa.ListArray.from_arrays(_offsets(words.splits[1:] - words.splits[:-1]), values)
    return pc.if_else(told.is_null(), lists, pa.scalar(None, lists.type)), told


def scheme_of(words: Words, labels: tuple[str, ...]) -> Scheme:
    """Return the scheme that tags are written in, by the tags known already or by those at hand."""
    import numpy as np

    counts = np.bincount(words.ids[words.ids >= 0], minlength=len(words.names))
    marks = [PREFIXED.fullmatch(name) for name in words.names]
    if labels:
        plain = not is_bio(labels)
    else:
        tagged = sum(n for n, name in zip(counts, words.names, strict=True) if name != OUTSIDE)
        marked = sum(n for n, mark in zip(counts, marks, strict=True) if mark)
        plain = bool(tagged) and marked < MARKED_RATIO * tagged
    if plain:
        return "plain"
    return "bioes" if any(mark and mark[1] not in "BI" for mark in marks) else _bio_or_iob1(words)


def _bio_or_iob1(words: Words) -> Scheme:
    """Return iob1 where a B only ever follows its own type, and some span begins with I."""
    codes, types, _ = _parts(words)
    follows = _follows(types, words.splits) & (codes > 0)
    lone_begin = ((codes == BEGIN) & ~follows).any()
    return "iob1" if not lone_begin and ((codes == INSIDE) & ~follows).any() else "bio"


# -- to BIO --------------------------------------------------------------------------------------------


def _as_bio(words: Words, scheme: Scheme, reject: bool, reasons: _Reasons) -> tuple[list[str], np.ndarray]:
    """Return the tags in BIO, as names and ids, and note what cannot be read, or may not be."""
    import numpy as np

    codes, types, kinds = _parts(words)
    reasons.add_words(_where_true(codes == UNKNOWN), lambda word: f"unknown tag {words.shown(word)!r}: expected O, or "
                                                               "B-, I-... and a type")  # fmt: skip
    closed = (codes == END) | (codes == SINGLE)
    goes_on = _follows(types, words.splits) & ~_before(closed, words.splits)
    goes_on &= (codes == INSIDE) | (codes == END)
    wrong = _where_true(_illegal(codes, goes_on, words.splits, scheme))
    if reject:
        reasons.add_words(wrong, lambda word: _told(words, word))
    elif len(wrong):
        rows = len(np.unique(words.row_of[wrong]))
        logger.warning(
            "%s rows have tags that cannot follow each other; repaired as conlleval reads them.", f"{rows:,}"
        )
    names = [OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]
    return names, np.where(codes <= 0, np.where(words.ids < 0, -1, 0), 1 + 2 * types + goes_on)


def _illegal(codes: np.ndarray, goes_on: np.ndarray, splits: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Return which words have a tag that cannot stand there; in IOB1 every one can."""
    import numpy as np

    if scheme == "iob1":
        return np.zeros(len(codes), bool)
    alone = ((codes == INSIDE) | (codes == END)) & ~goes_on
    if scheme == "bio":
        return alone
    is_open = (codes == BEGIN) | (codes == INSIDE)
    last = np.zeros(len(codes), bool)
    last[splits[1:][splits[1:] > splits[:-1]] - 1] = True
    return alone | (_before(is_open, splits) & ~goes_on) | (is_open & last)


def _told(words: Words, word: int) -> str:
    row = int(words.row_of[word])
    place = word - int(words.splits[row])
    before = repr(words.shown(word - 1)) if place else "the beginning"
    after = "" if word + 1 < words.splits[row + 1] else ", the last one"
    return f"misplaced tag {words.shown(word)!r} after {before}, word {place + 1:,}{after}"


def _parts(words: Words) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return each word's mark (0 for O, -1 where it is none), its type (-1 for none), and the types."""
    import numpy as np

    marks = [PREFIXED.fullmatch(name) for name in words.names]
    kinds = sorted({mark[2] for mark in marks if mark})
    known = [CODES[m[1]] if m else 0 if n == OUTSIDE else UNKNOWN for m, n in zip(marks, words.names, strict=True)]
    numbers = [kinds.index(mark[2]) if mark else -1 for mark in marks]
    codes = np.array([*known, UNKNOWN])[words.ids]  # a missing tag, -1, reads the last one
    return np.where(words.ids < 0, 0, codes), np.array([*numbers, -1])[words.ids], kinds


def _before(values: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Return each word's predecessor's value, False for the first of a row."""
    import numpy as np

    shifted = np.zeros(len(values), bool)
    shifted[1:] = values[:-1]
    shifted[splits[:-1][splits[1:] > splits[:-1]]] = False
    return shifted


def _follows(types: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Return which words come after one of their own type."""
    import numpy as np

    same = np.zeros(len(types), bool)
    same[1:] = (types[1:] == types[:-1]) & (types[1:] >= 0)
    return same & _before(np.ones(len(types), bool), splits)


# -- columns -------------------------------------------------------------------------------------------


def _words(lists: pa.Array, labels: tuple[str, ...]) -> Words:
    import numpy as np
    import pyarrow.compute as pc

    encoded = lists.flatten().dictionary_encode()
    ids = np.asarray(pc.fill_null(encoded.indices, -1), dtype=np.int64)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
    names = [_by_id(name, labels) for name in encoded.dictionary.to_pylist()]
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Words(names, ids, splits, np.asarray(lists.is_null()))


def _by_id(name: str, labels: tuple[str, ...]) -> str:
    """Return the label that an id stands for; a name as it is."""
    is_id = name.isascii() and name.isdigit() and not any(label.isdigit() for label in labels)
    return labels[int(name)] if is_id and int(name) < len(labels) else name


def _offsets(lengths: np.ndarray) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _where_true(mask: np.ndarray) -> np.ndarray:
    """Return where a mask holds."""
    import numpy as np

    return np.flatnonzero(mask)


def _where(ids: np.ndarray, strange: list[bool]) -> np.ndarray:
    import numpy as np

    return np.flatnonzero(np.array([*strange, False])[ids])


class _Reasons:
    """Why rows cannot be used; a row's first reason counts.

    Args:
        words: The rows' tags.
    """

    def __init__(self, words: Words) -> None:
        self._row_of = words.row_of
        self._told: list[str | None] = [MISSING if missing else None for missing in words.missing.tolist()]

    def add_words(self, words: np.ndarray, reason: object) -> None:
        """Add the reason of each row's first word among these."""
        import numpy as np

        rows, first = np.unique(self._row_of[words], return_index=True)
        for row, word in zip(rows.tolist(), words[first].tolist(), strict=True):
            self._told[row] = self._told[row] or reason(word)  # type: ignore[operator]

    def column(self) -> pa.Array:
        """Return a reason a row, null where it is fine."""
        import pyarrow as pa

        return pa.array(self._told, pa.string())
