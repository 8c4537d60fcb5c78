"""Where a row's tokens are in its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.problems.base import Problem

AS_READ = "text as read"
"""What a text is called that a problem changes before the model reads it."""


@dataclass(frozen=True)
class Reading:
    """The texts of a row, and where its tokens are in them.

    Attributes:
        texts: Name -> text.
        places: For each token, which text it is in (by number) and its first and last character; None for tokens that
            are in none.
    """

    texts: dict[str, str]
    places: list[tuple[int, int, int] | None]


class Listening:
    """A tokenizer that remembers which texts gave which tokens: problems may mark or shorten what they are given.

    Args:
        tokenizer: What encodes.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.heard: dict[tuple[int, ...], tuple[tuple[str, ...], dict[str, Any]]] = {}

    def __call__(self, *texts: Sequence[str], **settings: Any) -> Any:
        """Encode texts, as the tokenizer does."""
        told = self.tokenizer(*texts, **settings)
        for ids, row in zip(told["input_ids"], zip(*texts, strict=True), strict=True):
            self.heard[tuple(ids)] = (row, settings)
        return told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def reading(self, ids: Sequence[int], names: Sequence[str], given: Sequence[str]) -> Reading:
        """Return where the tokens of a row are in the text, or the pair of texts, that they were made of.

        Args:
            ids: The row's tokens.
            names: The text columns.
            given: The row's texts.
        """
        texts, settings = self.heard[tuple(ids)]
        told = self.tokenizer(*texts, **{**settings, "return_offsets_mapping": True})
        parts = zip(told.sequence_ids(0), told["offset_mapping"], strict=True)
        places = [None if part is None else (part, *place) for part, place in parts]
        named = dict(zip(names if texts == tuple(given) else _names(len(texts)), texts, strict=True))
        return Reading(named, places)


def encode(rows: pa.Table, problem: Problem, tokenizer: Any) -> tuple[pa.Table, list[Reading]]:
    """Return rows encoded as the problem does it, and where each row's tokens are in its texts.

    Args:
        rows: The problem's input columns.
        problem: What is learned.
        tokenizer: Of the model.
    """
    listening = Listening(tokenizer)
    encoded = problem.encode(rows, listening)  # type: ignore[arg-type]
    names = problem.text_columns
    texts = zip(*([text or "" for text in rows[name].to_pylist()] for name in names), strict=True)
    ids = encoded["input_ids"].to_pylist()
    return encoded, [listening.reading(of, names, given) for of, given in zip(ids, texts, strict=True)]


def _names(number: int) -> list[str]:
    return [AS_READ] if number == 1 else [f"{AS_READ} {i + 1}" for i in range(number)]
