"""What is told of candidates beside each member's support of them: features that a stack ranks them by.

A target names those that make sense for its candidates (`Target.candidate_features`). Each is a number a candidate,
made of the members' support and of the layout's units alone, so that a served model finds it too:

    mixture       logarithm of the candidate's share in the members' mean support: what averaging ranks by
    rank          mean over members of 1 / rank: what counts where members' supports are on scales of their own
    proposals     share of the members that give it any support: how many of them came upon this text
    votes         share of the members that support it most in its row
    length        logarithm of its length in characters against the row's mean candidate
    empty         1 for an answer that says nothing: "the text does not answer this"
    overlap       how much of its place it shares with the row's other candidates, by the members' mean support
    likeness:NAME how like the row's other texts it is, by the members' mean support: what minimum Bayes risk
                  ranks by (NAME: chrf, bleu, rougeL)

Features beside probability, for ranking candidates anew: Och et al. (2004), "A Smorgasbord of Features for Statistical
Machine Translation", https://aclanthology.org/N04-1021; Collins & Koo (2005), "Discriminative Reranking for Natural
Language Parsing", https://aclanthology.org/J05-1003.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.layout import Layout
    from ftlib.targets.text_metrics import Quality

    Feature = Callable[[np.ndarray, Layout], np.ndarray]

TEXT, START, END = "text", "start", "end"
"""Columns of a layout's units."""

NEGLIGIBLE = 1e-6
"""Support up to it is none."""


def describe(names: Sequence[str], scores: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the features of every candidate, shape (num_units, num_features).

    Args:
        names: See the module's docstring.
        scores: Of the members, shape (num_members, num_units, num_factors).
        layout: Which candidates each row has.
    """
    import numpy as np

    columns = [_feature(name)(scores, layout) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((scores.shape[1], 0))


def _feature(name: str) -> Feature:
    kind, _, utility = name.partition(":")
    return _likeness(utility) if utility else FEATURES[kind]  # type: ignore[arg-type]


# -- of support alone ----------------------------------------------------------------------------------


def _shares(scores: np.ndarray, layout: Layout) -> np.ndarray:
    """Return each candidate's share in its row's support by the members' mean, shape (num_units,); 0 of nothing."""
    import numpy as np

    mean = (scores.sum(0) / len(scores)).prod(-1)
    total = layout.sums(mean)[layout.row_of]
    return np.divide(mean, total, out=np.zeros(len(mean)), where=total > 0)


def _mixture(scores: np.ndarray, layout: Layout) -> np.ndarray:
    import numpy as np

    return np.log(np.maximum(_shares(scores, layout), NEGLIGIBLE))


def _ranks(support: np.ndarray, layout: Layout) -> np.ndarray:
    """Return how many of the row's candidates a member supports more, plus 1, shape (num_members, num_units)."""
    import numpy as np

    row_of, found = layout.row_of, np.empty(support.shape)
    for member, values in zip(found, support, strict=True):
        order = np.lexsort((-values, row_of))
        rows, ordered = row_of[order], values[order]
        new = np.ones(len(order), bool)
        new[1:] = (rows[1:] != rows[:-1]) | (ordered[1:] != ordered[:-1])
        first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))  # of those it is equal to
        member[order] = first - layout.splits[rows] + 1
    return found


def _rank(scores: np.ndarray, layout: Layout) -> np.ndarray:
    import numpy as np

    support = scores.prod(-1)
    return np.where(support > 0, 1 / _ranks(support, layout), 0.0).sum(0) / len(support)


def _proposals(scores: np.ndarray, layout: Layout) -> np.ndarray:
    return (scores.prod(-1) > NEGLIGIBLE).sum(0) / len(scores)


def _votes(scores: np.ndarray, layout: Layout) -> np.ndarray:
    support = scores.prod(-1)
    return ((_ranks(support, layout) == 1) & (support > 0)).sum(0) / len(support)


# -- of what candidates are ----------------------------------------------------------------------------


def _texts(layout: Layout) -> list[str]:
    if layout.units is None:
        raise ValueError("candidates are compared by their texts; their layout's units are needed")
    return layout.units[TEXT].to_pylist()


def _length(scores: np.ndarray, layout: Layout) -> np.ndarray:
    import numpy as np

    lengths = np.array([1 + len(text) for text in _texts(layout)], np.float64)
    mean = layout.sums(lengths) / np.maximum(layout.counts, 1)
    return np.log(lengths / mean[layout.row_of])


def _empty(scores: np.ndarray, layout: Layout) -> np.ndarray:
    import numpy as np

    return np.array([not text for text in _texts(layout)], np.float64)


def _overlap(scores: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the expected F1 of its characters, were the right place drawn from the candidates by their support."""
    import numpy as np

    if layout.units is None:
        raise ValueError("candidates are compared by their places; their layout's units are needed")
    starts, ends = (layout.units[name].to_numpy() for name in (START, END))
    shares, found = _shares(scores, layout), np.zeros(layout.num_units)
    for first, last in _rows(layout):
        s, e = starts[first:last], ends[first:last]
        both = np.minimum(e[:, None], e) - np.maximum(s[:, None], s)
        f1 = 2 * np.maximum(both, 0) / np.maximum((e - s)[:, None] + (e - s), 1)
        f1[(s[:, None] == s) & (e[:, None] == e)] = 1.0  # no answer is like no answer
        found[first:last] = f1 @ shares[first:last]
    return found


def _likeness(utility: Quality) -> Feature:
    def feature(scores: np.ndarray, layout: Layout) -> np.ndarray:
        import numpy as np

        from ftlib.targets.text_metrics import expected_utility

        texts, shares, found = _texts(layout), _shares(scores, layout), np.zeros(layout.num_units)
        for first, last in _rows(layout):
            found[first:last] = expected_utility(texts[first:last], shares[first:last], utility)
        return found

    return feature


def _rows(layout: Layout) -> Iterator[tuple[int, int]]:
    """Return where each row's candidates begin and end."""
    return zip(layout.splits[:-1].tolist(), layout.splits[1:].tolist(), strict=True)


FEATURES: dict[str, Feature] = {
    "mixture": _mixture,
    "rank": _rank,
    "proposals": _proposals,
    "votes": _votes,
    "length": _length,
    "empty": _empty,
    "overlap": _overlap,
}
