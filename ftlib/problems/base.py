"""The Problem contract: everything that depends on what is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from ftlib.plugins import Plugin

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.targets.base import Target


class Problem(Plugin):
    """What is learned: its columns, encoding, model class and target."""

    kind: ClassVar[str] = "problem"

    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    """The columns that hold the input; cleaning repairs them."""

    label_column: ClassVar[str] = "label"
    """The column that holds the gold answer."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """The transformers class that has the right head."""

    peft_task_type: ClassVar[str] = "SEQ_CLS"
    """What peft calls it."""

    max_length: int = Field(128, ge=8)
    """Tokens kept of a row; longer rows are cut, and counted."""

    @property
    def target(self) -> Target:
        """What is predicted for a row."""
        raise NotImplementedError

    def bind(self, labels: tuple[str, ...]) -> Self:
        """Return this problem with its label names filled in; a problem without labels returns itself."""
        return self

    def model_settings(self) -> dict[str, Any]:
        """Return what the model's config must hold: num_labels, id2label, label2id, problem_type."""
        return self.target.config()

    def encode(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
        """Return token ids for rows: input_ids (list<int32>), token_type_ids where the model has them,
        and num_truncated (int32, tokens cut). Labels are not needed, so that serving encodes alike."""
        raise NotImplementedError

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return a few valid raw rows, as the contract tests use them: at least two per label."""
        raise NotImplementedError
