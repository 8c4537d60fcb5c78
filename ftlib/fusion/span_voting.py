"""Span voting: members propose whole spans, and those that enough of them propose are taken.

Averaging tags word by word can make a span that no member proposed, or cut one that most did; here a span is voted on
as a whole, its words and its type together. `threshold` is the share of the members that it needs: low ones find more,
high ones are surer. Unless given, it is the one with the best F1 on the held-out rows. Of spans that overlap, the one
with more votes is taken, then the more probable one.

Helps where precision and recall have to be balanced and members make errors of different kinds; with two members, or
very alike ones, a vote says little more than their mean. The scores are the members' mean, but where the vote decides
another tag than the mean does, it gets half of the probability: so the log-loss stays near the mean's.

Only for tags that make spans (token_classification, not plain tags).

Sources: Fiscus (1997), "A post-processing system to yield reduced word error rates: ROVER",
https://doi.org/10.1109/ASRU.1997.659110 (voting on aligned outputs); on entities: Florian, Ittycheriah, Jing & Zhang
(2003), "Named Entity Recognition through Classifier Combination", https://aclanthology.org/W03-0425.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.errors import UnsupportedError
from ftlib.files import write_json
from ftlib.fusion._mean import read_combiner, uniform
from ftlib.fusion.base import Combiner, Fusion
from ftlib.targets.tag_spans import Spans, best_legal, spans, tag_set

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

VOTED = 0.501
"""What the vote's tag gets of the probability where the mean decides another: enough to be the most probable one."""

ROUNDING = 1e-9


class SpanVoting(Fusion):
    """Spans are voted on as a whole."""

    threshold: float | None = Field(None, gt=0, le=1)
    """Share of the members that must propose a span; the best one on the held-out rows unless given."""

    def check(self, target: Target) -> None:
        """Refuse what makes no spans."""
        if target.kind != "tags":
            raise UnsupportedError(
                f"span_voting cannot fuse {target.kind} answers; it fuses tags that make spans (token_classification). "
                "Choose voting or averaging."
            )
        if getattr(target, "is_plain", False):
            raise UnsupportedError("span_voting cannot fuse plain tags, which make no spans; choose voting.")

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> SpanVote:
        """Return the vote, its threshold chosen by F1 where none is given; of equal ones, that nearest to a half."""
        from ftlib.evaluation.measures import value_of

        self.check(target)
        vote = SpanVote(target.labels, len(scores), self.threshold or 1.0)
        if self.threshold is not None:
            return vote
        shares = [(count + 1) / len(scores) for count in range(len(scores))]

        def rank(share: float) -> tuple[float, float]:
            fused = replace(vote, threshold=share)(scores, target.layout)
            return value_of("f1", fused, references, target), -abs(share - 0.5)

        return replace(vote, threshold=max(shares, key=rank))

    @classmethod
    def load(cls, folder: Path) -> SpanVote:
        """Read back the vote."""
        return SpanVote.load(folder)


@dataclass(frozen=True)
class SpanVote(Combiner):
    """The members' vote on spans.

    Attributes:
        labels: The tags.
        num_members: How many vote.
        threshold: Share of the members that a span needs.
    """

    labels: tuple[str, ...]
    num_members: int
    threshold: float

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return the members' mean, changed where the vote decides otherwise, shape (num_words, num_tags)."""
        import numpy as np

        if layout is None:
            raise ValueError("spans are voted on row by row; their layout is needed")
        values = np.asarray(scores, dtype=np.float64)
        mean = values[0].copy()
        for member in values[1:]:  # member by member: a sum over an axis rounds by its length
            mean += member
        mean /= len(values)
        chosen = self._tags(self._elected(values, mean, layout), len(mean))
        rows = np.flatnonzero(mean.argmax(-1) != chosen)
        mean[rows] *= 1 - VOTED
        mean[rows, chosen[rows]] += VOTED
        return mean

    def _elected(self, values: np.ndarray, mean: np.ndarray, layout: Layout) -> Spans:
        """Return the spans with enough votes, none overlapping another."""
        import numpy as np

        tags = tag_set(self.labels, False)
        proposed = [spans(best_legal(member, layout.splits, tags), layout.splits, tags) for member in values]
        every = np.concatenate([np.stack([s.first, s.last, s.type], axis=1) for s in proposed])
        different, votes = np.unique(every, axis=0, return_counts=True)
        enough = votes >= self.threshold * self.num_members - ROUNDING
        kept, votes = different[enough], votes[enough]
        order = np.lexsort((-self._support(kept, mean), -votes))
        return _without_overlap(kept[order], len(mean))

    def _support(self, found: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return the mean log-probability of each span's tags."""
        import numpy as np

        chosen = self._tags_of(found)
        logs = np.log(np.maximum(mean, 1e-300))
        return np.array(
            [logs[a : b + 1][range(b + 1 - a), t].mean() for (a, b, _), t in zip(found, chosen, strict=True)]
        )

    def _tags_of(self, found: np.ndarray) -> list[list[int]]:
        """Return the tags of each span's words."""
        tags = tag_set(self.labels, False)
        begins = {int(tags.type_of[i]): i for i in reversed(range(len(self.labels))) if tags.begins[i]}
        inner = {int(tags.type_of[i]): int(i) for i in tags.inner}
        return [[begins.get(k, inner.get(k, 0)), *[inner.get(k, 0)] * (b - a)] for a, b, k in found.tolist()]

    def _tags(self, elected: Spans, num_words: int) -> np.ndarray:
        """Return a tag for each word: those of the spans, O elsewhere."""
        import numpy as np

        tags = tag_set(self.labels, False)
        outside = np.flatnonzero(tags.type_of < 0)
        chosen = np.full(num_words, outside[0] if len(outside) else 0)
        found = np.stack([elected.first, elected.last, elected.type], axis=1)
        for (first, last, _), names in zip(found.tolist(), self._tags_of(found), strict=True):
            chosen[first : last + 1] = names
        return chosen

    def weights(self) -> list[float]:
        """Return an equal share for every member."""
        return list(uniform(self.num_members))

    def save(self, folder: Path) -> None:
        """Write combiner.json."""
        fields: dict[str, Any] = {"labels": list(self.labels), "num_members": self.num_members}
        write_json(folder / "combiner.json", {"combiner": "span_vote", **fields, "threshold": self.threshold})

    @classmethod
    def load(cls, folder: Path) -> SpanVote:
        """Read combiner.json."""
        value = read_combiner(folder, "span_vote")
        return cls(tuple(value["labels"]), value["num_members"], value["threshold"])


def _without_overlap(found: np.ndarray, num_words: int) -> Spans:
    """Return the spans that do not overlap an earlier one, ordered by place."""
    import numpy as np

    taken = np.zeros(num_words, bool)
    kept = []
    for place, (first, last, _) in enumerate(found.tolist()):
        if not taken[first : last + 1].any():
            taken[first : last + 1] = True
            kept.append(place)
    chosen = found[sorted(kept, key=lambda place: found[place, 0])] if kept else found[:0]
    return Spans(*chosen.T)
