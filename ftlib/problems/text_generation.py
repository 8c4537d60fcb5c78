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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ftlib.problems import _causal, _causal_writing, _generation
from ftlib.problems._generation import Generation
from ftlib.problems.base import Problem
from ftlib.targets.losses import PLAIN, LossShape
from ftlib.targets.text_metrics import BleuTokenizer, Measuring, Quality
from ftlib.targets.texts import Texts

if TYPE_CHECKING:
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
    def validation_metric(self) -> str:
        """The loss: texts are not written while training."""
        return "loss"

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """Prompts and completions."""
        return ("prompt", "completion")

    # -- rows --------------------------------------------------------------------------------------

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without an end of text."""
        _causal.check_tokenizer(tokenizer, self.name)

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return the prompts' tokens."""
        texts = [f"{text or ''}{self.separator}" for text in rows["prompt"].to_pylist()]
        found = tokenizer(texts, verbose=False)["input_ids"] if texts else []
        ends = {tokenizer.eos_token_id} - {tokenizer.bos_token_id}
        prompts = [ids[:-1] if ids and ids[-1] in ends else ids for ids in found]
        return _causal.prompts_table(prompts, self._rooms(tokenizer)[0])

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows with the completions' tokens behind the prompts', and these alone as labels."""
        end = tokenizer.eos_token_id
        answers = _causal.answer_tokens(rows["completion"].to_pylist(), tokenizer, end, self.max_length)  # type: ignore
        prompts = encoded[_causal.PROMPT].to_pylist()
        lines = [
            ([*prompt, *answer], [*[False] * len(prompt), *[True] * len(answer)])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return _causal.with_answers(encoded, lines, sum(self._rooms(tokenizer)))

    def _rooms(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
        return _causal.rooms(self.max_length, self.max_answer_tokens, tokenizer)

    # -- the model ---------------------------------------------------------------------------------

    def model_settings(self) -> dict[str, Any]:
        """Return {}: the pretrained head stays as it is."""
        return {}

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the completions' tokens, shape (num_tokens, vocabulary_size)."""
        return _causal.forward(model, batch, self.max_length if self.packing else None)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the mean cross-entropy of the completions' tokens."""
        return _causal.loss(logits, batch, shape)

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences, mean over the gold answers' tokens."""
        return _causal.consistency(one, other, batch)

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the mean cross-entropy of the teacher's texts."""
        return _causal.distillation_loss(logits, batch)

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Return encoded rows with the teachers' texts."""
        end, room = (tokenizer.eos_token_id, self._rooms(tokenizer)[1]) if tokenizer else (0, 0)
        return _causal.teach(rows, predictions, tokenizer, utility=self.quality, end=end, room=room)  # type: ignore

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Return the model's candidates for each row, and how likely it finds the gold completion."""
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
        """Return the same of models that write together, token by token."""
        tokenizer = ensemble.first.tokenizer
        return _causal_writing.predict(
            self,
            ensemble,
            rows,
            self.generation,
            room=self._rooms(tokenizer)[1],
            ends=[tokenizer.eos_token_id],  # type: ignore[list-item]
            precision=precision,
            watch=watch,
        )

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the loss a token of the gold completions, and the perplexity."""
        return _causal.measure(self, checkpoint, rows, precision)

    def own_metrics(self, predictions: pa.Table) -> dict[str, float]:
        """Return the perplexity of the gold completions."""
        return _causal.own_metrics(predictions)

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout]:
        """Return the members' support of all distinct texts of each row."""
        return _generation.align(predictions)

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return prediction, score, and alternatives (text and score each, best first)."""
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
