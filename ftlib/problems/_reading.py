"""Where the tokens that a model reads are in the texts of their row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

AS_READ = "text as read"
"""What a text is called that a problem changes before the model reads it."""

Place: TypeAlias = tuple[int, int, int]
"""Which text, by number, and the first character and the one after the last."""


@dataclass(frozen=True)
class Reading:
    """The texts of a row, and where what the model reads is in them.

    Attributes:
        texts: Name -> text. Names of a column's parts begin with the column's: "choices 1".
        places: For each token, then for each patch of an image, where it is; None where it is in no text.
        parts: Name -> the parts that are weighed (start, end, what it is called), of a text that has no words.
    """

    texts: dict[str, str]
    places: list[Place | None]
    parts: Mapping[str, Sequence[tuple[int, int, str]]] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What an empty input lacks: "words", "the image", or "words and the image"."""
        words = ["words"] if len(self.texts) > len(self.parts) else []
        return " and ".join([*words, *(f"the {name}" for name in self.parts)])


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

    def encode(self, text: str, **settings: Any) -> list[int]:
        """Encode a text, as the tokenizer does."""
        return self([text], **settings)["input_ids"][0]

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def places(self, ids: Sequence[int]) -> tuple[tuple[str, ...], list[Place | None]]:
        """Return the text, or the pair of texts, that tokens were made of, and where in them each token is.

        Args:
            ids: All that was heard of a text, or a stretch of it.
        """
        whole, first = self._holding(tuple(ids))
        texts, settings = self.heard[whole]
        told = self.tokenizer(*([text] for text in texts), **{**settings, "return_offsets_mapping": True})
        parts = zip(told.sequence_ids(0), told["offset_mapping"][0], strict=True)
        places: list[Place | None] = [None if part is None else (part, *place) for part, place in parts]
        return texts, places[first : first + len(ids)]

    def _holding(self, ids: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Return the tokens that hold these, and where these begin among them."""
        if ids in self.heard:
            return ids, 0
        size = len(ids)
        return next((w, i) for w in self.heard for i in range(len(w) - size + 1) if w[i : i + size] == ids)

    def reading(self, ids: Sequence[int], names: Sequence[str], given: Sequence[str]) -> Reading:
        """Return where tokens are in a row's texts; in what the model reads in their place, where that is different.

        Text that a problem writes before or after the row's own, such as an instruction, is none of the row's.

        Args:
            ids: The row's tokens.
            names: What its texts are called.
            given: The row's texts.
        """
        texts, places = self.places(ids)
        if len(texts) != len(given) or any(own not in text for own, text in zip(given, texts, strict=True)):
            return Reading(dict(zip(_names(len(texts)), texts, strict=True)), places)
        inside = [within(place, [t.find(o) for o, t in zip(given, texts, strict=True)], given) for place in places]
        return Reading(dict(zip(names, given, strict=True)), inside)


def within(place: Place | None, starts: Sequence[int], texts: Sequence[str]) -> Place | None:
    """Return where a token is in one of the texts, given where it is in a longer one that holds the text.

    Args:
        place: In the longer one, of the same number.
        starts: Where each text begins there.
        texts: The texts.
    """
    if place is None:
        return None
    part, first, last = place
    start, size = starts[part], len(texts[part])
    inside = max(first - start, 0), min(last - start, size)
    return (part, *inside) if inside[0] < inside[1] else None


def _names(number: int) -> list[str]:
    return [AS_READ] if number == 1 else [f"{AS_READ} {i + 1}" for i in range(number)]
