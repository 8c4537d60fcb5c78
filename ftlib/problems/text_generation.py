"""Text generation: a causal model goes on with a prompt; instructions and their answers.

A model that follows instructions of one kind: rewriting, extracting, answering in a fixed form. From a base model a
few hundred rows teach the form, thousands the matter. For conversations take `dialogue`; where a text is read whole
and another written, `summarization` or `translation`; for raw text before either, `causal_language_modeling`.

Row: ``{"prompt": "Rewrite politely: Where is my parcel?", "completion": "Could you tell me where my parcel is?"}``

Loss: cross-entropy of the completion's tokens and of its end; the prompt's are read, not learned. Metrics: chrF,
BLEU, ROUGE, METEOR and exact match of the best candidate, and of members perplexity (exp of the mean loss a token of
the gold completion; a fusion chooses among texts and gives the gold one no probability). A student learns its
teacher's texts (Kim & Rush 2016, https://aclanthology.org/D16-1139). Line breaks in prompts need
`cleaning.collapse_whitespace: false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ftlib.problems import _causal
from ftlib.problems._answering import Answering
from ftlib.problems._causal_learning import CausalLearning
from ftlib.problems._generation import Generation
from ftlib.problems._text_answering import TextAnswering
from ftlib.problems.base import Problem
from ftlib.targets.text_metrics import BleuTokenizer, Measuring, Quality
from ftlib.targets.texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase


class TextGeneration(Problem):
    """A prompt and its completion."""

    text_columns: ClassVar[tuple[str, ...]] = ("prompt",)
    label_column: ClassVar[str] = "completion"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    families: ClassVar[tuple[str, ...]] = ("causal",)
    peft_task_type: ClassVar[str] = "CAUSAL_LM"
    model_inputs: ClassVar[tuple[str, ...]] = _causal.INPUTS
    model_targets: ClassVar[tuple[str, ...]] = _causal.TARGETS
    token_columns: ClassVar[tuple[str, ...]] = _causal.TOKENS
    padding: ClassVar[Mapping[str, int]] = _causal.PADDING
    padding_side: ClassVar[str | None] = "right"
    answers_untrained: ClassVar[bool] = True
    answering: ClassVar[Answering] = TextAnswering()

    max_length: int = Field(512, ge=16)
    """Tokens of prompt and completion together; longer prompts lose their beginning, completions their end."""

    max_answer_tokens: int = Field(128, ge=1)
    """Tokens of a completion that is written; prompts have the rest of max_length, at least half."""

    packing: bool = False
    """Short rows share a line in training, unseen by each other: the same loss, and less padding. Batches of similar
    length leave little of that, so it seldom pays."""

    separator: str = "\n"
    """What stands between prompt and completion."""

    generation: Generation = Generation()
    """How completions are written."""

    metric: Literal["chrf", "bleu", "rougeL", "exact_match"] = "chrf"
    """What models are chosen by."""

    quality: Quality = "chrf"
    """How good a single completion is, for fusions to learn from."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How BLEU cuts text into words."""

    @property
    def target(self) -> Texts:
        """A text, chosen among candidates."""
        return Texts(main_metric=self.metric, measuring=Measuring(self.quality, self.bleu_tokenizer))

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """Prompts and completions."""
        return ("prompt", "completion")

    @property
    def learning(self) -> CausalLearning:
        """As a causal model learns what follows a prompt."""
        return CausalLearning(
            generation=self.generation,
            max_length=self.max_length,
            max_answer_tokens=self.max_answer_tokens,
            packing=self.packing,
            utility=self.quality,
            ends=lambda tokenizer: [tokenizer.eos_token_id],
        )

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return the prompts' tokens."""
        texts = [f"{text or ''}{self.separator}" for text in rows["prompt"].to_pylist()]
        found = tokenizer(texts, verbose=False)["input_ids"] if texts else []
        ends = {tokenizer.eos_token_id} - {tokenizer.bos_token_id}
        prompts = [ids[:-1] if ids and ids[-1] in ends else ids for ids in found]
        return _causal.prompts_table(prompts, self.learning.rooms(tokenizer)[0])

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows with the completions' tokens behind the prompts', and these alone as labels."""
        end = tokenizer.eos_token_id
        answers = _causal.answer_tokens(rows["completion"].to_pylist(), tokenizer, end, self.max_length)  # type: ignore
        prompts = encoded[_causal.PROMPT].to_pylist()
        lines = [
            ([*prompt, *answer], [*[False] * len(prompt), *[True] * len(answer)])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return _causal.with_answers(encoded, lines, sum(self.learning.rooms(tokenizer)))

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return a few instructions of a web shop."""
        return [
            {"prompt": "Name the product: I want to return the blue lamp.", "completion": "lamp"},
            {"prompt": "Name the product: My chair arrived with a broken leg.", "completion": "chair"},
            {"prompt": "Name the product: Where is the kettle I ordered?", "completion": "kettle"},
            {"prompt": "Name the product: The red desk is too small.", "completion": "desk"},
            {"prompt": "Answer yes or no: Is the refund paid?", "completion": "yes"},
            {"prompt": "Answer yes or no: Is the parcel lost?", "completion": "no"},
            {"prompt": "Thank the customer.", "completion": "Thank you for your order."},
            {"prompt": "Ask for the order number.", "completion": "What is the number of your order?"},
        ]
