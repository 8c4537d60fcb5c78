"""The Problem contract: everything that depends on what is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from ftlib.errors import UnsupportedError
from ftlib.plugins import Plugin
from ftlib.problems._answering import Answering
from ftlib.problems._learning import Learning
from ftlib.targets.losses import PLAIN, LossShape

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
    from ftlib.targets.base import Column, Target
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision


MAIN = "main"
"""What the task is called that an experiment's own problem and data are; others have names of their own."""


class Problem(Plugin):
    """What is learned: its columns, encoding, model class and target.

    The defaults fit a model that reads a text and gives one vector of logits for it. A problem that predicts more for
    a row (tags of words, spans, texts) has a target with a layout, and overrides what differs. How a model learns and
    what is made of its scores are values of their own, `learning` and `answering`, which problems that are alike in it
    share; a hook that a problem overrides itself comes before them.
    """

    kind: ClassVar[str] = "problem"

    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    """The columns that hold texts; cleaning repairs them, serving reads them."""

    other_columns: ClassVar[tuple[str, ...]] = ()
    """Further columns of the input, which hold no plain text: lists of words, images."""

    file_columns: ClassVar[tuple[str, ...]] = ()
    """Those of the input's columns that hold files, as paths or bytes: collecting and serving read them into bytes."""

    label_column: ClassVar[str] = "label"
    """The column that holds the gold answer."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """The transformers class that has the right head."""

    families: ClassVar[tuple[str, ...]] = ("encoder", "causal", "encoder_decoder")
    """Families of base models that it is learned with (`ftlib.models.families`); contract tests use the first."""

    peft_task_type: ClassVar[str] = "SEQ_CLS"
    """What peft calls it."""

    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")
    """Columns of encoded rows that the model reads, beside the attention mask."""

    model_targets: ClassVar[tuple[str, ...]] = ("labels", "teacher_logits")
    """Columns of encoded rows that the loss reads."""

    token_columns: ClassVar[tuple[str, ...]] = ("input_ids",)
    """Columns of encoded rows whose values are looked up in the model's word embeddings; negative ones are not.
    () where training may look up any."""

    padding: ClassVar[Mapping[str, int]] = {}
    """What fills the shorter rows of a batch, for columns of lists that the tokenizer says nothing of; else 0."""

    padding_side: ClassVar[str | None] = None
    """On which side the shorter rows of a batch are filled, "left" or "right"; the tokenizer's own unless given."""

    answers_untrained: ClassVar[bool] = False
    """Whether a base model can answer before any training: it needs no new head."""

    refuses: ClassVar[Mapping[str, str]] = {}
    """Strategies that cannot train it, each with the reason of principle and what to choose."""

    answering: ClassVar[Answering] = Answering()
    """How members' predictions become answers: what `align` and the hooks after it do."""

    max_length: int = Field(128, ge=8)
    """Tokens kept of a row; longer rows are cut, and counted."""

    @property
    def repaired_columns(self) -> tuple[str, ...]:
        """The columns that cleaning repairs: the input's texts, and gold answers where they are texts too."""
        return self.text_columns

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that hold the input: two rows are the same where these are equal."""
        return (*self.text_columns, *self.other_columns)

    @property
    def learning(self) -> Learning:
        """How a model reads and learns, with the parameters it does so by: what `encode`, `loss`, `predict`... do."""
        return Learning()

    @property
    def predicts_words(self) -> bool:
        """Whether what has learned it has a language model's head."""
        return self.auto_class in ("AutoModelForMaskedLM", "AutoModelForCausalLM")

    @property
    def reads_rows_as_encoded(self) -> bool:
        """Whether a row is one line of its input_ids to the model, in training too: then layers can be compared."""
        return not self.learning.writes and not self.file_columns and type(self).draw is Problem.draw

    # -- what is predicted -------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        """What is predicted for a row."""
        raise NotImplementedError

    def bind(self, labels: tuple[str, ...]) -> Self:
        """Return this problem with its label names filled in; a problem without labels returns itself."""
        return self

    # -- rows --------------------------------------------------------------------------------------

    def follow(self, rows: pa.Table) -> pa.Table:
        """Return repaired rows in which other columns have followed the texts, where they speak of places in them.

        Args:
            rows: Texts repaired; as they came they are in `given:<column>` (`ftlib.data.originals`).
        """
        return rows

    def check_inputs(self, rows: pa.Table) -> pa.Array:
        """Return why the input of rows cannot be used (string; null where it can), beside empty texts.

        Args:
            rows: `input_columns`, texts repaired; without labels, since serving asks too.
        """
        import pyarrow as pa

        return pa.nulls(len(rows), pa.string())

    def read_labels(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the canonical label column, and the reasons for rejecting rows: see `Target.parse`.

        Args:
            rows: As `follow` gives them, and `label_column` as the source has it.
        """
        return self.target.parse(rows[self.label_column])

    def gold(self, rows: pa.Table) -> Column:
        """Return gold answers as `Target.encode` takes them, of rows with canonical labels; here the labels."""
        return rows[self.label_column]

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return what the model reads, without labels, so that serving encodes alike.

        Returns:
            `model_inputs`: input_ids (list<int32>), token_type_ids where the model has them; num_truncated (int32,
            tokens cut); length (int32), where a row costs the model more places than it has input_ids; and whatever
            `encode_labels` and `predict` need. One line a row, or, where long rows become
            several windows, more, with a column `row` (int64): the position in `rows`.
        """
        return self.learning.encode(self, rows, tokenizer)

    def encode_labels(self, rows: pa.Table, encoded: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return encoded rows with what the loss reads.

        Args:
            rows: With canonical labels.
            encoded: What `encode` gave of them.
            tokenizer: The same.
        """
        return self.learning.encode_labels(self, rows, encoded, tokenizer)

    # -- the model ---------------------------------------------------------------------------------

    def model_settings(self) -> dict[str, Any]:
        """Return what the model's config must hold: num_labels, id2label, label2id, problem_type."""
        return self.target.config()

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer that lacks what the problem needs (CheckpointError)."""
        self.learning.check_tokenizer(self, tokenizer)

    def load_tokenizer(self, folder: Path) -> Any:
        """Open what rows are encoded with: a checkpoint's tokenizer, or a processor that behaves like one."""
        return self.learning.load_tokenizer(self, folder)

    def draw(self, batch: Mapping[str, Tensor], seed: Sequence[int]) -> Mapping[str, Tensor]:
        """Return a training batch with what is drawn anew each time that it is met, such as masks; here as it is.

        Args:
            batch: `model_inputs`, attention_mask and `model_targets`.
            seed: Of this step of this stage; equal seeds draw the same, so that a resumed run does.
        """
        return batch

    def prepare(self, model: Any, tokenizer: Any) -> None:
        """Leave on a model that was just opened what `forward` needs beside a batch; nothing by default.

        Args:
            model: Of `auto_class`, perhaps inside a peft wrapper.
            tokenizer: As `load_tokenizer` gives it.
        """

    def tokens_beside_rows(self, model: Any) -> Sequence[int]:
        """Return tokens that `forward` looks up beside those in `token_columns`, given a model that is prepared."""
        return ()

    def most_tokens(self, model: Any = None) -> int:
        """Return how many tokens the longest text that `forward` reads may have, given a model that is prepared.

        Without one, as many as are sure before it is there.
        """
        return self.max_length

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the model's outputs as one tensor: the logits that `loss` and `predict` take.

        Args:
            model: Of `auto_class`.
            batch: `model_inputs`, attention_mask and, in training, `model_targets`.
        """
        return self.learning.forward(self, model, batch)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the scalar loss of a batch on its gold labels.

        Args:
            logits: What `forward` gave, float32.
            batch: As there.
            shape: How labels count.
        """
        return self.learning.loss(self, logits, batch, shape)

    def consistency(self, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return how far two passes over a batch, with other dropout, are apart on what has a gold label: for R-Drop.

        Args:
            one: What `forward` gave, float32.
            other: What it gave the second time.
            batch: As there.
        """
        return self.learning.consistency(self, one, other, batch)

    def distillation_loss(self, logits: Tensor, batch: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return how far a student is from its teachers: see `Target.distillation_loss`.

        Args:
            logits: What `forward` gave.
            batch: With what `teach` added to encoded rows.
            temperature: Softness of both.
        """
        return self.learning.distillation_loss(self, logits, batch, temperature)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Run a checkpoint over encoded rows.

        Returns:
            The member's predictions, one line a row: row_id, and here logits (fixed_size_list<float32>).
        """
        from ftlib.models.ensembles import Ensemble

        return self.learning.predict(self, Ensemble.alone(checkpoint), [rows], precision, watch)

    def predict_jointly(
        self,
        ensemble: Ensemble,
        rows: Sequence[pa.Table],
        *,
        precision: Precision = "float32",
        watch: Watch | None = None,
    ) -> pa.Table:
        """Run checkpoints over the same rows, as each one reads them, as one model: see `predict`, `Fusion.joint`.

        Raises:
            UnsupportedError: If answers are not written token by token.
        """
        if not self.learning.writes:
            raise UnsupportedError(f"{self.name}: no answer is written token by token here; use averaging instead.")
        return self.learning.predict(self, ensemble, rows, precision, watch)

    def measure(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, float]:
        """Return the loss and the metrics of encoded rows, as training watches them: "loss" and metric names.

        Args:
            checkpoint: Its model is left in evaluation mode.
            rows: Encoded rows with their labels.
            precision: What to compute in.
        """
        return self.learning.measure(self, checkpoint, rows, precision)

    def tune(self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32") -> dict[str, Any]:
        """Return what is decided of a trained model on validation rows, beside its weights: {} by default.

        It is kept in the checkpoint's settings under "tuned", where `predict` finds it.

        Args:
            checkpoint: Trained, its best weights loaded.
            rows: Encoded validation rows with their labels.
            precision: What to compute in.
        """
        return {}

    @property
    def validation_metric(self) -> str:
        """What the best weights of a stage are chosen by: "loss", or a metric that `measure` gives."""
        return self.learning.validation_metric or self.target.main_metric

    def references(self, rows: pa.Table, layout: Layout | None) -> np.ndarray:
        """Return gold answers as metrics take them, one line a unit: see `Target.encode`.

        Args:
            rows: One line a row: of a split, with canonical labels, or encoded.
            layout: As `align` gave it.
        """
        return self.answering.references(self, rows, layout)

    def align(self, predictions: Sequence[pa.Table], rows: pa.Table) -> tuple[np.ndarray, Layout | None]:
        """Return the members' scores of the same units, and which units rows have (None: each row is one).

        Args:
            predictions: One table a member, as `predict` gives them, in the order of `rows`.
            rows: `input_columns` of the same rows.

        Returns:
            Scores, float64, shape (num_members, num_units, num_outputs).

        Raises:
            ArtifactError: If predictions are not such as the problem makes, or not finite.
        """
        return self.answering.align(self, predictions, rows)

    def teach(
        self, rows: pa.Table, predictions: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> pa.Table:
        """Return encoded training rows with what `distillation_loss` reads of the teachers.

        Args:
            rows: Encoded rows.
            predictions: One table a teacher, one line for each line of `rows`, in their order.
            tokenizer: The student's, with which texts of a teacher are read.

        Returns:
            `rows` with teacher_logits: those whose scores are the mean of the teachers'.
        """
        return self.learning.teach(self, rows, predictions, tokenizer)

    def own_metrics(self, predictions: pa.Table) -> dict[str, float]:
        """Return what one member's predictions say of gold answers beyond its scores, such as perplexity; {} here.

        A fusion of finished predictions has none of it, so models are never chosen by it.

        Args:
            predictions: As `predict` gives them of rows whose answers are known.
        """
        return self.learning.own_metrics(self, predictions)

    # -- answers -----------------------------------------------------------------------------------

    def answers(self, scores: np.ndarray, rows: pa.Table, layout: Layout | None) -> dict[str, Sequence[Any]]:
        """Return what a client is told of each row: column -> values.

        Args:
            scores: A model's scores, shape (num_units, num_outputs).
            rows: `input_columns`; of a served model also texts as they came, in `given:<column>`.
            layout: As `align` gave it.

        Returns:
            prediction; confidence where the target has one; and here score:<label>.
        """
        return self.answering.answers(self, scores, rows, layout)

    def questions(
        self, scores: np.ndarray, rows: pa.Table, layout: Layout | None, label: str | None = None
    ) -> list[Question]:
        """Return which scores are explained (`ftlib.explaining`): of the answers, or of `label` in their place."""
        return self.answering.questions(self, scores, rows, layout, label)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return what a model reads to answer each question, and how its score follows; `rows` has one for each."""
        return self.answering.pose(self, checkpoint, rows, questions)

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return a few valid raw rows, as the contract tests use them: at least two per label."""
        raise NotImplementedError
