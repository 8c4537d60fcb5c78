"""How an encoder-decoder learns to write a text: see `Learning`. What it reads and writes with is in `_seq2seq`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.problems import _seq2seq
from ftlib.problems._generation import Generation
from ftlib.problems._learning import Learning
from ftlib.problems._texts import encode_texts
from ftlib.targets.losses import IGNORED, PLAIN, LossShape, two_way_divergence

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems.base import Problem
    from ftlib.targets.text_metrics import Quality
    from ftlib.training.precision import Precision


@dataclass(frozen=True)
class Seq2SeqLearning(Learning):
    """The gold text's tokens are learned, each given those before it, and texts are written token by token.

    Attributes:
        generation: How texts are written.
        limit: Most tokens of a text, its end included.
        languages: The problem's field that names the language of what is read, and that of what is written, or one
            for both; each with the language as the tokenizer writes it, None where the model knows but one.
        prefix: What is written before each text that is read.
        smoothing: The problem's own label smoothing.
        utility: What says how alike two texts are, of several teachers.
    """

    writes: ClassVar[bool] = True
    validation_metric: ClassVar[str | None] = "loss"  # generating at every pass would cost more than training

    generation: Generation
    limit: int
    languages: Mapping[str, str | None]
    prefix: str
    smoothing: float
    utility: Quality

    def check_tokenizer(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without an end of text, or without a language."""
        _seq2seq.check_tokenizer(tokenizer, self.languages)

    def load_tokenizer(self, problem: Problem, folder: Path) -> Any:
        """Open a checkpoint's tokenizer, set to the languages."""
        return self._in_languages(super().load_tokenizer(problem, folder))

    def _in_languages(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        languages = list(self.languages.values())
        return _seq2seq.in_languages(tokenizer, languages[0], languages[-1])

    # -- rows --------------------------------------------------------------------------------------

    def encode(self, problem: Problem, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids of each text behind the prefix."""
        prefixed = _seq2seq.with_prefix(rows, "text", self.prefix)
        encoded = encode_texts(prefixed, problem.text_columns, self._in_languages(tokenizer), problem.max_length)
        return encoded.select([n for n in encoded.column_names if n != "token_type_ids"])

    def encode_labels(
        self, problem: Problem, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase
    ) -> pa.Table:
        """Return encoded rows with the tokens of their gold texts."""
        texts = rows[problem.label_column].to_pylist()
        return encoded.append_column("labels", _seq2seq.token_ids(texts, self._in_languages(tokenizer), self.limit))

    def teach(
        self, problem: Problem, rows: pa.Table, teachers: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None
    ) -> pa.Table:
        """Return encoded rows with the tokens of the teachers' texts."""
        known = tokenizer and self._in_languages(tokenizer)
        return _seq2seq.teach(rows, teachers, known, utility=self.utility, limit=self.limit)

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, problem: Problem, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the decoder's logits, shape (batch_size, length, vocabulary_size)."""
        return _seq2seq.forward(model, batch)

    def loss(self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the mean cross-entropy of the gold texts' tokens."""
        return _seq2seq.loss(_seq2seq.gold_part(logits, batch), batch["labels"], shape, self.smoothing)

    def consistency(self, problem: Problem, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences between two passes, mean over the gold texts' tokens."""
        known = batch["labels"] != IGNORED
        return two_way_divergence(_seq2seq.gold_part(one, batch)[known], _seq2seq.gold_part(other, batch)[known])

    def distillation_loss(
        self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], temperature: float
    ) -> Tensor:
        """Return the mean cross-entropy of the teachers' texts; a text has no softness, so no temperature."""
        return _seq2seq.loss(_seq2seq.teacher_part(logits, batch), batch["teacher_labels"])

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, problem: Problem, ensemble: Ensemble, rows: Sequence[pa.Table], precision: Precision, watch: Watch | None
    ) -> pa.Table:
        """Return the texts that models write together, token by token: row_id, texts (best first), their support."""
        language = list(self.languages.values())[-1]
        return _seq2seq.predict(
            problem,
            ensemble,
            rows,
            self.generation,
            limit=self.limit,
            language=language,
            precision=precision,
            watch=watch,
        )

    def measure(
        self, problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision
    ) -> dict[str, float]:
        """Return the loss a token."""
        return _seq2seq.measure(problem, checkpoint, rows, precision)
