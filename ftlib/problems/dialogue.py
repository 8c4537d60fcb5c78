"""Dialogue: a causal model answers in a conversation; chat fine-tuning.

The conversation is laid out by the tokenizer's own chat template, so what is learned is what any chat program will
ask the model later. Start from a chat model where there is one: it knows its template, and a few hundred
conversations change its manner; a base model needs thousands. For single instructions without turns:
`text_generation`.

Row: ``{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it paid?"},
{"role": "assistant", "content": "Yes, since Monday."}]}`` (a list, or JSON text of one). The system's word may come
first, then user and assistant take turns; the last word is the assistant's, and is what is asked for on test. A row
out of turn is rejected with its reason.

Loss: cross-entropy of all that the assistant says, each answer with its end-of-turn token; what others say is read,
not learned. Which tokens those are, the template's {% generation %} marks say; without marks, what follows the
prompt that the template makes of the messages before. A conversation that is too long loses its oldest exchanges.
Metrics: as in `text_generation`, of the last answer; members' perplexity is that of all answers. Contents are not
repaired by cleaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ftlib.problems import _causal, _chat
from ftlib.problems._answering import Answering
from ftlib.problems._causal_learning import CausalLearning
from ftlib.problems._generation import Generation
from ftlib.problems._text_answering import TextAnswering
from ftlib.problems.base import Problem
from ftlib.targets.text_metrics import BleuTokenizer, Measuring, Quality
from ftlib.targets.texts import Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems._questions import Posed, Question
    from ftlib.targets.base import Column
    from ftlib.targets.layout import Layout


class Dialogue(Problem):
    """A conversation and the assistant's answers."""

    text_columns: ClassVar[tuple[str, ...]] = ()
    other_columns: ClassVar[tuple[str, ...]] = ("messages",)
    label_column: ClassVar[str] = "messages"
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
    """Tokens of a conversation; of longer ones the oldest exchanges go."""

    max_answer_tokens: int = Field(128, ge=1)
    """Tokens of an answer that is written; what comes before has the rest of max_length, at least half."""

    packing: bool = False
    """Short rows share a line in training, unseen by each other: the same loss, and less padding. Batches of similar
    length leave little of that, so it seldom pays."""

    template: str | None = None
    """A chat template in Jinja, for a tokenizer that has none, or in place of its own."""

    generation: Generation = Generation()
    """How answers are written."""

    metric: Literal["chrf", "bleu", "rougeL", "exact_match"] = "chrf"
    """What models are chosen by."""

    quality: Quality = "chrf"
    """How good a single answer is, for fusions to learn from."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How BLEU cuts text into words."""

    @property
    def target(self) -> Texts:
        """A text, chosen among candidates."""
        return Texts(main_metric=self.metric, measuring=Measuring(self.quality, self.bleu_tokenizer))

    @property
    def learning(self) -> CausalLearning:
        """As a causal model learns what the assistant says."""
        return CausalLearning(
            generation=self.generation,
            max_length=self.max_length,
            max_answer_tokens=self.max_answer_tokens,
            packing=self.packing,
            utility=self.quality,
            ends=lambda tokenizer: _chat.end_tokens(tokenizer, self.template),
        )

    # -- rows --------------------------------------------------------------------------------------

    def check_inputs(self, rows: pa.Table) -> pa.Array:
        """Return why a conversation cannot be used: it is none, or out of turn."""
        return _chat.read_conversations(rows["messages"])[1]

    def read_labels(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the conversations, and why a row cannot be learned from: its last word is not the assistant's."""
        import pyarrow as pa
        import pyarrow.compute as pc

        messages, reasons = _chat.read_conversations(rows["messages"])
        unanswered = [bool(m) and m[-1]["role"] != "assistant" for m in messages.to_pylist()]
        why = pc.if_else(pa.array(unanswered, pa.bool_()), "no answer: the user has the last word", None)
        return messages, pc.coalesce(reasons, why.cast(pa.string()))

    def gold(self, rows: pa.Table) -> Column:
        """Return the last answer of each conversation."""
        import pyarrow as pa

        return pa.array([messages[-1]["content"] for messages in _read(rows)], pa.string())

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without a chat template, or without an end of text."""
        super().check_tokenizer(tokenizer)
        _chat.check_template(tokenizer, self.template)

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return the conversations' tokens up to where the assistant gives its last answer."""
        room = self.learning.rooms(tokenizer)[0]
        asked = [_chat.before_answer(messages) for messages in _read(rows)]
        kept = [self._fitted(messages, tokenizer) for messages in asked]
        prompts = [_chat.prompt_ids(tokenizer, messages, self.template) for messages in kept]
        lost = [
            len(_chat.prompt_ids(tokenizer, before, self.template)) - len(prompt) if len(before) > len(after) else 0
            for before, after, prompt in zip(asked, kept, prompts, strict=True)
        ]
        return _causal.prompts_table(prompts, room, lost)

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows with whole conversations, and all that the assistant says as labels."""
        lines = []
        for messages in _read(rows):
            kept = [*self._fitted(messages[:-1], tokenizer), messages[-1]]
            turns = _chat.lay_out(tokenizer, kept, self.template)
            lines.append((turns.ids, turns.is_answer))
        return _causal.with_answers(encoded, lines, sum(self.learning.rooms(tokenizer)))

    def _fitted(self, messages: list[_chat.Message], tokenizer: PreTrainedTokenizerBase) -> list[_chat.Message]:
        room = self.learning.rooms(tokenizer)[0]
        return _chat.fitted(messages, lambda some: len(_chat.prompt_ids(tokenizer, some, self.template)) <= room)

    def prepare(self, model: Any, tokenizer: Any) -> None:
        """Give the tokenizer the template of the params, so that it is saved with the model."""
        if self.template:
            tokenizer.chat_template = self.template

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return prediction, score and alternatives, and `message`: the answer as the conversation goes on with it."""
        told = super().answers(scores, rows, layout)
        return {**told, "message": [{"role": "assistant", "content": text} for text in told["prediction"]]}

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return rows with the texts behind them."""
        from ftlib.problems import _explained_texts as explained

        return explained.pose(
            self, checkpoint, rows, questions, explained.of_messages([_chat.before_answer(m) for m in _read(rows)])
        )

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return a few conversations with a web shop."""
        return [{"messages": _messages(*turns)} for turns in EXAMPLES]


EXAMPLES = (
    ("Is my parcel lost?", "No, it arrives on Monday."),
    ("Hello", "Hello! What can I do for you?", "I want a refund.", "Gladly. For which order?"),
    ("Do you sell lamps?", "Yes, blue and red ones."),
    ("Can I pay by card?", "Yes, by any card."),
    ("When do you open?", "At nine."),
    ("When do you close?", "At six."),
    ("Thanks!", "You are welcome."),
    ("Where is my order?", "What is its number?", "It is 42.", "It left the depot at nine."),
)
"""What user and assistant say in turn."""


def _messages(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]


def _read(rows: pa.Table) -> list[list[_chat.Message]]:
    return _chat.read_conversations(rows["messages"])[0].to_pylist()
