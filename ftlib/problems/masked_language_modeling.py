"""Masked language modelling: words that are hidden in a raw text are guessed from both sides.

For continued pretraining: an encoder that reads a field's own texts first is better at the field's problems after,
most where its pretraining knew little of that field (Gururangan et al. 2020, "Don't Stop Pretraining",
https://arxiv.org/abs/2004.10964). With a few thousand short texts the gain is small. No answers are needed.

Row: ``{"text": "The parcel left the depot at nine and was handed to the courier."}``

Devlin et al. (2019), "BERT", https://arxiv.org/abs/1810.04805, section 3.1: 15 % of the tokens are predicted; of
these 80 % are replaced by the mask, 10 % by a random token, 10 % stay. Masks are drawn anew at every training step
(Liu et al. 2019, "RoBERTa", https://arxiv.org/abs/1907.11692, section 4.1), as a function of seed and step. On
validation and test they are a function of the text alone, so every model is asked the same; a student of a teacher
learns on those, too, since the teacher has read them once.

Loss: cross-entropy of the chosen tokens. Metrics: perplexity of the hidden tokens (main; Salazar et al. 2020 call
its like pseudo-perplexity), log_loss, accuracy. Averaging members of one vocabulary gives the exact mixture of their
distributions. Served, it fills masks: ``{"text": "The parcel left the [MASK]."}`` gets the most probable tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ftlib.errors import CheckpointError
from ftlib.problems._answering import Answering
from ftlib.problems._places import logits_at
from ftlib.problems._texts import encode_texts
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

UNKNOWN = -1
"""The label of a mask that stands in the text itself: nobody knows what it hides."""


class MaskedLanguageModeling(Problem):
    """Hidden words of a raw text."""

    label_column: ClassVar[str] = "text"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    families: ClassVar[tuple[str, ...]] = ("encoder",)
    peft_task_type: ClassVar[str] = "FEATURE_EXTRACTION"
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids",)  # one text a row: token types are all 0, the default
    model_targets: ClassVar[tuple[str, ...]] = (
        "labels",
        "can_mask",
        "mask_token",
        "vocabulary_size",
        "teacher_tokens",
        "teacher_log_probabilities",
    )
    token_columns: ClassVar[tuple[str, ...]] = ()
    padding: ClassVar[Mapping[str, int]] = {"labels": IGNORED}
    answers_untrained: ClassVar[bool] = True
    answering: ClassVar[Answering] = TokenAnswering()

    mask_ratio: float = Field(0.15, gt=0, lt=1)
    """Share of the tokens that are predicted."""

    num_candidates: int = Field(10, ge=1, le=64)
    """Most probable tokens that are kept of each place: what serving tells, and what a student learns from."""

    @property
    def target(self) -> TokenLikelihood:
        """The hidden tokens."""
        from ftlib.targets.token_likelihood import TokenLikelihood

        return TokenLikelihood()

    @property
    def learning(self) -> TokenLearning:
        """As a language model learns hidden tokens."""
        return TokenLearning(num_candidates=self.num_candidates, with_texts=True)

    # -- rows --------------------------------------------------------------------------------------

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without a mask token."""
        if tokenizer.mask_token_id is None:
            raise CheckpointError(
                "masked_language_modeling needs a tokenizer with a mask token, and the base model's has none; choose "
                "an encoder such as bert or roberta, or causal_language_modeling for a causal model."
            )

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids with masks that are a function of the text; masks in the text itself stay as they are."""
        import pyarrow as pa

        encoded = encode_texts(rows, self.text_columns, tokenizer, self.max_length)
        texts = rows["text"].to_pylist()
        lines = [self._masked(ids, text or "", tokenizer) for ids, text in zip(_ids(encoded), texts, strict=True)]
        masked, labels, can_mask = zip(*lines, strict=True) if lines else ((), (), ())
        at = encoded.column_names.index("input_ids")
        encoded = encoded.set_column(at, "input_ids", pa.array(masked, pa.list_(pa.int32())))
        encoded = encoded.append_column("labels", pa.array(labels, pa.list_(pa.int32())))
        encoded = encoded.append_column("can_mask", pa.array(can_mask, pa.list_(pa.int8())))
        for name, value in (("mask_token", tokenizer.mask_token_id), ("vocabulary_size", len(tokenizer))):
            encoded = encoded.append_column(name, pa.array([value] * len(rows), pa.int32()))
        return encoded

    def _masked(
        self, ids: np.ndarray, text: str, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a text's tokens with some hidden, the labels, and which tokens training may hide."""
        import numpy as np

        can_mask = ~np.isin(ids, tokenizer.all_special_ids)
        given = ids == tokenizer.mask_token_id
        if given.any():
            return ids, np.where(given, UNKNOWN, IGNORED), np.zeros(len(ids), bool)
        random = np.random.default_rng(zlib.crc32(text.encode()))
        masked, labels = hide(ids, can_mask, self.mask_ratio, tokenizer.mask_token_id, len(tokenizer), random)
        return masked, labels, can_mask

    # -- the model ---------------------------------------------------------------------------------

    def draw(self, batch: Mapping[str, Tensor], seed: Sequence[int]) -> Mapping[str, Tensor]:
        """Return the batch with new masks; a student's stay where its teacher saw them."""
        import numpy as np
        import torch

        if "teacher_tokens" in batch:
            return batch
        labels, can_mask = batch["labels"].numpy(), batch["can_mask"].numpy() > 0
        whole = np.where(labels >= 0, labels, batch["input_ids"].numpy())
        mask, size = int(batch["mask_token"][0]), int(batch["vocabulary_size"][0])
        random = np.random.default_rng(seed)
        ids, drawn = whole.copy(), np.full_like(labels, IGNORED)
        for row, places in enumerate(can_mask):
            ids[row], drawn[row] = hide(whole[row], places, self.mask_ratio, mask, size, random)
        return {**batch, "input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(drawn)}

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the hidden tokens, shape (num_hidden, vocabulary_size)."""
        inputs = {name: values for name, values in batch.items() if name not in self.model_targets}
        return logits_at(model, inputs, batch["labels"], causal=False)

    # -- answers -----------------------------------------------------------------------------------

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return the most probable tokens, one a mask and joined by commas, and for each mask its candidates.

        A text without a mask has some of its words hidden, as on test; `candidates` then says what was guessed.
        """
        target = self.target.over(layout)
        return {"prediction": target.decode(scores), "candidates": target.ranked(scores, self.num_candidates)}

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return the questions for what hidden places are guessed to be."""
        from ftlib.problems._explained_tokens import guesses

        return guesses(self.target.over(layout), scores)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return each text with its hidden places."""
        from ftlib.problems._explained_tokens import pose_around

        return pose_around(self, checkpoint, rows, questions)

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return a few sentences about parcels."""
        from ftlib.problems._sentences import SENTENCES

        return [{"text": text} for text in SENTENCES]


def hide(
    ids: np.ndarray, can_mask: np.ndarray, ratio: float, mask: int, vocabulary_size: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens with some of them hidden, and the labels: at least one, where there is one to hide.

    Args:
        ids: Tokens of a text, shape (length,).
        can_mask: Which may be hidden: no special ones.
        ratio: Share of these that is predicted.
        mask: The mask token.
        vocabulary_size: Random tokens are below it.
        random: What is drawn from.
    """
    import numpy as np

    places = np.flatnonzero(can_mask)
    number = max(1, int(ratio * len(places) + random.random())) if len(places) else 0
    chosen = random.permutation(places)[:number]
    labels = np.full(len(ids), IGNORED, dtype=ids.dtype)
    labels[chosen] = ids[chosen]
    fate = random.random(number)
    replaced = np.where(fate < 0.8, mask, random.integers(vocabulary_size, size=number))
    hidden = ids.copy()
    hidden[chosen] = np.where(fate < 0.9, replaced, ids[chosen])
    return hidden, labels


def _ids(encoded: pa.Table) -> list[np.ndarray]:
    import numpy as np

    return [np.array(row, dtype=np.int64) for row in encoded["input_ids"].to_pylist()]
