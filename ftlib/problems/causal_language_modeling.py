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

from ftlib.problems._answering import Answering
from ftlib.problems._packing import causal_logits
from ftlib.problems._token_learning import TokenAnswering, TokenLearning
from ftlib.problems.base import Problem
from ftlib.targets.losses import IGNORED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems._questions import Posed, Question
    from ftlib.targets.layout import Layout
    from ftlib.targets.token_likelihood import TokenLikelihood


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
    answering: ClassVar[Answering] = TokenAnswering()

    packing: bool = False
    """Short rows share a line in training, unseen by each other: the same loss, and less padding. Batches of similar
    length leave little of that, so it seldom pays."""

    num_candidates: int = Field(4, ge=1, le=64)
    """Most probable tokens that are kept of each place, for accuracy and for distillation."""

    @property
    def reads_rows_as_encoded(self) -> bool:
        """Yes, unless rows share a line."""
        return not self.packing

    @property
    def target(self) -> TokenLikelihood:
        """The tokens of the text."""
        from ftlib.targets.token_likelihood import TokenLikelihood

        return TokenLikelihood()

    @property
    def learning(self) -> TokenLearning:
        """As a language model learns a text's tokens."""
        return TokenLearning(num_candidates=self.num_candidates, with_texts=False)

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

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the labelled places, shape (num_labelled, vocabulary_size)."""
        return causal_logits(model, batch, self.max_length if self.packing else None)

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
