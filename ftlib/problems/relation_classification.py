"""Relation classification: how two marked entities of a text relate, as one of the labels.

Who works for whom, which gene causes which disease, cause and effect (SemEval-2010 task 8). The entities are marked
in the text itself, and the classifier reads the marked text.

`markers: punctuation` (the default) writes ``@ Bill @ was born in # Seattle #``. Zhou & Chen find that punctuation
does better than new special tokens: the model knows it from pretraining, and the vocabulary stays as it is, so that
members share one encoding and any checkpoint goes on from another. `typed` adds the entities' types, where rows give
them, which helps most: ``@ * person * Bill @ was born in # ^ city ^ Seattle #``. `brackets` writes ``[E1] Bill [/E1]``
as plain text, for models trained on such. Of a text that is too long, the words around and between the entities are
kept, never less than the entities, as long as these fit.

Doesn't help when: the entities are still to be found (token_classification does that), or every text has one pair and
the label is that of the text.

Row: ``{"text": "Bill was born in Seattle.", "head": [0, 4], "tail": [17, 24], "label": "born_in"}``; an entity is
[start, end] in characters, ``{"start": 0, "end": 4, "type": "person"}`` (or its JSON), or its words, where they occur
once. Texts with the entities in ``<e1>...</e1>`` and ``<e2>...</e2>`` are read as well: name their column for text,
head and tail. Offsets count in the text as it comes; where cleaning repairs it, they move along.

Loss: cross-entropy. Usual metric: accuracy, or macro F1 where labels are not balanced.
Sources: Baldini Soares et al. (2019), "Matching the Blanks", https://arxiv.org/abs/1906.03158 (markers); Zhou & Chen
(2022), "An Improved Baseline for Sentence-level Relation Extraction", https://arxiv.org/abs/2102.01373, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from ftlib.problems import _marked_pairs
from ftlib.problems._labels import Labels, bound, check_enough, target
from ftlib.problems._marked_pairs import Entity, Pair
from ftlib.problems._texts import encode_texts
from ftlib.problems.base import Problem

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.targets.base import Target

ENTITIES = ("head", "tail")


class RelationClassification(Problem):
    """Two marked entities of a text get the label of their relation."""

    other_columns: ClassVar[tuple[str, ...]] = ENTITIES

    labels: Labels = ()
    """Label names in the order of their ids; learned from the training rows, sorted, unless given."""

    markers: Literal["punctuation", "typed", "brackets"] = "punctuation"
    """What the entities stand between: @ and #, these with the entities' types, or [E1] and [E2]."""

    @model_validator(mode="after")
    def _check_enough(self) -> Self:
        check_enough(self.labels, False)
        return self

    @property
    def target(self) -> Target:
        """One label."""
        return target(self.labels, False, 0.5)

    def bind(self, labels: tuple[str, ...]) -> Self:
        """Return this problem with its label names filled in; names from the params keep their order."""
        return self.model_copy(update={"labels": bound(self.labels, labels)})

    # -- rows --------------------------------------------------------------------------------------

    def follow(self, rows: pa.Table) -> pa.Table:
        """Return rows with plain texts and the entities at their places in these, as JSON objects."""
        import pyarrow as pa

        from ftlib.data.originals import GIVEN

        columns = (rows[name].to_pylist() for name in ("text", f"{GIVEN}text", *ENTITIES))
        found = [_marked_pairs.moved(*row) for row in zip(*columns, strict=True)]
        for i, name in enumerate(("text", *ENTITIES)):
            column = pa.array([row[i] for row in found], pa.string())
            rows = rows.set_column(rows.column_names.index(name), name, column)
        return rows

    def check_inputs(self, rows: pa.Table) -> pa.Array:
        """Return why entities cannot be used: unreadable, outside the text, empty, overlapping, without a type."""
        import pyarrow as pa

        pairs = zip(*(rows[name].to_pylist() for name in ("text", *ENTITIES)), strict=True)
        found = [_marked_pairs.read_pair(*row, typed=self.markers == "typed") for row in pairs]
        return pa.array([pair if isinstance(pair, str) else None for pair in found], pa.string())

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids of the marked texts; of long ones, of the words around the entities."""
        import pyarrow as pa
        import pyarrow.compute as pc

        pairs = [_pair(*row) for row in zip(*(rows[n].to_pylist() for n in ("text", *ENTITIES)), strict=True)]
        marks = [self._marks(pair) for pair in pairs]
        texts = [_marked_pairs.marked(pair, marks) for pair, marks in zip(pairs, marks, strict=True)]
        encoded = self._encode(texts, tokenizer)
        long = [i for i, cut in enumerate(encoded["num_truncated"].to_pylist()) if cut]
        if not long:
            return encoded
        for i in long:
            texts[i] = _marked_pairs.window(pairs[i], marks[i], lambda text: not self._cut(text, tokenizer))
        short = self._encode(texts, tokenizer)
        whole, kept = (_lengths(table) for table in (encoded, short))
        lost = pc.subtract(pc.add(whole, encoded["num_truncated"]), kept).cast(pa.int32())
        return short.set_column(short.column_names.index("num_truncated"), "num_truncated", lost)

    def _encode(self, texts: list[str], tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        import pyarrow as pa

        return encode_texts(pa.table({"text": pa.array(texts, pa.string())}), ("text",), tokenizer, self.max_length)

    def _cut(self, text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
        return self._encode([text], tokenizer)["num_truncated"][0].as_py() > 0

    def _marks(self, pair: Pair) -> _marked_pairs.Marks:
        if self.markers == "brackets":
            return ("[E1] ", " [/E1]"), ("[E2] ", " [/E2]")
        if self.markers == "punctuation":
            return ("@ ", " @"), ("# ", " #")
        return (f"@ * {pair.head.type} * ", " @"), (f"# ^ {pair.tail.type} ^ ", " #")

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return nine sentences with two entities, of three relations."""
        told = [
            ("Bill was born in Seattle.", "Bill", "Seattle", "born_in"),
            ("Ottawa is where Alice came into the world.", "Alice", "Ottawa", "born_in"),
            ("Maria, a native of Lisbon, sings.", "Maria", "Lisbon", "born_in"),
            ("Tom works for Acme as a driver.", "Tom", "Acme", "works_for"),
            ("Globex hired Nina last spring.", "Nina", "Globex", "works_for"),
            ("Omar is an engineer at Initech.", "Omar", "Initech", "works_for"),
            ("Smoking causes cancer.", "Smoking", "cancer", "causes"),
            ("The flood was brought about by heavy rain.", "rain", "flood", "causes"),
            ("Stress leads to sleepless nights.", "Stress", "nights", "causes"),
        ]
        return [
            {"text": text, "head": _span(text, head), "tail": _span(text, tail), "label": label}
            for text, head, tail, label in told
        ]


def _span(text: str, words: str) -> list[int]:
    start = text.index(words)
    return [start, start + len(words)]


def _pair(text: str | None, head: Any, tail: Any) -> Pair:
    """Return a row's entities; what was not checked and cannot be read is the text with two empty ones."""
    pair = _marked_pairs.read_pair(text, head, tail)
    return Pair(text or "", Entity(0, 0), Entity(0, 0)) if isinstance(pair, str) else pair


def _lengths(encoded: pa.Table) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.list_value_length(encoded["input_ids"])
