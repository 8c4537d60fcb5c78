"""How a language model learns a text that is its own answer, and how it answers: tokens at some places of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ftlib.problems._answering import Answering
from ftlib.problems._learning import Learning
from ftlib.problems._places import mean_loss
from ftlib.problems._token_likelihood import Places, align_tokens, check_alike, predict_tokens
from ftlib.targets.losses import IGNORED, PLAIN, LossShape, two_way_divergence

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems.base import Problem
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision


@dataclass(frozen=True)
class TokenLearning(Learning):
    """The labelled tokens are learned; where they are, the problem's `encode` and `forward` say.

    Attributes:
        num_candidates: Most probable tokens that are kept of each place.
        with_texts: Whether their texts are kept, too.
    """

    learns_tokens: ClassVar[bool] = True
    validation_metric: ClassVar[str | None] = "loss"

    num_candidates: int
    with_texts: bool

    def encode_labels(
        self, problem: Problem, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase
    ) -> pa.Table:
        """Return encoded rows as they are: the text is its own answer."""
        return encoded

    def teach(
        self, problem: Problem, rows: pa.Table, teachers: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None
    ) -> pa.Table:
        """Return encoded rows with the teachers' most probable tokens at each place."""
        return _with_teachers(rows, teachers)

    def loss(self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the mean cross-entropy of the labelled tokens."""
        return mean_loss(logits, batch["labels"], shape)

    def consistency(self, problem: Problem, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences between two passes, mean over the labelled tokens."""
        return two_way_divergence(one, other)

    def distillation_loss(
        self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], temperature: float
    ) -> Tensor:
        """Return the divergence from the teachers' distribution over its most probable tokens and all others."""
        return _divergence(logits, batch, temperature)

    def predict(
        self, problem: Problem, ensemble: Ensemble, rows: Sequence[pa.Table], precision: Precision, watch: Watch | None
    ) -> pa.Table:
        """Return how likely the model finds each labelled token, and what it would have said, one line a row."""
        return predict_tokens(
            problem,
            ensemble.first,
            rows[0],
            num_candidates=self.num_candidates,
            with_texts=self.with_texts,
            precision=precision,
            watch=watch,
        )

    def measure(
        self, problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision
    ) -> dict[str, float]:
        """Return the loss a token, perplexity and accuracy."""
        predictions = problem.predict(checkpoint, rows, precision=precision)
        scores, layout = problem.align([predictions], rows)
        found = problem.target.over(layout).metrics(scores[0], problem.references(rows, layout))
        return {"loss": found["log_loss"], **found}


class TokenAnswering(Answering):
    """What can be said of tokens side by side; what a person is told of them, the problem says."""

    def align(
        self, problem: Problem, predictions: Sequence[pa.Table], rows: pa.Table
    ) -> tuple[np.ndarray, Layout | None]:
        """Return the members' probabilities of the same tokens."""
        return align_tokens(predictions)

    def references(self, problem: Problem, rows: pa.Table, layout: Layout | None) -> np.ndarray:
        """Return what metrics are made of, one line a unit: predictions hold the gold tokens."""
        return problem.target.over(layout).encode(None)  # type: ignore[arg-type]


# -- teachers ------------------------------------------------------------------------------------------


def _with_teachers(rows: pa.Table, predictions: Sequence[pa.Table]) -> pa.Table:
    """Return encoded rows with teacher_tokens and teacher_log_probabilities: lists, the same number for each place.

    Of several teachers, the mean of their distributions: every token that one of them has, as far as they have it.

    Raises:
        UnsupportedError: If the teachers have different vocabularies.
    """
    import numpy as np
    import pyarrow as pa

    members = [Places.of(table) for table in predictions]
    check_alike(predictions, members)
    tokens = np.concatenate([m.top for m in members], axis=1)
    logs = np.concatenate([m.top_log - np.log(len(members)) for m in members], axis=1)
    if len(members) > 1:
        tokens, logs = _pooled(tokens, logs)
    own, counts = _places_of_lines(rows, members[0].counts)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts * tokens.shape[1])]).astype(np.int32))
    for name, values in (("teacher_tokens", tokens.astype(np.int32)), ("teacher_log_probabilities", logs.astype("f4"))):
        rows = rows.append_column(name, pa.ListArray.from_arrays(offsets, pa.array(values[own].ravel())))
    return rows


def _places_of_lines(rows: pa.Table, in_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the predictions' places are each line's own, and how many; a long row's lines share its places.

    Args:
        rows: Encoded rows.
        in_row: Places of the whole row, for each line.
    """
    import numpy as np

    counts = np.array([sum(label != IGNORED for label in line) for line in rows["labels"].to_pylist()], np.int64)
    starts = np.cumsum(in_row) - in_row
    done: dict[int, int] = {}
    own = []
    for row_id, start, count in zip(rows["row_id"].to_pylist(), starts.tolist(), counts.tolist(), strict=True):
        first = start + done.get(row_id, 0)
        done[row_id] = done.get(row_id, 0) + count
        own.append(np.arange(first, first + count))
    return np.concatenate(own), counts


def _pooled(tokens: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each place's tokens once: what several teachers give to one is summed, in its first place."""
    import numpy as np

    probability = np.exp(logs)
    same = tokens[:, :, None] == tokens[:, None, :]
    summed = (same * probability[:, None, :]).sum(-1)
    is_first = same.argmax(-1) == np.arange(tokens.shape[1])
    with np.errstate(divide="ignore"):
        return tokens, np.where(is_first, np.log(summed), ABSENT)


ABSENT = -1e4
"""The log-probability of a token that another one of the list stands for already."""


def _divergence(logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
    """Return KL(teacher || student) over the teacher's most probable tokens and all others as one, times T squared.

    Softened by the temperature as far as that is known: the others, of which only the sum is known, are taken for one.
    """
    import torch

    from ftlib.targets.losses import softened_divergence

    counts = (batch["labels"] != IGNORED).sum(1, keepdim=True)
    width = batch["teacher_tokens"].shape[1] // max(1, int(counts.max()))  # the longest row is not padded
    real = torch.arange(batch["teacher_tokens"].shape[1], device=counts.device) < counts * width
    wanted = batch["teacher_log_probabilities"][real].reshape(len(logits), width)
    chosen = batch["teacher_tokens"][real].reshape(len(logits), width)
    student = logits.float().log_softmax(-1).gather(1, chosen)
    student = student.masked_fill(wanted < ABSENT / 2, ABSENT)
    return softened_divergence(_with_others(student), _with_others(wanted), temperature)


def _with_others(logs: Tensor) -> Tensor:
    """Return log-probabilities with that of all other tokens as a last column."""
    import torch

    rest = (1 - logs.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return torch.cat((logs, rest), dim=-1)
