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
    answering: ClassVar[Answering] = TextAnswering()

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

    quality: Quality = "rougeL"
    """How good a single summary is, for fusions to choose by; the metric that models are chosen by serves best."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How sacrebleu cuts texts into words for BLEU: 13a its default, zh for Chinese, char, intl, none (already cut)."""

    @property
    def target(self) -> Texts:
        """A text."""
        return Texts(main_metric="rougeL", measuring=Measuring(self.quality, self.bleu_tokenizer))

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """The document and its summary."""
        return (*self.text_columns, self.label_column)

    @property
    def learning(self) -> Seq2SeqLearning:
        """As an encoder-decoder learns."""
        return Seq2SeqLearning(
            generation=self.generation,
            limit=self.max_target_length,
            languages={"language": self.language},
            prefix=self.prefix,
            smoothing=self.label_smoothing,
            utility=self.quality,
        )

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
