"""Causal language modelling: each token of a raw text is predicted from those before it.

For continued pretraining: a causal model (GPT, Llama) that reads a few megabytes of a field's own texts starts better
into `text_generation` or `dialogue`, most of all where its pretraining knew little of that field (Gururangan et al.
2020, "Don't Stop Pretraining", https://arxiv.org/abs/2004.10964). It also forgets a little of what else it knew.
No answers are needed: the text is its own.

Row: ``{"text": "The parcel left the depot at nine and was handed to the courier."}``

Loss: cross-entropy of every token but the first. Texts longer than max_length go on in further lines, so nothing is
cut. Metrics: perplexity (main), log_loss a token, accuracy (the most probable token is the right one). Averaging
members of one vocabulary gives the exact mixture of their distributions, token by token. Served, it says how
(un)expected a text is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ftlib.problems import _token_likelihood as tokens
from ftlib.problems._packing import causal_logits
from ftlib.problems._places import mean_loss
from ftlib.problems.base import Problem
from ftlib.targets.losses import IGNORED, PLAIN, LossShape, two_way_divergence

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.forward import Watch
    from ftlib.problems._questions import Posed, Question
    from ftlib.targets.layout import Layout
    from ftlib.targets.token_likelihood import TokenLikelihood
    from ftlib.training.precision import Precision


class CausalLanguageModeling(Problem):
    """Raw text, token by token, from left to right."""

    label_column: ClassVar[str] = "text"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    families: ClassVar[tuple[str, ...]] = ("causal",)
    peft_task_type: ClassVar[str] = "CAUSAL_LM"
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids",)
    model_targets: ClassVar[tuple[str, ...]] = ("labels", "teacher_tokens", "teacher_log_probabilities")
    padding: ClassVar[Mapping[str, int]] = {"labels": IGNORED}
    padding_side: ClassVar[str | None] = "right"
    answers_untrained: ClassVar[bool] = True

    packing: bool = False
    """Short rows share a line in training, unseen by each other: the same loss, and less padding. Batches of similar
    length leave little of that, so it seldom pays."""

    num_candidates: int = Field(4, ge=1, le=64)
    """Most probable tokens that are kept of each place, for accuracy and for distillation."""

    @property
    def target(self) -> TokenLikelihood:
        """The tokens of the text."""
        from ftlib.targets.token_likelihood import TokenLikelihood

        return TokenLikelihood()

    @property
    def validation_metric(self) -> str:
        """The loss."""
        return "loss"

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids; a text that is longer than max_length goes on in further lines, each with its row."""
        import pyarrow as pa

        limit = min(self.max_length, tokenizer.model_max_length)
        ids, row = [], []
        for position, text in enumerate(rows["text"].to_pylist()):
            found = [
                *_start(tokenizer),
                *tokenizer.encode(text, add_special_tokens=False, verbose=False),
                *_end(tokenizer),
            ]
            for start in range(0, max(1, len(found) - 1), limit - 1):  # a line begins with the last one's last token
                ids.append(found[start : start + limit])
                row.append(position)
        return pa.table({
            "row": pa.array(row, pa.int64()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "labels": pa.array([[IGNORED, *line[1:]] for line in ids], pa.list_(pa.int32())),
            "num_truncated": pa.array([0] * len(ids), pa.int32()),
        })  # fmt: skip

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows as they are: the text is its own answer."""
        return encoded

    def model_settings(self) -> dict[str, Any]:
        """Return {}: the pretrained head stays as it is."""
        return {}

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the labelled places, shape (num_labelled, vocabulary_size)."""
        return causal_logits(model, batch, self.max_length if self.packing else None)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the mean cross-entropy of the labelled tokens."""
        return mean_loss(logits, batch["labels"], shape)

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences, mean over the predicted tokens."""
        return two_way_divergence(one, other)

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the divergence from the teacher's distribution over its most probable tokens and all others."""
        return tokens.divergence(logits, batch, temperature)

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Return encoded rows with the teachers' most probable tokens at each place."""
        return tokens.teach(rows, predictions)

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Return how likely the model finds each token, and what it would have said, one line a row."""
        return tokens.predict_tokens(
            self,
            checkpoint,
            rows,
            num_candidates=self.num_candidates,
            with_texts=False,
            precision=precision,
            watch=watch,
        )

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the loss a token, perplexity and accuracy."""
        return tokens.measure(self, checkpoint, rows, precision)

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout]:
        """Return the members' probabilities of the same tokens."""
        return tokens.align_tokens(predictions)

    def references(self, rows: pa.Table, layout: Layout | None) -> np.ndarray:
        """Return what metrics are made of, one line a unit."""
        return self.target.over(layout).encode(None)  # type: ignore[arg-type]

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return how unexpected each text is: its perplexity, its log-likelihood and the number of tokens."""
        target = self.target.over(layout)
        losses, counts = target.row_sums(scores)
        return {
            "prediction": target.row_perplexities(scores),  # type: ignore[dict-item]
            "log_likelihood": -losses,  # type: ignore[dict-item]
            "num_tokens": counts.astype(int).tolist(),
        }

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return the question for each text's least expected token."""
        from ftlib.problems._explained_tokens import least_expected

        return least_expected(self.target.over(layout), scores)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return each text up to its token."""
        from ftlib.problems._explained_tokens import pose_before

        return pose_before(self, checkpoint, rows, questions, len(_start(checkpoint.tokenizer)))

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return a few sentences about parcels."""
        from ftlib.problems._sentences import SENTENCES

        return [{"text": text} for text in SENTENCES]


def _start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token that a text begins with, so that its first word is predicted too; [] where there is none."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [] if token is None else [token]


def _end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
