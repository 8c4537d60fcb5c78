"""Token classification: every word gets a tag; tags make spans, such as names of persons.

Entities, chunks, event triggers and arguments, as spans; parts of speech, as plain tags. Words come as a list; the
model sees their pieces, and a word's tag is what it says at the first one (Devlin et al., 2019,
https://arxiv.org/abs/1810.04805, section 5.3). Rows longer than `max_length` tokens are read in windows that overlap;
each word is predicted once, where it has most context. Answers are legal sequences: no I-PER after O.

Tags may be written in BIO, BIOES (BILOU) or IOB1; inside, and in answers, they are BIO. A served model takes a text in
the place of the words, too, and then gives offsets of characters.

Row: ``{"tokens": ["Ada", "Byron", "went", "to", "Rome"], "tags": ["B-PER", "I-PER", "O", "O", "B-LOC"]}``

Loss: cross-entropy of a word's first piece. Usual metric: F1 of spans, strict, as conlleval and seqeval count; of plain
tags, accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ftlib.errors import ArtifactError, DataError
from ftlib.problems._labels import Labels, bound
from ftlib.problems.base import Problem
from ftlib.targets.losses import IGNORED
from ftlib.targets.tag_reading import Scheme
from ftlib.targets.tag_spans import OUTSIDE
from ftlib.targets.tags import Tags, closed

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


class TokenClassification(Problem):
    """Every word gets a tag; tags make spans."""

    text_columns: ClassVar[tuple[str, ...]] = ()
    other_columns: ClassVar[tuple[str, ...]] = ("tokens",)
    label_column: ClassVar[str] = "tags"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    peft_task_type: ClassVar[str] = "TOKEN_CLS"
    families: ClassVar[tuple[str, ...]] = ("encoder",)
    padding: ClassVar[Mapping[str, int]] = {"labels": IGNORED}
    padding_side: ClassVar[str | None] = "right"

    labels: Labels = ()
    """Tags in the order of their ids, in BIO; learned from the training rows, O first, unless given."""

    scheme: Scheme = "auto"
    """How the source writes tags: bio, bioes (BILOU, BMES), iob1, or plain where they are no spans; auto finds out."""

    illegal_tags: Literal["repair", "reject"] = "repair"
    """Of a row with I-X after O or another type: let a span begin there, as conlleval does, or reject the row."""

    stride: int = Field(32, ge=0)
    """Tokens that neighbouring windows of a long row share, at most half a window."""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        strange = [label for label in self.labels if label[:2] in ("E-", "S-", "L-", "U-")]
        if strange and self.scheme != "plain":
            line = f"labels: {strange[0]!r} is not in BIO, into which all tags are read; name O, and B- and I- ones"
            raise PydanticCustomError("labels", "{line}", {"line": line})
        return self

    @property
    def target(self) -> Tags:
        """A tag for each word."""
        return _target(self.labels, self.scheme, self.illegal_tags)

    def bind(self, labels: tuple[str, ...]) -> Self:
        """Return this problem with its tags filled in; tags from the params keep their order.

        Raises:
            DataError: If no word has a tag but O, or one that the params do not name.
        """
        if labels == (OUTSIDE,):
            raise DataError("every word of train has the tag 'O': there is nothing to learn. Check data.columns.tags.")
        given = self.labels if self.target.is_plain else closed(self.labels)
        return self.model_copy(update={"labels": bound(given, labels)})

    # -- rows --------------------------------------------------------------------------------------

    def check_inputs(self, rows: pa.Table) -> pa.Array:
        """Return why words cannot be used: none, or an empty one."""
        from ftlib.problems._words import lacking

        return lacking(rows["tokens"], "tokens")

    def read_labels(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the tags in BIO, or plain, and the reasons for rejecting rows: one a word is needed."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from ftlib.problems._words import words_of
        from ftlib.targets.reading import reason

        tags, reasons = self.target.parse(rows[self.label_column])
        num_words = pa.array([len(words) for words in words_of(rows["tokens"])], pa.int32())
        differ = pc.fill_null(pc.not_equal(pc.list_value_length(tags), num_words), False)
        complaints = pc.coalesce(reasons, reason(differ, "tags and tokens differ in number"))
        return pc.if_else(complaints.is_null(), tags, pa.scalar(None, tags.type)), complaints

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer that does not say which word a piece is of."""
        from ftlib.problems._words import check_fast

        check_fast(tokenizer)

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return the pieces of each row's words, in windows."""
        from ftlib.problems._words import encode_words

        return encode_words(rows, "tokens", tokenizer, max_length=self.max_length, stride=self.stride)

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Add each word's tag at its first piece, in one window; -100 at all other tokens."""
        import numpy as np

        from ftlib.problems._words import Owned, as_column

        owned = Owned.of(encoded, "row")
        labels = np.full(len(owned.mask), IGNORED, np.int32)
        labels[owned.mask] = self.target.encode(rows[self.label_column])[owned.units]
        return encoded.append_column("labels", as_column(labels, owned.num_tokens))

    # -- the model ---------------------------------------------------------------------------------

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return how far a student is from its teachers, word by word."""
        import torch

        known = batch["labels"] != IGNORED
        taught = batch["teacher_logits"].reshape(len(known), -1, logits.shape[-1])
        real = torch.arange(taught.shape[1], device=known.device) < known.sum(1, keepdim=True)
        return self.target.distillation_loss(logits[known], taught[real], temperature)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Run a checkpoint over encoded rows.

        Returns:
            row_id and logits (large_list<float32>): a row's words one after the other, num_outputs each.
        """
        import numpy as np
        import pyarrow as pa

        from ftlib.models.forward import forward
        from ftlib.problems._words import Owned, as_column

        owned = Owned.of(rows)
        logits = np.empty((len(owned.units), self.target.num_outputs), np.float32)
        for indices, outputs in forward(checkpoint, rows, self, precision=precision, watch=watch):
            tokens, units = owned.in_batch(indices)
            logits[units] = outputs[tokens]
        column = as_column(logits.reshape(-1), owned.counts * self.target.num_outputs, large=True)
        return pa.table({"row_id": pa.array(owned.row_ids, pa.int64()), "logits": column})

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the loss and the metrics of encoded rows."""
        import numpy as np

        from ftlib.models.forward import LossMeter
        from ftlib.problems._words import Owned
        from ftlib.training.batches import Lists

        meter, owned = LossMeter(self), Owned.of(rows)
        predictions = self.predict(checkpoint, rows, precision=precision, watch=meter)
        scores, layout = self.align([predictions], predictions)
        gold = np.empty(len(owned.units), np.int64)
        gold[owned.units] = Lists.of(rows["labels"], IGNORED).flat[owned.mask]
        return {"loss": meter.mean, **self.target.over(layout).metrics(scores[0], gold)}

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout | None]:
        """Return the members' probabilities of the tags of each word: words are the same in every tokenization."""
        import numpy as np

        from ftlib.targets.layout import Layout

        counts = [self._num_words(table) for table in predictions]
        if any((count != counts[0]).any() for count in counts):
            raise ArtifactError("predictions are of rows with other words; compute them again from the same splits.")
        scores = np.stack([self.target.scores(self._word_logits(table)) for table in predictions])
        return scores, Layout.of(counts[0])

    def _num_words(self, predictions: pa.Table) -> np.ndarray:
        import numpy as np
        import pyarrow.compute as pc

        sizes = np.asarray(pc.list_value_length(predictions["logits"]), dtype=np.int64)
        if (sizes % self.target.num_outputs).any():
            raise ArtifactError(f"predictions do not hold {self.target.num_outputs} logits a word; compute them again.")
        return sizes // self.target.num_outputs

    def _word_logits(self, predictions: pa.Table) -> np.ndarray:
        """Return the logits of all words, rows one after the other, float64."""
        import numpy as np

        flat = predictions["logits"].combine_chunks().flatten().to_numpy()
        logits = flat.astype(np.float64).reshape(-1, self.target.num_outputs)
        if broken := int((~np.isfinite(logits).all(1)).sum()):
            raise ArtifactError(
                f"predictions: {broken:,} of {len(logits):,} words have logits that are not finite: the member's "
                "training diverged. Lower its learning_rate."
            )
        return logits

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Add teacher_logits (list<float32>): of the words that each line predicts, one after the other."""
        import numpy as np

        from ftlib.problems._words import Owned, as_column

        owned = Owned.of(rows)
        starts = np.concatenate(
            [[0], np.cumsum(self._num_words(predictions[0]))]
        )  # a table has a line for each of ours
        at = starts[owned.line_of] + owned.words
        logits = [self._word_logits(table)[at] for table in predictions]
        mean = logits[0] if len(logits) == 1 else self.target.mean_logits(logits)
        sizes = np.bincount(owned.line_of, minlength=len(rows)) * self.target.num_outputs
        return rows.append_column("teacher_logits", as_column(mean.astype(np.float32).reshape(-1), sizes))

    # -- answers -----------------------------------------------------------------------------------

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return what a client is told of each row.

        Returns:
            prediction, the tags; entities, where tags make spans: type, text, score (the probability of the least sure
            of its tags), first_word and last_word (from 0), start and end (characters of the text, the end one past;
            null where the row came as words); words, where it came as a text; confidence, of the least sure tag.
        """
        from ftlib.problems._entities import entities
        from ftlib.problems._words import is_text, words_of

        target, tokens = self.target.over(layout), rows["tokens"]
        columns: dict[str, Sequence[Any]] = {"prediction": target.decode(scores)}
        if not target.is_plain:
            columns["entities"] = entities(target, scores, tokens)
        if is_text(tokens):
            columns["words"] = words_of(tokens)
        return {**columns, "confidence": target.confidence(scores)}  # type: ignore[dict-item]

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return the questions for the spans that are found, or the tags that are least sure."""
        from ftlib.problems._explained_words import questions

        return questions(self.target.over(layout), scores, rows, label)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return the window in which each question's word is tagged."""
        from ftlib.problems._explained_words import pose

        return pose(self, checkpoint, rows, questions)

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight sentences with persons, places and organisations."""
        told = (
            ("Ada/B-PER Byron/I-PER was charged in Rome/B-LOC ."),
            ("The Red/B-ORG Cross/I-ORG opened an office in Oslo/B-LOC"),
            ("Paul/B-PER works for Acme/B-ORG in New/B-LOC York/I-LOC ."),
            ("Nothing happened in May ."),
            ("Mr. Smith/B-PER left the Bank/B-ORG of/I-ORG Spain/I-ORG"),
            ("It rains in Lima/B-LOC and Cape/B-LOC Town/I-LOC ."),
            ("Globex/B-ORG wants a refund , said Eve/B-PER Stone/I-PER"),
            ("A man is playing a guitar on the stage ."),
        )
        rows = [[word.partition("/") for word in line.split()] for line in told]
        return [{"tokens": [w for w, _, _ in row], "tags": [tag or OUTSIDE for _, _, tag in row]} for row in rows]


@lru_cache(maxsize=64)  # asked for at every training step
def _target(labels: tuple[str, ...], scheme: Scheme, illegal_tags: Literal["repair", "reject"]) -> Tags:
    return Tags(labels, scheme, illegal_tags)
