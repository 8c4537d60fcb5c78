"""Question answering: the answer to a question is a stretch of a text, or, with no_answer, is not in it.

Extractive, as in SQuAD 1.1 and 2.0. Long contexts become several windows that overlap by `stride` tokens; what a model
says of them becomes one distribution over the characters of the context, so that models with different tokenizers
fuse: the candidates are the members' n best spans and those of their averaged distributions. With no_answer, how much
more probable no answer must be than the best one is tuned on validation, for each model, when its training ends.

Row: ``{"question": "Who won?", "context": "In 1959, Ann won.", "answers": [{"text": "Ann", "start": 9}]}``; several
answers are alternatives, and [] is no answer. The hub's form ``{"text": ["Ann"], "answer_start": [9]}`` is read too.
`start` counts characters of the context as it came. An answer that is not there is looked for: it is repaired if its
text is in the context once, and the row is rejected else.

Answers: prediction (the text, "" for no answer), start and end (characters of the context as it was sent, before
cleaning), confidence (the probability of the beginning times that of the end); with `num_answers` above 1 also
answers, the best ones.

Loss: cross-entropy of the first and the last token. Usual metric: F1, beside exact match, both as the official scripts
compute them (as ratios, where those print percentages).

Sources: Rajpurkar et al. (2016), https://arxiv.org/abs/1606.05250; Rajpurkar et al. (2018),
https://arxiv.org/abs/1806.03822; windows, and "no answer" at [CLS]: Devlin et al. (2019),
https://arxiv.org/abs/1810.04805, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ftlib.problems._learning import vectors
from ftlib.problems.base import Problem
from ftlib.targets.losses import PLAIN, LossShape
from ftlib.targets.span import Span, answers_type

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.forward import Watch
    from ftlib.problems._questions import Posed, Question
    from ftlib.problems._spans import AnswerPlaces, Window
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision

IMPOSSIBLE = -1e9
"""The logit of tokens at which no answer begins or ends: finite, so that 0 times it is 0."""


class QuestionAnswering(Problem):
    """The answer to a question is a stretch of a text."""

    text_columns: ClassVar[tuple[str, ...]] = ("question", "context")
    label_column: ClassVar[str] = "answers"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    families: ClassVar[tuple[str, ...]] = ("encoder",)
    peft_task_type: ClassVar[str] = "QUESTION_ANS"
    model_targets: ClassVar[tuple[str, ...]] = ("labels", "char_starts", "teacher_first", "teacher_last")
    padding: ClassVar[Mapping[str, int]] = {"char_starts": -1}

    max_length: int = Field(384, ge=16)
    """Tokens of a window: question, a stretch of the context, special tokens."""

    stride: int = Field(128, ge=0)
    """Tokens of the context that neighbouring windows share; at most half of what a window holds of it."""

    max_question_length: int = Field(64, ge=1)
    """Tokens kept of a question; longer ones are cut, and counted."""

    no_answer: bool = False
    """Whether a context may lack the answer: SQuAD 2.0. Else every row must have one."""

    max_answer_length: int = Field(200, ge=1)
    """Characters of an answer at most."""

    n_best: int = Field(10, ge=1, le=100)
    """Candidates taken from each member, and from their average."""

    num_answers: int = Field(1, ge=1, le=100)
    """Answers that a client is told of: from 2 on, the best ones in a column `answers`, with their scores."""

    @property
    def target(self) -> Span:
        """A stretch of the context."""
        return _target(self.no_answer)

    # -- rows --------------------------------------------------------------------------------------

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer that cannot say where in the text its tokens are."""
        from ftlib.models.virtual_tokens import layout

        layout(tokenizer)  # says what is missing

    def read_labels(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the answers with their places in the repaired context, and why rows cannot be used."""
        import pyarrow as pa

        from ftlib.data.originals import GIVEN

        answers, reasons = self.target.parse(rows[self.label_column])
        contexts = rows["context"].to_pylist()
        given = rows[f"{GIVEN}context"].to_pylist() if f"{GIVEN}context" in rows.column_names else contexts
        lines = zip(answers.to_pylist(), reasons.to_pylist(), contexts, given, strict=True)
        located = [_located(*line) for line in lines]
        found, complaints = zip(*located, strict=True) if located else ((), ())
        return pa.array(found, answers_type()), pa.array(complaints, pa.string())

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return a line for each window: see `ftlib.problems._windows`."""
        import pyarrow as pa

        from ftlib.problems._texts import text_column
        from ftlib.problems._windows import windows

        return windows(
            pa.table({name: text_column(rows, name) for name in self.text_columns}),
            tokenizer,
            max_length=self.max_length,
            max_question_length=self.max_question_length,
            stride=self.stride,
        )

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return windows with the places of the answer's first and last token: 0 and 0 where a window lacks it.

        The first window of a row also has its context and answers, which validation while training measures with.
        """
        import numpy as np
        import pyarrow as pa

        from ftlib.problems._windows import token_span
        from ftlib.training.batches import Lists

        answers = rows[self.label_column].to_pylist()
        row_of = encoded["row"].to_numpy()
        starts, ends = (Lists.of(encoded[name], -1) for name in ("char_starts", "char_ends"))
        labels = np.zeros((len(encoded), 2), np.int64)
        for i, row in enumerate(row_of.tolist()):
            part = slice(starts.starts[i], starts.starts[i + 1])
            spans = (
                token_span(starts.flat[part], ends.flat[part], a["start"], a["start"] + len(a["text"]))
                for a in answers[row]
            )
            labels[i] = next((span for span in spans if span), (0, 0))
        is_first = np.diff(row_of, prepend=-1) != 0
        own = pa.array(np.where(is_first, row_of, 0), mask=~is_first)
        encoded = encoded.append_column("labels", vectors(labels))
        for name in ("context", self.label_column):
            encoded = encoded.append_column(name, rows[name].combine_chunks().take(own))
        return encoded

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits of being the answer's first and last token, shape (batch_size, length, 2)."""
        import torch

        outputs = model(**{k: v for k, v in batch.items() if k not in self.model_targets})
        return torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the cross-entropy over the tokens of the context and the first token, "not in here"."""
        labels = batch["labels"] + _num_before(batch)[:, None]
        return self.target.loss(_possible(logits, batch), labels, shape)

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences over the same tokens."""
        return self.target.consistency(_possible(one, batch), _possible(other, batch), batch["labels"])

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the divergence from the teachers' places over the same tokens."""
        import torch

        teacher = torch.stack((batch["teacher_first"], batch["teacher_last"]), dim=-1)
        return self.target.distillation_loss(_possible(logits, batch), _possible(teacher, batch), temperature)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Run a checkpoint over encoded rows.

        Returns:
            One line a row: row_id; starts and ends (characters) of the tokens that may begin or end the answer; first
            and last, their probabilities; none_first and none_last, those of there being no answer.
        """
        from ftlib.problems._spans import table

        found = self._places(checkpoint, rows, precision, watch)
        return table(list(found), list(found.values()))

    def no_answer_bias(self, checkpoint: Checkpoint) -> float:
        """Return what is added to a model's log-odds of there being no answer."""
        return float(checkpoint.settings.get("tuned", {}).get("no_answer_bias", 0.0))

    def _places(
        self, checkpoint: Checkpoint, rows: pa.Table, precision: Precision, watch: Watch | None
    ) -> dict[int, AnswerPlaces]:
        """Return what the model says of each row, in the order of the rows."""
        from ftlib.problems._spans import AnswerPlaces

        bias = self.no_answer_bias(checkpoint)
        of_row: dict[int, list[Window]] = {}
        windows = self.read_windows(checkpoint, rows, precision=precision, watch=watch)
        for row_id, window in zip(rows["row_id"].to_pylist(), windows, strict=True):
            of_row.setdefault(row_id, []).append(window)
        return {row: AnswerPlaces.of(found, no_answer=self.no_answer, bias=bias) for row, found in of_row.items()}

    def read_windows(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> list[Window]:
        """Return what the model says of each encoded window."""
        from ftlib.models.forward import forward
        from ftlib.problems._spans import Window
        from ftlib.training.batches import Lists

        starts, ends = (Lists.of(rows[name], -1) for name in ("char_starts", "char_ends"))
        on_left = checkpoint.tokenizer.padding_side == "left"
        windows: dict[int, Window] = {}
        for indices, outputs in forward(checkpoint, rows, self, precision=precision, watch=watch):
            for i, logits in zip(indices.tolist(), outputs, strict=True):
                part = slice(starts.starts[i], starts.starts[i + 1])
                length = part.stop - part.start
                own = logits[len(logits) - length :] if on_left else logits[:length]
                windows[i] = Window.of(starts.flat[part], ends.flat[part], own)
        return [windows[i] for i in range(len(rows))]

    def tune(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, Any]:
        """Return what is added to the log-odds of there being no answer, so that validation F1 is best."""
        from ftlib.models.forward import one_line_each
        from ftlib.targets.span import F1, best_bias

        if not self.no_answer:
            return {}
        alone = one_line_each(rows)
        scores, layout = self.align([self.predict(checkpoint, rows, precision=precision)], alone)
        quality = self.references(alone, layout)[:, F1]
        return {"no_answer_bias": best_bias(scores[0].prod(-1), quality, layout)}

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout]:
        """Return the members' support of each candidate, shape (num_members, num_units, 2), and the candidates.

        A candidate's score is the probability, by the token that covers its first character, that the answer begins
        there, and likewise for its last.
        """
        import numpy as np
        import pyarrow as pa

        from ftlib.problems import _spans
        from ftlib.targets.layout import Layout

        read = [_spans.read(table) for table in predictions]
        spans = [
            _spans.candidates(members, number=self.n_best, max_length=self.max_answer_length, no_answer=self.no_answer)
            for members in zip(*read, strict=True)
        ]
        values = [
            np.stack([member.at(found[:, 0], found[:, 1]) for member in members])
            for members, found in zip(zip(*read, strict=True), spans, strict=True)
        ]
        texts = [
            context[start:end] if start >= 0 else ""
            for context, found in zip(rows["context"].to_pylist(), spans, strict=True)
            for start, end in found.tolist()
        ]
        places = np.concatenate([np.empty((0, 2), np.int64), *spans])
        units = pa.table({"start": places[:, 0], "end": places[:, 1], "text": pa.array(texts, pa.string())})
        empty = np.empty((len(read), 0, 2))
        return np.concatenate([empty, *values], axis=1), Layout.of(
            np.array([len(found) for found in spans], int), units
        )

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Return windows with what the teachers say of each token: teacher_first, teacher_last, log-probabilities."""
        import numpy as np
        import pyarrow as pa

        from ftlib.problems._spans import read, taught
        from ftlib.training.batches import Lists

        starts, ends = (Lists.of(rows[name], -1) for name in ("char_starts", "char_ends"))
        lines = zip(*(read(table) for table in predictions), strict=True)
        told = [
            taught(teachers, starts.flat[a:b], ends.flat[a:b])
            for teachers, a, b in zip(lines, starts.starts, starts.starts[1:], strict=False)
        ]
        flat = np.concatenate([np.empty((0, 2)), *told]).astype(np.float32)
        offsets = pa.array(starts.starts, pa.int32())
        for column, name in enumerate(("teacher_first", "teacher_last")):
            values = pa.array(np.ascontiguousarray(flat[:, column]))
            rows = rows.append_column(name, pa.ListArray.from_arrays(offsets, values))
        return rows

    # -- answers -----------------------------------------------------------------------------------

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return prediction, start, end and confidence of each row: see the module's docstring."""
        from ftlib.problems._told_answers import Told, originals

        target = self.target.over(layout)
        if layout is None or layout.units is None:  # no row at all
            return {"prediction": [], "start": [], "end": [], "confidence": []}
        told = Told(layout.splits, layout.units, scores.prod(-1), originals(rows))
        best = [told.best(row, self.num_answers) for row in range(layout.num_rows)]
        firsts = [answers[0] for answers in best]
        columns: dict[str, Sequence[Any]] = {
            "prediction": [answer["text"] for answer in firsts],
            "start": [answer["start"] for answer in firsts],
            "end": [answer["end"] for answer in firsts],
            "confidence": target.confidence(scores),  # type: ignore[dict-item]
        }
        return {**columns, "answers": best} if self.num_answers > 1 else columns

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return the question for each answer, whose probability is that of its beginning times that of its end."""
        from ftlib.problems._explained_spans import questions

        return questions(self.target.over(layout), scores)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return the window in which each answer begins."""
        from ftlib.problems._explained_spans import pose

        return pose(self, checkpoint, rows, questions)

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight questions on two texts."""
        return [_example(*line) for line in EXAMPLES]


@lru_cache(maxsize=2)  # asked for at every training step
def _target(no_answer: bool) -> Span:
    return Span(no_answer=no_answer)


def _located(
    answers: list[dict[str, Any]] | None, reason: str | None, text: str | None, given: str | None
) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Return a row's answers where they are in the repaired text, or why one of them is nowhere."""
    from ftlib.problems._gold_answers import Context

    if reason or answers is None or text is None:
        return answers, reason
    context = Context(text, given)
    found = []
    for answer in answers:
        located = context.locate(answer["text"], answer["start"])
        if isinstance(located, str):
            return None, located
        found.append({"text": located[0], "start": located[1]})
    return found, None


def _num_before(batch: Mapping[str, Tensor]) -> Tensor:
    """Return how many places of padding come before each row's tokens: some where padding is on the left."""
    return batch["attention_mask"].argmax(dim=1)


def _possible(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return logits with tokens at which no answer begins or ends far below the others."""
    import torch

    places = torch.arange(logits.shape[1], device=logits.device)
    possible = (batch["char_starts"] >= 0) | (places == _num_before(batch)[:, None])
    return logits.float().masked_fill(~possible[..., None], IMPOSSIBLE)


RIVER = "The Elm rises near Hartfield and flows for 212 miles into the North Sea. Its only dam was built in 1931."
BAKERY = "Mira Okafor opened her bakery in Leeds in 2004. It sells rye bread and closed for one year after a fire."
EXAMPLES = (
    (RIVER, "Where does the Elm rise?", "near Hartfield"),
    (RIVER, "How long is the Elm?", "212 miles"),
    (RIVER, "Into what does the Elm flow?", "the North Sea"),
    (RIVER, "When was the dam built?", "1931"),
    (BAKERY, "Who opened a bakery?", "Mira Okafor"),
    (BAKERY, "In which city is the bakery?", "Leeds"),
    (BAKERY, "What does the bakery sell?", "rye bread"),
    (BAKERY, "Why did the bakery close?", "a fire"),
)


def _example(context: str, question: str, answer: str) -> dict[str, Any]:
    answers = [{"text": answer, "start": context.index(answer)}]
    return {"question": question, "context": context, "answers": answers}
