"""Summarization: a document gets a short text that says what matters in it, by an encoder-decoder model.

BART, Pegasus, T5, LED, or a small model trained from scratch; headlines, abstracts, minutes, release notes. Documents
longer than max_length are cut at their end, and counted: news tell first what matters, contracts do not.

Row: ``{"text": "A fire damaged a warehouse in Oldport on Monday. Nobody was hurt.", "summary": "Fire in Oldport"}``

Loss: cross-entropy of the gold summary's tokens, each given those before it. Metrics: ROUGE-L (main), ROUGE-1 and
ROUGE-2 as rouge-score computes them, BLEU, chrF, METEOR. They count common words: a fluent summary of what the document
does not say may score well. While training, the loss on validation decides, since generating is slow. T5 needs its
`prefix` ("summarize: "), a model of many languages `language` as its tokenizer writes it.

Distillation is by sequences: the student learns the text that the teachers generate, beside the gold one. Kim & Rush
(2016), https://aclanthology.org/D16-1139; for summaries: Shleifer & Rush (2020), https://arxiv.org/abs/2010.13002.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ftlib.problems import _generation, _seq2seq
from ftlib.problems._generation import Generation
from ftlib.problems._texts import encode_texts
from ftlib.problems.base import Problem
from ftlib.targets.losses import PLAIN, LossShape
from ftlib.targets.text_metrics import BleuTokenizer, Measuring
from ftlib.targets.texts import Texts

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems._questions import Posed, Question
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision


class Summarization(Problem):
    """A document gets a summary."""

    label_column: ClassVar[str] = "summary"
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    answers_untrained: ClassVar[bool] = True  # its head is the pretrained one
    families: ClassVar[tuple[str, ...]] = ("encoder_decoder",)
    peft_task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    model_inputs: ClassVar[tuple[str, ...]] = _seq2seq.INPUTS
    model_targets: ClassVar[tuple[str, ...]] = _seq2seq.TARGETS
    token_columns: ClassVar[tuple[str, ...]] = ("input_ids", *_seq2seq.TARGETS)
    padding: ClassVar[Mapping[str, int]] = _seq2seq.PADDING

    max_length: int = Field(512, ge=8)
    """Tokens kept of a document; longer ones are cut, and counted."""

    max_target_length: int = Field(64, ge=4)
    """Tokens of a summary, its end included: longer gold texts are cut in training, generation stops there."""

    prefix: str = ""
    """Written before each document, as T5 was pretrained: "summarize: "."""

    language: str | None = None
    """The documents' and summaries' language, as the tokenizer of a model of many languages writes it."""

    generation: Generation = Generation()
    """How summaries are generated."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each token's probability that is spread over all tokens while training; 0.1 is usual."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How sacrebleu cuts texts into words for BLEU: 13a its default, zh for Chinese, char, intl, none (already cut)."""

    @property
    def target(self) -> Texts:
        """A text."""
        return Texts(main_metric="rougeL", measuring=Measuring("rougeL", self.bleu_tokenizer))

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """The document and its summary."""
        return (*self.text_columns, self.label_column)

    @property
    def validation_metric(self) -> str:
        """The loss: generating at every validation pass would cost more than training."""
        return "loss"

    # -- rows --------------------------------------------------------------------------------------

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without an end of text, or without the language."""
        _seq2seq.check_tokenizer(tokenizer, {"language": self.language})

    def load_tokenizer(self, folder: Path) -> Any:
        """Open a checkpoint's tokenizer, set to the language."""
        return self._in_languages(super().load_tokenizer(folder))

    def _in_languages(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return _seq2seq.in_languages(tokenizer, self.language, self.language)

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids of each document."""
        prefixed = _seq2seq.with_prefix(rows, "text", self.prefix)
        encoded = encode_texts(prefixed, self.text_columns, self._in_languages(tokenizer), self.max_length)
        return encoded.select([n for n in encoded.column_names if n != "token_type_ids"])

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows with the tokens of their summaries."""
        known = self._in_languages(tokenizer)
        return _seq2seq.encode_labels(rows, encoded, self.label_column, known, self.max_target_length)

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Return encoded rows with the tokens of the teachers' summaries."""
        known = tokenizer and self._in_languages(tokenizer)
        return _seq2seq.teach(rows, predictions, known, utility="rougeL", limit=self.max_target_length)

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the decoder's logits, shape (batch_size, length, vocabulary)."""
        return _seq2seq.forward(model, batch)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the cross-entropy of the gold summaries' tokens."""
        return _seq2seq.loss(_seq2seq.gold_part(logits, batch), batch["labels"], shape, self.label_smoothing)

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences, mean over the gold texts' tokens."""
        return _seq2seq.consistency(one, other, batch)

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the cross-entropy of the teachers' summaries; a text has no softness, so no temperature."""
        return _seq2seq.loss(_seq2seq.teacher_part(logits, batch), batch["teacher_labels"])

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the loss a token."""
        return _seq2seq.measure(self, checkpoint, rows, precision)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Return the model's summaries: row_id, texts (best first) and their support."""
        from ftlib.models.ensembles import Ensemble

        return self.predict_jointly(Ensemble.alone(checkpoint), [rows], precision=precision, watch=watch)

    def predict_jointly(
        self,
        ensemble: Ensemble,
        rows: Sequence[pa.Table],
        *,
        precision: Precision = "float32",
        watch: Watch | None = None,
    ) -> pa.Table:
        """Return the summaries that models write together, token by token."""
        return _seq2seq.predict(
            self,
            ensemble,
            rows,
            self.generation,
            limit=self.max_target_length,
            language=self.language,
            precision=precision,
            watch=watch,
        )

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout | None]:
        """Return the members' support of all their distinct summaries of each row."""
        return _generation.align(predictions)

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return prediction, score and alternatives (text and score each)."""
        return _generation.answers(scores, self.target.over(layout))

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return the question for each text that is written."""
        from ftlib.problems._explained_texts import questions

        return questions(self.target.over(layout), scores)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return rows with the texts behind them."""
        from ftlib.problems import _explained_texts as explained

        return explained.pose(self, checkpoint, rows, questions, explained.of_columns(rows, self.text_columns))

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return ten short reports and their headlines."""
        return [
            {"text": "A fire damaged a warehouse in Oldport on Monday. Nobody was hurt.", "summary": "Fire in Oldport"},
            {"text": "Heavy rain flooded the school in Harwick. Lessons go on.", "summary": "Rain floods school"},
            {"text": "The mayor of Ashdown opened a library on Friday.", "summary": "New library in Ashdown"},
            {"text": "A truck hit a bakery in Norwell. The driver slept.", "summary": "Truck hits bakery"},
            {"text": "The council will close the theatre in Redhill in May.", "summary": "Theatre to close"},
            {"text": "Volunteers repaired an old farm near Millford.", "summary": "Old farm repaired"},
            {
                "text": "A storm took the roof off a hotel. Two guests were hurt.",
                "summary": "Storm hits hotel, two hurt",
            },
            {"text": "The museum of Kingsley shows ships from Saturday on.", "summary": "Ships in Kingsley museum"},
            {"text": "A company plans to build a factory near the station.", "summary": "Company plans factory"},
            {"text": "Trains to Eastmere were late again on Tuesday.", "summary": "Eastmere trains late"},
        ]
