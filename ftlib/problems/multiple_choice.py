"""Multiple choice: which of a row's own answers fits its question or its beginning.

Reading comprehension (RACE), common sense (SWAG, CommonsenseQA), school exams (ARC). Each row brings its choices, two
or more, as many as it likes. The model reads the text with every choice and gives one number for each; softmax over
the row's choices makes them probabilities. One number for a text is what a sequence classifier with one output
gives, so that is the model: any transformer that classifies can choose, every strategy trains it, and plain
transformers opens the checkpoint (its ``...ForMultipleChoice`` classes compute the same for BERT, with a head for few
architectures and for rows of equally many choices).

Helps when: choices are texts that differ from row to row. Doesn't when they are always the same: then they are labels,
and text_classification learns more from as many rows.

Row: ``{"text": "He opens the fridge and", "choices": ["takes the milk.", "reads the sky."], "answer": 0}``; the answer
is a position from 0 (`count_from: 1` for a count from 1), a letter (A is the first), or the choice's text. Choices may
be a list, its JSON, or ``{"text": [...], "label": ["A", ...]}``, whose labels the answer then names.

Loss: cross-entropy over the row's choices. Usual metric: accuracy.
Source: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training", section 3.3; data:
Zellers et al. (2018), "SWAG", https://arxiv.org/abs/1808.05326.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ftlib.errors import ArtifactError
from ftlib.problems._texts import encode_texts
from ftlib.problems.base import Problem
from ftlib.targets.choice import TEXT, Choice

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.forward import Watch
    from ftlib.problems._questions import Posed, Question
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision

NOWHERE = -10000
"""The logit of a choice that a row does not have: no share in softmax, and still a number to divide and subtract."""

LENGTHS = "choice_lengths"
"""The encoded column that says how many tokens each choice of a row has: they lie in input_ids one after the other."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class MultipleChoice(Problem):
    """One of the row's own choices is right."""

    other_columns: ClassVar[tuple[str, ...]] = ("choices",)
    label_column: ClassVar[str] = "answer"
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", LENGTHS)
    padding: ClassVar[Mapping[str, int]] = {"teacher_logits": NOWHERE}

    count_from: Literal[0, 1] = 0
    """What the first choice is called where answers are numbers."""

    @property
    def reads_rows_as_encoded(self) -> bool:
        """No: a row becomes a line for each of its choices."""
        return False

    @property
    def target(self) -> Choice:
        """One of the choices."""
        return Choice()

    # -- rows --------------------------------------------------------------------------------------

    def check_inputs(self, rows: pa.Table) -> pa.Array:
        """Return why choices cannot be used: none, one alone, or an empty one among them."""
        import pyarrow as pa

        return pa.array([_complaint(value) for value in rows["choices"].to_pylist()], pa.string())

    def read_labels(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the right choice's text, read from its position, its letter, its label or the text itself."""
        import pyarrow as pa

        pairs = zip(rows["choices"].to_pylist(), rows["answer"].to_pylist(), strict=True)
        found = [self._answer(choices, answer) for choices, answer in pairs]
        texts, reasons = ([pair[i] for pair in found] for i in (0, 1))
        return pa.array(texts, pa.string()), pa.array(reasons, pa.string())

    def _answer(self, choices: Any, answer: Any) -> tuple[str | None, str | None]:
        """Return the right choice's text, or why it is not known; where the choices are broken, neither."""
        if _complaint(choices):
            return None, _complaint(choices)
        texts, names = _choices(choices)
        if answer is None or (isinstance(answer, str) and not answer.strip()):
            return None, "missing answer"
        place = self._place(texts, names, answer)
        if place is None:
            return None, f"unknown answer {_short(answer)}: none of the {len(texts)} choices"
        if texts.count(texts[place]) > 1:
            return None, f"ambiguous answer: {_short(texts[place])} is several of the choices"
        return texts[place], None

    def _place(self, texts: Sequence[str], names: Sequence[str], answer: Any) -> int | None:
        if isinstance(answer, (bool, list, dict)):
            return None
        if isinstance(answer, str):
            given = answer.strip()
            for known in (texts, names):
                if given in known:
                    return known.index(given)
            if len(given) == 1 and given.upper() in LETTERS[: len(texts)]:
                return LETTERS.index(given.upper())
            if not given.lstrip("-").isdecimal():
                return None
            answer = int(given)
        place = int(answer) - self.count_from if float(answer).is_integer() else -1
        return place if 0 <= place < len(texts) else None

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return the token ids of the text with each choice, a row's choices one after the other."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        choices = [_choices(value)[0] for value in rows["choices"].to_pylist()]
        splits = np.cumsum([0, *map(len, choices)])
        texts = rows["text"].take(pa.array(np.repeat(np.arange(len(choices)), np.diff(splits)), pa.int64()))
        pairs = pa.table({"text": texts, "choice": pa.array([c for row in choices for c in row], pa.string())})
        encoded = encode_texts(pairs, ("text", "choice"), tokenizer, self.max_length)
        lengths = pc.list_value_length(encoded["input_ids"]).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)])[splits]
        columns = {name: _joined(encoded[name], offsets) for name in self.model_inputs if name in encoded.column_names}
        columns[LENGTHS] = _lists(pa.array(lengths.astype(np.int32)), splits)
        cut = np.concatenate([[0], np.cumsum(encoded["num_truncated"].to_numpy())])[splits]
        return pa.table({**columns, "num_truncated": pa.array(np.diff(cut).astype(np.int32))})

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Add the position of the right choice."""
        import numpy as np

        layout = _layout(rows)
        right = self.target.over(layout).encode(rows["answer"])
        places = layout.best(right[:, 0]) - layout.splits[:-1]
        return encoded.append_column("labels", _int64(places.astype(np.int64)))

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return a number for each choice, shape (batch_size, most choices of a row); `NOWHERE` where there is none."""
        lengths = batch[LENGTHS]
        there = lengths > 0
        apart = _apart(batch, lengths[there], model.config.get_text_config().pad_token_id or 0)
        logits = lengths.new_full(lengths.shape, NOWHERE).float()
        logits[there] = model(**apart).logits.float()[:, 0]
        return logits

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Return row_id and logits (list<float32>), one for each of the row's choices."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from ftlib.models.forward import forward

        splits = np.cumsum([0, *pc.list_value_length(rows[LENGTHS]).to_pylist()])
        flat = np.empty(splits[-1], np.float32)
        for indices, outputs in forward(checkpoint, rows, self, precision=precision, watch=watch):
            for row, line in zip(indices, outputs, strict=True):
                flat[splits[row] : splits[row + 1]] = line[: splits[row + 1] - splits[row]]
        return pa.table({"row_id": rows["row_id"], "logits": _lists(pa.array(flat), splits)})

    # -- predictions -------------------------------------------------------------------------------

    def references(self, rows: pa.Table, layout: Layout | None) -> np.ndarray:
        """Return 1 for each row's right choice, 0 for the others."""
        target = self.target.over(layout)
        if self.label_column in rows.column_names:
            return target.encode(rows[self.label_column])
        return target.at_positions(rows["labels"].to_numpy())

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout | None]:
        """Return each member's probabilities of the rows' choices, and which choices there are."""
        import numpy as np

        layout = _layout(rows) if "choices" in rows.column_names else _layout_of(predictions[0])
        target = self.target.over(layout)
        return np.stack([target.scores(_logits(table, layout)) for table in predictions]), layout

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Add teacher_logits: those whose probabilities are the mean of the teachers'."""
        import pyarrow as pa

        layout = _layout_of(predictions[0])
        logits = [_logits(table, layout) for table in predictions]
        mean = logits[0] if len(logits) == 1 else self.target.over(layout).mean_logits(logits)
        return rows.append_column("teacher_logits", _lists(pa.array(mean.astype("float32")), layout.splits))

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return prediction (the choice's text), position (from `count_from`), confidence, scores of all choices."""
        import numpy as np

        if layout is None:
            return {"prediction": [], "position": [], "confidence": [], "scores": []}
        target = self.target.over(layout)
        shares = np.split(target.probabilities(scores), layout.splits[1:-1])
        return {
            "prediction": target.decode(scores),
            "position": (target.positions_in_rows(scores) + self.count_from).tolist(),
            "confidence": target.confidence(scores).tolist(),
            "scores": [row.tolist() for row in shares],
        }

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return the question for each chosen choice."""
        from ftlib.problems._explained_choices import questions

        return questions(self.target.over(layout), scores)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return rows with the text and every choice."""
        from ftlib.problems._explained_choices import pose

        return pose(self, checkpoint, rows, questions, LENGTHS)

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight beginnings with two to four ways to go on."""
        return [
            {"text": "He opens the fridge and", "choices": ["takes the milk.", "reads the sky."], "answer": 0},
            {"text": "She puts on a coat because", "choices": ["it is hot.", "it is cold.", "tea."], "answer": 1},
            {"text": "The dog barks at", "choices": ["a number.", "the idea.", "the postman."], "answer": 2},
            {"text": "To light the stove you need", "choices": ["a match.", "a fish."], "answer": 0},
            {"text": "The train is late, so we", "choices": ["bake it.", "wait.", "paint.", "swim."], "answer": 1},
            {"text": "Rain fell all day and", "choices": ["the shoes sang.", "the street was wet."], "answer": 1},
            {"text": "A baker sells", "choices": ["bread.", "laws.", "clouds."], "answer": 0},
            {"text": "At night the moon", "choices": ["rings.", "votes.", "shines."], "answer": 2},
        ]


# -- choices as sources have them ----------------------------------------------------------------------


def _choices(value: Any) -> tuple[list[str], list[str]]:
    """Return a row's choices and, where they have any, their labels; nothing where they cannot be read."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return [], []
    if isinstance(value, Mapping):
        texts, names = value.get("text"), value.get("label")
        return _texts(texts), _texts(names) if names else []
    return _texts(value), []


def _texts(values: Any) -> list[str]:
    if not isinstance(values, (list, tuple)) or any(isinstance(v, (list, dict)) for v in values):
        return []
    return ["" if v is None else str(v).strip() for v in values]


def _complaint(value: Any) -> str | None:
    """Return why choices cannot be used; None where they can."""
    texts, names = _choices(value)
    if not texts:
        return "unreadable choices: not a list of texts"
    if len(texts) == 1:
        return "only one choice, expected at least 2"
    if "" in texts:
        return "an empty choice"
    return "choices and their labels are not equally many" if names and len(names) != len(texts) else None


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


# -- choices of rows as one flat column ----------------------------------------------------------------


def _layout(rows: pa.Table) -> Layout:
    """Return the choices of raw rows."""
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.layout import Layout

    choices = [_choices(value)[0] for value in rows["choices"].to_pylist()]
    texts = pa.array([text for row in choices for text in row], pa.string())
    return Layout.of(np.array([len(row) for row in choices], np.int64), pa.table({TEXT: texts}))


def _layout_of(predictions: pa.Table) -> Layout:
    """Return how many choices rows have, from a member's predictions."""
    import pyarrow.compute as pc

    from ftlib.targets.layout import Layout

    return Layout.of(pc.list_value_length(predictions["logits"]).to_numpy())


def _logits(predictions: pa.Table, layout: Layout) -> np.ndarray:
    """Return the logits of all choices, float64, shape (num_units,)."""
    import numpy as np

    if (_layout_of(predictions).counts != layout.counts).any():
        raise ArtifactError("predictions hold other numbers of logits than the rows have choices; predict again.")
    logits = predictions["logits"].combine_chunks().flatten().to_numpy().astype(np.float64)
    if broken := int((~np.isfinite(logits)).sum()):
        raise ArtifactError(
            f"predictions: {broken:,} of {len(logits):,} choices have logits that are not finite: the member's "
            "training diverged. Lower its learning_rate."
        )
    return logits


def _apart(batch: Mapping[str, Tensor], lengths: Tensor, padding: int) -> dict[str, Tensor]:
    """Return a batch with a line for each choice, padded on the right, from rows that hold all of theirs in one.

    Args:
        batch: input_ids, attention_mask and perhaps token_type_ids, shape (batch_size, longest).
        lengths: Tokens of every choice, row by row, shape (num_choices,).
        padding: What fills input_ids.
    """
    import torch

    real = batch["attention_mask"].bool()
    places = torch.arange(int(lengths.max()), device=lengths.device)[None]
    there = places < lengths[:, None]
    apart = {"attention_mask": there.long()}
    for name, fill in (("input_ids", padding), ("token_type_ids", 0)):
        if name in batch:
            lines = torch.full(there.shape, fill, dtype=batch[name].dtype, device=lengths.device)
            apart[name] = lines.masked_scatter(there, batch[name][real])
    return apart


def _joined(column: pa.ChunkedArray, offsets: np.ndarray) -> pa.Array:
    return _lists(column.combine_chunks().flatten(), offsets)


def _lists(flat: pa.Array, offsets: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets.astype("int32")), flat)


def _int64(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.int64())
