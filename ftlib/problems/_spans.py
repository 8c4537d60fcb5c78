"""Spans: what a model says of a context's characters, and the candidates that several models have of an answer.

A prediction is two distributions over the places of a context: where the answer begins and where it ends. Tokens
differ from model to model, characters do not: so places are characters, and a model gives a character the probability
of its token that covers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KEPT = 1e-6
"""Tokens with a smaller probability of being the first and of being the last are not kept."""

ELSEWHERE = 1e-7
"""The probability of a place that was not kept."""


@dataclass(frozen=True, eq=False)
class Window:
    """What a model says of one window: logits of the tokens of the context, less the logits of "not in here".

    Attributes:
        starts: Where each token begins in the context, shape (num_tokens,).
        ends: Where it ends.
        logits: Being the first, being the last, shape (num_tokens, 2).
    """

    starts: np.ndarray
    ends: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, char_starts: np.ndarray, char_ends: np.ndarray, logits: np.ndarray) -> Window:
        """Return a window from the logits of all of its tokens, the first of which stands for "not in here"."""
        import numpy as np

        inside = np.flatnonzero(char_starts >= 0)
        return cls(char_starts[inside], char_ends[inside], logits[inside].astype(np.float64) - logits[0])


@dataclass(frozen=True, eq=False)
class AnswerPlaces:
    """Where an answer begins and ends, by one model; what is missing to 1 is spread thinly over all other places.

    Attributes:
        starts: Where each token that was kept begins in the context, ascending.
        ends: Where it ends.
        first: The probability that the answer begins with it, shape (num_tokens,).
        last: The probability that the answer ends with it.
        none: The probabilities, by the one and by the other, that there is no answer, shape (2,).
    """

    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    last: np.ndarray
    none: np.ndarray

    @classmethod
    def of(cls, windows: Sequence[Window], *, no_answer: bool, bias: float = 0.0) -> AnswerPlaces:
        """Return one distribution over all windows of a context.

        A window is trained to say "not in here" where the answer is not in it. Taking windows as independent, and the
        answer as being in one of them or in none, the odds of a place against "nowhere" are its odds against "not in
        here" in its window, which is the one that shows most of the text around it.

        Args:
            windows: In order.
            no_answer: Whether there may be no answer; else places share all of the probability.
            bias: Added to the log-odds of there being none.
        """
        import numpy as np
        from scipy.special import logsumexp

        starts, ends, logits = (
            np.concatenate([getattr(w, name) for w in windows]) for name in ("starts", "ends", "logits")
        )
        first, last = chosen_places(windows)
        chosen = np.stack([logits[first, 0], logits[last, 1]], axis=1)
        if no_answer:
            chosen = np.concatenate([chosen, np.full((1, 2), bias / 2)])
        shares = np.exp(chosen - logsumexp(chosen, axis=0)) if len(chosen) else chosen
        none = shares[-1] if no_answer else np.zeros(2)
        shares = shares[: len(first)]
        kept = (shares >= KEPT).any(1)
        return cls(starts[first][kept], ends[first][kept], shares[kept, 0], shares[kept, 1], none)

    def at(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the probabilities that the answer begins and ends at characters, shape (num_spans, 2).

        Args:
            starts: The first character of each span; -1 where it stands for no answer.
            ends: The one after its last.
        """
        import numpy as np

        found = np.stack([self._covering(self.first, starts), self._covering(self.last, ends - 1)], axis=1)
        return np.where(starts[:, None] < 0, self.none, found)

    def _covering(self, values: np.ndarray, characters: np.ndarray) -> np.ndarray:
        import numpy as np

        if not len(self.starts):
            return np.full(len(characters), ELSEWHERE)
        places = np.searchsorted(self.starts, characters, side="right") - 1
        covers = (places >= 0) & (self.ends[places] > characters)
        return np.where(covers, np.maximum(values[places], ELSEWHERE), ELSEWHERE)

    def likely(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the most probable beginnings and ends, as characters."""
        import numpy as np

        return (
            self.starts[np.argsort(-self.first, kind="stable")[:number]],
            self.ends[np.argsort(-self.last, kind="stable")[:number]],
        )


def chosen_places(windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens, of all windows one after the other, speak for a place: of beginnings, and of ends.

    A place in several windows is that of the one which shows most of the text around it.
    """
    import numpy as np

    starts, ends = (np.concatenate([getattr(w, name) for w in windows]) for name in ("starts", "ends"))
    inner = np.concatenate([np.minimum(np.arange(len(w.starts)), np.arange(len(w.starts))[::-1]) for w in windows])
    order = np.arange(len(starts))
    first = _one_each(np.lexsort((order, -inner, ends, starts)), starts, ends)
    last = _one_each(np.lexsort((-order, -inner, ends, starts)), starts, ends)  # pieces of a character: the last
    return first, last


def _one_each(order: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the first of each place, in an order that has equal places side by side."""
    import numpy as np

    new = np.ones(len(order), bool)
    new[1:] = (np.diff(starts[order]) != 0) | (np.diff(ends[order]) != 0)
    return order[new]


# -- as a table ----------------------------------------------------------------------------------------


def table(row_ids: Sequence[int], rows: Sequence[AnswerPlaces]) -> pa.Table:
    """Return a member's predictions: one line a row."""
    import numpy as np
    import pyarrow as pa

    offsets = pa.array(np.concatenate([[0], np.cumsum([len(row.starts) for row in rows])]), pa.int32())

    def lists(name: str, kind: pa.DataType) -> pa.Array:
        flat = np.concatenate([getattr(row, name) for row in rows]) if rows else np.empty(0)
        return pa.ListArray.from_arrays(offsets, pa.array(flat).cast(kind, safe=False))

    none = np.stack([row.none for row in rows]) if rows else np.empty((0, 2))
    return pa.table(
        {
            "row_id": pa.array(row_ids, pa.int64()),
            "starts": lists("starts", pa.int32()),
            "ends": lists("ends", pa.int32()),
            "first": lists("first", pa.float32()),
            "last": lists("last", pa.float32()),
            "none_first": pa.array(none[:, 0], pa.float32()),
            "none_last": pa.array(none[:, 1], pa.float32()),
        }
    )


def read(predictions: pa.Table) -> list[AnswerPlaces]:
    """Return what `table` wrote."""
    import numpy as np

    columns = {name: _lists(predictions[name]) for name in ("starts", "ends", "first", "last")}
    none = np.stack([predictions[name].to_numpy() for name in ("none_first", "none_last")], axis=1).astype(np.float64)
    lines = zip(*columns.values(), none, strict=True)
    return [
        AnswerPlaces(s.astype(np.int64), e.astype(np.int64), f.astype(float), i.astype(float), n)
        for s, e, f, i, n in lines
    ]


def _lists(column: Any) -> list[np.ndarray]:
    import numpy as np
    import pyarrow.compute as pc

    array = column.combine_chunks()
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return (
        np.split(flat, np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))[:-1]) if len(array) else []
    )


# -- candidates ----------------------------------------------------------------------------------------


def candidates(members: Sequence[AnswerPlaces], *, number: int, max_length: int, no_answer: bool) -> np.ndarray:
    """Return the spans among which an answer is chosen, shape (num_spans, 2), at least one.

    They are the best of each member and the best of the members' averaged distributions. No answer comes first, as
    (-1, -1); then by beginning, the longer before the shorter: of spans whose ends a member's tokens cannot tell
    apart it so chooses its own.

    Args:
        members: What each one says of the same context.
        number: Spans of each member, and of their average.
        max_length: Characters of a span.
        no_answer: Whether there may be none.
    """
    import numpy as np

    likely = [member.likely(number) for member in members]
    first, last = (np.unique(np.concatenate(part)) for part in zip(*likely, strict=True))
    begins = np.stack([member._covering(member.first, first) for member in members])
    finishes = np.stack([member._covering(member.last, last - 1) for member in members])
    length = last[None] - first[:, None]
    allowed = (length > 0) & (length <= max_length)
    found = {(-1, -1)} if no_answer else set()
    for begin, finish in zip((*begins, begins.mean(0)), (*finishes, finishes.mean(0)), strict=True):
        support = np.where(allowed, begin[:, None] * finish[None], -1.0).ravel()
        best = np.argsort(-support, kind="stable")[:number]
        found |= {(int(first[i // len(last)]), int(last[i % len(last)])) for i in best[support[best] > 0]}
    ordered = sorted(found or _one_token(members), key=lambda span: (span[0], -span[1]))
    return np.array(ordered, np.int64)


def _one_token(members: Iterable[AnswerPlaces]) -> set[tuple[int, int]]:
    """Return a member's likeliest token alone, for the case that no likely end follows a likely beginning."""
    for member in members:
        if len(member.starts):
            best = int((member.first * member.last).argmax())
            return {(int(member.starts[best]), int(member.ends[best]))}
    return {(-1, -1)}


# -- teaching ------------------------------------------------------------------------------------------


def taught(teachers: Sequence[AnswerPlaces], char_starts: np.ndarray, char_ends: np.ndarray) -> np.ndarray:
    """Return what a student is to say of a window: logarithms of probabilities, shape (num_tokens, 2).

    A teacher's probability goes to the student's token that covers the same character; what it gives to places
    outside of the window, and to there being no answer, goes to the first token: "not in here".

    Args:
        teachers: What each one says of the context; their mean counts.
        char_starts: AnswerPlaces of the student's tokens, -1 outside of the context.
        char_ends: The same.
    """
    import numpy as np

    inside = np.flatnonzero(char_starts >= 0)
    shares = np.zeros((len(char_starts), 2))
    for teacher in teachers:
        for column, (values, characters) in enumerate(
            ((teacher.first, teacher.starts), (teacher.last, teacher.ends - 1))
        ):
            places = np.searchsorted(char_starts[inside], characters, side="right") - 1
            covers = (places >= 0) & (char_ends[inside][places] > characters) if len(inside) else places > len(places)
            np.add.at(shares[:, column], inside[places[covers]], values[covers] / len(teachers))
    shares[0] = np.maximum(1 - shares[inside].sum(0), 0)
    return np.log(np.maximum(shares, ELSEWHERE))
