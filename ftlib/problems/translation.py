"""Translation: a text is written in another language, by an encoder-decoder model.

Marian, NLLB, mBART, T5, or a small model trained from scratch; it rewrites texts into another form alike (plain
language, a query, corrected spelling). Some thousand pairs adapt a pretrained model to a field; from scratch, a hundred
thousand are few.

Row: ``{"text": "Zwei Hunde spielen im Schnee.", "translation": "Two dogs are playing in the snow."}``

Loss: cross-entropy of the gold text's tokens, each given those before it. Metrics: chrF (main) and BLEU as sacrebleu
computes them, METEOR, ROUGE. While training, the loss on validation decides, since generating is slow. Models of many
languages need `source_language` and `target_language` as their tokenizer writes them (NLLB: eng_Latn, ron_Latn; mBART:
en_XX, ro_RO); T5 a `prefix` ("translate English to Romanian: ").

Distillation is by sequences: the student learns the text that the teachers generate, beside the gold one. Kim & Rush
(2016), https://aclanthology.org/D16-1139.
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


class Translation(Problem):
    """A text is written in another language."""

    label_column: ClassVar[str] = "translation"
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    answers_untrained: ClassVar[bool] = True  # its head is the pretrained one
    families: ClassVar[tuple[str, ...]] = ("encoder_decoder",)
    peft_task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    model_inputs: ClassVar[tuple[str, ...]] = _seq2seq.INPUTS
    model_targets: ClassVar[tuple[str, ...]] = _seq2seq.TARGETS
    token_columns: ClassVar[tuple[str, ...]] = ("input_ids", *_seq2seq.TARGETS)
    padding: ClassVar[Mapping[str, int]] = _seq2seq.PADDING

    max_target_length: int = Field(128, ge=4)
    """Tokens of a translation, its end included: longer gold texts are cut in training, generation stops there."""

    prefix: str = ""
    """Written before each text, as T5 was pretrained: "translate English to Romanian: "."""

    source_language: str | None = None
    """The text's language, as the tokenizer of a model of many languages writes it."""

    target_language: str | None = None
    """The translation's."""

    generation: Generation = Generation()
    """How translations are generated."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each token's probability that is spread over all tokens while training; 0.1 is usual."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How sacrebleu cuts texts into words for BLEU: 13a its default, zh for Chinese, char, intl, none (already cut)."""

    @property
    def target(self) -> Texts:
        """A text."""
        return Texts(main_metric="chrf", measuring=Measuring("chrf", self.bleu_tokenizer))

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """The text and its translation."""
        return (*self.text_columns, self.label_column)

    @property
    def validation_metric(self) -> str:
        """The loss: generating at every validation pass would cost more than training."""
        return "loss"

    # -- rows --------------------------------------------------------------------------------------

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without an end of text, or without the languages."""
        languages = {"source_language": self.source_language, "target_language": self.target_language}
        _seq2seq.check_tokenizer(tokenizer, languages)

    def load_tokenizer(self, folder: Path) -> Any:
        """Open a checkpoint's tokenizer, set to the languages."""
        return self._in_languages(super().load_tokenizer(folder))

    def _in_languages(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return _seq2seq.in_languages(tokenizer, self.source_language, self.target_language)

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids of each text."""
        prefixed = _seq2seq.with_prefix(rows, "text", self.prefix)
        encoded = encode_texts(prefixed, self.text_columns, self._in_languages(tokenizer), self.max_length)
        return encoded.select([n for n in encoded.column_names if n != "token_type_ids"])

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows with the tokens of their translations."""
        known = self._in_languages(tokenizer)
        return _seq2seq.encode_labels(rows, encoded, self.label_column, known, self.max_target_length)

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Return encoded rows with the tokens of the teachers' translations."""
        known = tokenizer and self._in_languages(tokenizer)
        return _seq2seq.teach(rows, predictions, known, utility="chrf", limit=self.max_target_length)

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the decoder's logits, shape (batch_size, length, vocabulary)."""
        return _seq2seq.forward(model, batch)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the cross-entropy of the gold translations' tokens."""
        return _seq2seq.loss(_seq2seq.gold_part(logits, batch), batch["labels"], shape, self.label_smoothing)

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences, mean over the gold texts' tokens."""
        return _seq2seq.consistency(one, other, batch)

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the cross-entropy of the teachers' translations; a text has no softness, so no temperature."""
        return _seq2seq.loss(_seq2seq.teacher_part(logits, batch), batch["teacher_labels"])

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the loss a token."""
        return _seq2seq.measure(self, checkpoint, rows, precision)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Return the model's translations: row_id, texts (best first) and their support."""
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
        """Return the translations that models write together, token by token."""
        return _seq2seq.predict(
            self,
            ensemble,
            rows,
            self.generation,
            limit=self.max_target_length,
            language=self.target_language,
            precision=precision,
            watch=watch,
        )

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout | None]:
        """Return the members' support of all their distinct translations of each row."""
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
        """Return ten short sentences of German and English."""
        return [
            {"text": "Zwei Hunde spielen im Schnee.", "translation": "Two dogs are playing in the snow."},
            {"text": "Ein Mann liest eine Zeitung.", "translation": "A man is reading a newspaper."},
            {"text": "Die Frau trinkt Kaffee.", "translation": "The woman is drinking coffee."},
            {"text": "Drei Kinder laufen am Strand.", "translation": "Three children are running on the beach."},
            {"text": "Ein Junge wirft einen Ball.", "translation": "A boy is throwing a ball."},
            {"text": "Der Zug kommt heute spät.", "translation": "The train is late today."},
            {"text": "Ein Koch schneidet Gemüse.", "translation": "A cook is cutting vegetables."},
            {"text": "Das Mädchen singt ein Lied.", "translation": "The girl is singing a song."},
            {"text": "Zwei Männer reparieren ein Dach.", "translation": "Two men are repairing a roof."},
            {"text": "Eine Katze schläft auf dem Sofa.", "translation": "A cat is sleeping on the sofa."},
        ]
