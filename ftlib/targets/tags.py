"""A tag for each word: softmax over the tags, scored by the spans that they make.

The unit is the word, and fusions see one label a word. Answers are decoded row by row, so that no illegal sequence
comes out. Precision, recall and F1 are strict: a span counts where its words and its type are right, as in conlleval
and in seqeval's default mode (https://github.com/chakki-works/seqeval), whatever scheme the source is written in,
since all are read into BIO. Plain tags (parts of speech) are scored word by word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ftlib.targets import reading as read
from ftlib.targets import tag_reading
from ftlib.targets.base import Target
from ftlib.targets.losses import IGNORED, PLAIN, LossShape, cross_entropy, two_way_divergence
from ftlib.targets.metrics import Metric, clipped
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.tag_reading import Scheme
from ftlib.targets.tag_spans import BIO, OUTSIDE, Spans, TagSet, best_legal, is_bio, spans, tag_set

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.base import Column

WORDS = ("accuracy", "log_loss")
OF_SPANS = ("f1", "precision", "recall", "f1_macro", "precision_macro", "recall_macro", "f1_weighted", *WORDS)
OF_WORDS = ("accuracy", "f1_macro", "precision_macro", "recall_macro", "f1_weighted", "log_loss")


@dataclass(frozen=True)
class Tags(Target):
    """A tag for each word: softmax and cross-entropy; spans count."""

    kind: ClassVar[str] = "tags"
    counts_right_rows: ClassVar[frozenset[str]] = frozenset()

    scheme: Scheme = "auto"
    """What sources are written in; auto finds out."""

    illegal_tags: Literal["repair", "reject"] = "repair"
    """What becomes of a sequence that its scheme does not allow."""

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        """F1 of spans; of plain tags, accuracy."""
        return "accuracy" if self.is_plain else "f1"

    @property
    def is_plain(self) -> bool:
        """Whether tags are no spans: as the scheme says, or the tags themselves."""
        return self.scheme == "plain" or (self.scheme == "auto" and bool(self.labels) and not is_bio(self.labels))

    @property
    def tags(self) -> TagSet:
        """What the tags mean."""
        return tag_set(self.labels, self.is_plain)

    @property
    def _word(self) -> SingleLabel:
        return SingleLabel(self.labels)

    # -- rows and units ----------------------------------------------------------------------------

    @property
    def unit_kind(self) -> str:
        """A word has one tag."""
        return "single_label"

    # -- labels in ---------------------------------------------------------------------------------

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read lists of tags, or of their ids, in any scheme: into BIO, or plain ones (list<string>)."""
        known = self.labels if self.is_plain else closed(self.labels)
        return tag_reading.read_tags(column, self.scheme, known, reject_illegal=self.illegal_tags == "reject")

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return the tags in use, O first; of each type of span both B and I."""
        found = read.in_order(read.as_list(read.flat(read.flat(column).flatten().unique())))
        if self.scheme == "plain" or not is_bio(found):
            return found
        outside = tuple(tag for tag in found if tag == OUTSIDE)
        types = sorted({part[2] for part in map(BIO.fullmatch, found) if part})
        return (*outside, *(f"{mark}-{kind}" for kind in types for mark in "BI"))

    def encode(self, column: Column) -> np.ndarray:
        """Return the tags' ids, int64, of all words one after the other, shape (num_words,)."""
        array = read.flat(column)
        read.check_complete(array)
        return read.ids(read.flat(array.flatten()), self.labels)

    # -- training ----------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the cross-entropy, mean over the tokens that have a label.

        Args:
            logits: Shape (batch_size, num_tokens, num_labels).
            labels: Shape (batch_size, num_tokens); -100 where a token has none.
            shape: How tags count.
        """
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), shape)

    def consistency(self, one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
        """Return both divergences, mean over the tokens that have a label."""
        known = labels != IGNORED
        return two_way_divergence(one[known], other[known])

    def prior_logits(self, labels: np.ndarray, shape: LossShape = PLAIN) -> np.ndarray:
        """Return the logarithms of the tags' shares of all words, around 0."""
        return self._word.prior_logits(labels, shape)

    def balanced_weights(self, labels: np.ndarray) -> tuple[float, ...]:
        """Return words / (tags x words of the tag); 0 for a tag without words."""
        return self._word.balanced_weights(labels)

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the Kullback-Leibler divergence of softened probabilities, mean over words.

        Args:
            student_logits: Shape (num_words, num_labels).
            teacher_logits: The same shape.
            temperature: Softness.
        """
        return self._word.distillation_loss(student_logits, teacher_logits, temperature)

    # -- scores and answers ------------------------------------------------------------------------

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return each word's probabilities by softmax over the tags."""
        return self._word.scores(logits)

    def mean_logits(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logarithm of the mean probabilities."""
        return self._word.mean_logits(logits)

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the ids of each row's most probable legal tags, shape (num_words,)."""
        return scores.argmax(-1) if self.is_plain else best_legal(scores, self.laid_out.splits, self.tags)

    def decode(self, scores: np.ndarray) -> list[list[str]]:
        """Return each row's tags."""
        names = [self.labels[i] for i in self.predicted(scores)]
        splits = self.laid_out.splits.tolist()
        return [names[start:stop] for start, stop in pairwise(splits)]

    def spans(self, scores: np.ndarray) -> Spans:
        """Return the spans that scores stand for."""
        return spans(self.predicted(scores), self.laid_out.splits, self.tags)

    def answer_type(self) -> pa.DataType:
        """Return lists of tags."""
        import pyarrow as pa

        return pa.list_(pa.string())

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability of each row's least sure tag; 1 where there is no word."""
        import numpy as np

        layout = self.laid_out
        chosen = np.take_along_axis(scores, self.predicted(scores)[:, None], axis=1)[:, 0]
        least = np.ones(layout.num_rows)
        np.minimum.at(least, layout.row_of, chosen)
        return least

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return the rows of which every tag is right."""
        return self._no_word(self.predicted(scores) != references)

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return the sum of each row's log-losses, word by word."""
        return self.laid_out.sums(self._losses(scores, references))

    def same(self, scores: np.ndarray, other_scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return the rows that two models tag alike."""
        return self._no_word(self.predicted(scores) != self.predicted(other_scores))

    def _no_word(self, found: np.ndarray) -> np.ndarray:
        return self.laid_out.sums(found) == 0

    def _losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        import numpy as np

        return -np.log(np.take_along_axis(clipped(scores), references[:, None], axis=1)[:, 0])

    # -- strata ------------------------------------------------------------------------------------

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return each row's rarest type of span, and one number more for rows without any."""
        import numpy as np

        there = self._per_row(spans(references, self.laid_out.splits, self.tags))
        totals = there.sum(0)
        rarest = np.where(there > 0, totals, np.inf).argmin(1) if len(totals) else np.zeros(len(there), np.int64)
        return np.where(there.any(1), rarest, len(totals))

    def strata_column(self, column: Column) -> Column | None:
        """Return the types that each row has, each once."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        array = read.flat(column)
        encoded = read.flat(array.flatten()).dictionary_encode()
        tags = encoded.dictionary.to_pylist()
        kinds = [_type(tag) for tag in tags] if is_bio(tuple(tags)) else tags
        values = sorted({kind for kind in kinds if kind is not None})
        number = np.array([values.index(kind) if kind is not None else -1 for kind in kinds], dtype=np.int64)
        ids = number[np.asarray(encoded.indices)] if len(tags) else np.zeros(0, np.int64)
        rows = np.repeat(np.arange(len(array)), np.asarray(pc.fill_null(pc.list_value_length(array), 0)))
        given = read.gather(values, rows[ids >= 0], ids[ids >= 0], pa.array(np.zeros(len(array), bool)))
        return pa.chunked_array([given])

    # -- metrics -----------------------------------------------------------------------------------

    def measure(
        self, metric: str, scores: np.ndarray, references: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a metric as a function of row counts: answers are decoded once, rows add up."""
        sums = self._sums(scores, self.predicted(scores), references)
        return lambda counts: _value(metric, counts @ sums)

    def _metrics(self) -> dict[str, Metric]:
        return {name: partial(self._metric, name) for name in (OF_WORDS if self.is_plain else OF_SPANS)}

    def _metric(self, name: str, scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float:
        return float(_value(name, self._sums(scores, predicted, references).sum(0, keepdims=True))[0])

    def _sums(self, scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return what each row adds: spans found, given and to find of each type; words right, all, their loss."""
        import numpy as np

        layout, tags = self.laid_out, self.tags
        given, gold = (spans(ids, layout.splits, tags) for ids in (predicted, references))
        hits = given.among(gold, len(references))
        found = Spans(given.first[hits], given.last[hits], given.type[hits])
        words = [predicted == references, np.ones(len(references)), self._losses(scores, references)]
        by_word = layout.sums(np.stack(words, axis=1).astype(np.float64))
        return np.concatenate([*(self._per_row(of) for of in (found, given, gold)), by_word], axis=1)

    def _per_row(self, found: Spans) -> np.ndarray:
        """Return how many spans of each type a row has, shape (num_rows, num_types)."""
        import numpy as np

        layout, size = self.laid_out, len(self.tags.types)
        rows = np.searchsorted(layout.splits, found.first, side="right") - 1
        counts = np.bincount(rows * size + found.type, minlength=layout.num_rows * size)
        return counts.reshape(layout.num_rows, size).astype(np.float64)

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return precision, recall, f1 and support (spans) of each type; of plain tags, of each tag."""
        import numpy as np

        sums = self._sums(scores, self.predicted(scores), references).sum(0)[:-3]
        hits, given, gold = np.split(sums, 3)
        columns = (_over(hits, given), _over(hits, gold), _over(2 * hits, given + gold), gold)
        keys = ("precision", "recall", "f1", "support")
        figures = [dict(zip(keys, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
        return dict(zip(self.tags.types, figures, strict=True))

    # -- the model's config ------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return num_labels, id2label and label2id; transformers has no problem_type for tags."""
        return {name: value for name, value in super().config().items() if name != "problem_type"}


def closed(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return tags with B and I of every type that either is of, in their order."""
    if not is_bio(labels):
        return labels
    wanted = dict.fromkeys(labels)
    for label in labels:
        part = BIO.fullmatch(label)
        if part:
            wanted |= dict.fromkeys((f"B-{part[2]}", f"I-{part[2]}"))
    return tuple(wanted)


def _type(tag: str) -> str | None:
    part = BIO.fullmatch(tag)
    return part[2] if part else None


def _value(metric: str, sums: np.ndarray) -> np.ndarray:
    """Return a metric from sums over rows, shape (num_samples, 3 * num_types + 3) -> (num_samples,)."""
    import numpy as np

    hits, given, gold = np.split(sums[:, :-3], 3, axis=1)
    right, words, losses = sums[:, -3:].T
    if metric in WORDS:
        return _undefined(right if metric == "accuracy" else losses, words)
    score, _, average = metric.partition("_")
    if not average:
        return _score(score, hits.sum(1), given.sum(1), gold.sum(1))
    values = _score(score, hits, given, gold)
    if average == "weighted":
        return _undefined((values * gold).sum(1), gold.sum(1))
    return _undefined(values.sum(1), ((given + gold) > 0).sum(1))


def _score(score: str, hits: np.ndarray, given: np.ndarray, gold: np.ndarray) -> np.ndarray:
    if score == "precision":
        return _over(hits, given)
    return _over(hits, gold) if score == "recall" else _over(2 * hits, given + gold)


def _over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a quotient, 0 where nothing was given, or nothing is to find: as conlleval and seqeval."""
    import numpy as np

    return np.divide(numerator, denominator, out=np.zeros_like(numerator, dtype=np.float64), where=denominator > 0)


def _undefined(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a quotient, NaN where there is nothing to divide by."""
    import numpy as np

    empty = np.full_like(numerator, np.nan, dtype=np.float64)
    return np.divide(numerator, denominator, out=empty, where=denominator > 0)
