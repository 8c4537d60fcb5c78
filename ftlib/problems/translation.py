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

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from ftlib.problems import _seq2seq
from ftlib.problems._answering import Answering
from ftlib.problems._generation import Generation
from ftlib.problems._seq2seq_learning import Seq2SeqLearning
from ftlib.problems._text_answering import TextAnswering
from ftlib.problems.base import Problem
from ftlib.targets.text_metrics import BleuTokenizer, Measuring, Quality
from ftlib.targets.texts import Texts


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
    answering: ClassVar[Answering] = TextAnswering()

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

    quality: Quality = "chrf"
    """How good a single translation is, for fusions to choose by; the metric that models are chosen by serves best."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How sacrebleu cuts texts into words for BLEU: 13a its default, zh for Chinese, char, intl, none (already cut)."""

    @property
    def target(self) -> Texts:
        """A text."""
        return Texts(main_metric="chrf", measuring=Measuring(self.quality, self.bleu_tokenizer))

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """The text and its translation."""
        return (*self.text_columns, self.label_column)

    @property
    def learning(self) -> Seq2SeqLearning:
        """As an encoder-decoder learns."""
        return Seq2SeqLearning(
            generation=self.generation,
            limit=self.max_target_length,
            languages={"source_language": self.source_language, "target_language": self.target_language},
            prefix=self.prefix,
            smoothing=self.label_smoothing,
            utility=self.quality,
        )

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
