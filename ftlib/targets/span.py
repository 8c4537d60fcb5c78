"""An answer that stands in a text: probabilities of where it begins and where it ends.

A unit is a candidate: a stretch of the text (`units`: start, end, text), or no answer (start and end -1, text ""). Its
scores are the probability that the answer begins there and that it ends there; their product is its support.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.targets import reading as read
from ftlib.targets._squad import compared, golds, normalised
from ftlib.targets.base import Target
from ftlib.targets.losses import PLAIN, LossShape, cross_entropy, softened_divergence
from ftlib.targets.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.targets.base import Column
    from ftlib.targets.layout import Layout

F1, EXACT, HAS_ANSWER = range(3)
"""Columns of references."""

SMALLEST = 1e-6
"""Least probability of the right answer that the log-loss counts, so that a row whose right answer is not among the
candidates does not outweigh all others."""

UNREADABLE = "answers are not readable: expected [{text, start}, ...] or {text: [...], answer_start: [...]}"
NO_ANSWER = "no answer (no_answer: true allows such rows)"


@dataclass(frozen=True)
class Span(Target):
    """A stretch of a text, or, with `no_answer`, none: SQuAD 2.0."""

    kind: ClassVar[str] = "span"
    main_metric: ClassVar[str] = "f1"
    counts_right_rows: ClassVar[frozenset[str]] = frozenset({"exact_match"})
    has_labels: ClassVar[bool] = False
    contradicts: ClassVar[bool] = False

    no_answer: bool = False
    """Whether a row may have no answer."""

    @property
    def num_outputs(self) -> int:
        """Two: the answer's beginning and its end."""
        return 2

    # -- rows and units ----------------------------------------------------------------------------

    @property
    def unit_kind(self) -> str:
        """Candidates."""
        return "candidate"

    @property
    def candidate_features(self) -> tuple[str, ...]:
        """How far a span covers the others, and who puts it first; that it is no answer, where it may be none."""
        return ("mixture", "votes", "overlap", *(("empty",) if self.no_answer else ()))

    def _texts(self, units: np.ndarray | None = None) -> list[str]:
        layout = self.laid_out
        if layout.units is None:
            raise ValueError("candidates need their texts: a layout with units")
        texts = layout.units["text"]
        return (texts if units is None else texts.take(units)).to_pylist()

    # -- labels in ---------------------------------------------------------------------------------

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read answers in any of SQuAD's forms, also as JSON text.

        Returns:
            list<{text, start}>; start is -1 where the source does not say it. [] stands for no answer.
        """
        import pyarrow as pa

        found = [_answers(value) for value in column.to_pylist()]
        if not self.no_answer:
            found = [(None, NO_ANSWER) if value == [] else (value, why) for value, why in found]
        answers, reasons = zip(*found, strict=True) if found else ((), ())
        return pa.array(answers, answers_type()), pa.array(reasons, pa.string())

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return (): answers are no labels."""
        return ()

    def encode(self, column: Column) -> np.ndarray:
        """Return how good each candidate is, float64, shape (num_units, 3): F1, exact match, has an answer."""
        import numpy as np

        read.check_complete(read.flat(column))
        texts = iter(self._texts())
        lines: list[tuple[float, float, bool]] = []
        for answers, count in zip(column.to_pylist(), self.laid_out.counts.tolist(), strict=True):
            gold = golds((answer["text"] for answer in answers), no_answer=self.no_answer)
            has = bool(answers)
            for _ in range(count):
                lines.append((*compared(normalised(next(texts)), gold, no_answer=self.no_answer), has))
        return np.array(lines, np.float64).reshape(-1, 3)

    # -- training ----------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
        """Return the mean cross-entropy of where answers begin and end.

        Args:
            logits: Shape (batch_size, length, 2), impossible places far below the others.
            labels: Places of the first and the last token, shape (batch_size, 2).
            shape: How rows count.
        """
        return cross_entropy(logits, labels, shape)

    def distillation_loss(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the Kullback-Leibler divergence of softened places, times the temperature squared.

        Args:
            student_logits: Shape (batch_size, length, 2).
            teacher_logits: The same shape.
            temperature: Softness of both.
        """
        return softened_divergence(student_logits, teacher_logits, temperature, dim=1) / 2

    # -- scores and answers ------------------------------------------------------------------------

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities over the places of one text, shape (..., length, 2) like `logits`."""
        from scipy.special import softmax

        return softmax(logits.astype("float64"), axis=-2)

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the unit that is best supported in each row, shape (num_rows,)."""
        return self.laid_out.best(scores.prod(-1))

    def decode(self, scores: np.ndarray) -> list[str]:
        """Return each row's answer; "" where it has none."""
        return self._texts(self.predicted(scores))

    def gold(self, column: Column) -> pa.Array:
        """Return each row's gold answers, different ones side by side."""
        import pyarrow as pa

        rows = [dict.fromkeys(answer["text"] for answer in row or ()) for row in column.to_pylist()]
        return pa.array([" | ".join(texts) for texts in rows], pa.string())

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """Return the answer's support."""
        return scores.prod(-1)[self.predicted(scores)]

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return which answers match a gold one exactly."""
        return references[self.predicted(scores), EXACT] > 0

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's log-loss: of the share in all support that candidates which match exactly have."""
        import numpy as np

        support = scores.prod(-1)
        right, total = (self.laid_out.sums(part) for part in (support * references[:, EXACT], support))
        return -np.log(np.clip(right / np.maximum(total, 1e-300), SMALLEST, 1.0))

    def same(self, scores: np.ndarray, other_scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return on which rows two models give the same text."""
        import numpy as np

        one, other = self.decode(scores), self.decode(other_scores)
        return np.array([normalised(a) == normalised(b) for a, b in zip(one, other, strict=True)], bool)

    # -- strata ------------------------------------------------------------------------------------

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return whether each row has an answer, 0 or 1."""
        import numpy as np

        return references[self.laid_out.splits[:-1], HAS_ANSWER].astype(np.int64)

    def strata_column(self, column: Column) -> Column | None:
        """Return whether rows have an answer, where some may have none."""
        import pyarrow.compute as pc

        if not self.no_answer:
            return None
        return pc.if_else(pc.greater(pc.list_value_length(column), 0), "answer", "no answer")

    # -- metrics -----------------------------------------------------------------------------------

    def measure(
        self, metric: str, scores: np.ndarray, references: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a metric as a function of row counts: all are means over rows, or over some of them."""
        import numpy as np

        values, counted = self._row_values(metric, scores, references)

        def measured(counts: np.ndarray) -> np.ndarray:
            total = counts @ counted
            return np.where(total > 0, counts @ (values * counted) / np.where(total > 0, total, 1), np.nan)

        return measured

    def _row_values(self, metric: str, scores: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a metric's value for each row, and which rows it counts (1.0 or 0.0)."""
        import numpy as np

        best = references[self.predicted(scores)]
        if metric == "log_loss":
            return self.row_losses(scores, references), np.ones(len(best))
        counted = np.ones(len(best))
        if metric.startswith(("has_answer", "no_answer")):
            counted = best[:, HAS_ANSWER] if metric.startswith("has") else 1 - best[:, HAS_ANSWER]
        return best[:, EXACT if metric.endswith("exact_match") else F1], counted

    def _metrics(self) -> dict[str, Metric]:
        names = ["f1", "exact_match", "log_loss"]
        if self.no_answer:
            names += ["has_answer_f1", "has_answer_exact_match", "no_answer_f1", "no_answer_exact_match"]
        return {name: partial(self._mean, name) for name in names}

    def _mean(self, metric: str, scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
        values, counted = self._row_values(metric, scores, references)
        return float(values @ counted / counted.sum()) if counted.any() else None

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return {}: answers are no labels."""
        return {}

    def config(self) -> dict[str, Any]:
        """Return the config of a model with two outputs a token."""
        names = ("start", "end")
        return {"num_labels": 2, "id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def answers_type() -> pa.DataType:
    """Return what a column of canonical answers holds: list<{text, start}>."""
    import pyarrow as pa

    return pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))


def _answers(value: Any) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Return one row's answers in canonical form, or why they cannot be read; blank ones count as none."""
    value = _from_json(value)
    if value is None:
        return None, read.MISSING
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
        if isinstance(texts, str):
            texts, starts = [texts], [starts]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return None, UNREADABLE
        value = [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        return None, UNREADABLE
    answers = [_answer(_from_json(item)) for item in value]
    if None in answers:
        return None, UNREADABLE
    return [answer for answer in answers if answer and answer["text"].strip()], None


def _answer(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return None
    start = value.get("start", value.get("answer_start"))
    return {"text": value["text"], "start": int(start) if isinstance(start, (int, float)) and start >= 0 else -1}


def _from_json(value: Any) -> Any:
    """Return what JSON text stands for; any other value, and text that is no JSON, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def best_bias(support: np.ndarray, quality: np.ndarray, layout: Layout) -> float:
    """Return what to add to the log-odds of no answer so that the mean quality of the answers is best.

    As the official script of SQuAD 2.0 finds its threshold, halfway between the rows at which the decision turns; of
    equally good ones, the nearest to 0.

    Args:
        support: One a candidate; the first one of each row is no answer.
        quality: How good each candidate is, from 0 to 1.
        layout: Of the rows.
    """
    import numpy as np

    none = layout.splits[:-1]
    spans = support.copy()
    spans[none] = -1.0
    best = layout.best(spans)
    turns = np.log(np.maximum(spans[best], 1e-30)) - np.log(np.maximum(support[none], 1e-30))  # above it: no answer
    order = np.argsort(turns, kind="stable")
    gains = (quality[none] - np.where(best == none, quality[none], quality[best]))[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    ordered = turns[order]
    ends = np.concatenate([[ordered[0] - 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])
    real = np.concatenate([[True], np.diff(ordered) > 0, [True]])  # rows that turn together cannot be told apart
    best_total = totals[real].max()
    tied = ends[real & (totals >= best_total - 1e-9)]
    return round(float(tied[np.argmin(abs(tied))]), 6)
