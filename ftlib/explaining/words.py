"""Words of a text, by their places in it: what attributions of tokens are gathered into.

Words are those of the text, not of a tokenizer, so that models with different tokenizers can be compared and added
up. In scripts that put no space between words, each character is a word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, kana and Han."""

WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:[\u0300-\u036f'\u2019.\-][^\W_{_UNSPACED}]+)*|\S")
"""A character of an unspaced script; letters and digits, with what joins them inside; or any other sign."""


def words_of(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text begin and end, in characters."""
    return [match.span() for match in WORD.finditer(text)]


def spread(
    values: np.ndarray, places: Sequence[tuple[int, int] | None], words: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, float]:
    """Return the values of tokens as values of words, and the sum of those that belong to no word.

    A token that reaches over several words is shared out by characters.

    Args:
        values: One a token.
        places: Where each token is in the text, in characters; None where it is not in it.
        words: As `words_of` gives them.
    """
    import numpy as np

    found, rest = np.zeros(len(words)), 0.0
    starts, ends = (np.array([word[side] for word in words], dtype=np.int64) for side in (0, 1))
    for value, place in zip(values.tolist(), places, strict=True):
        start, end = place or (0, 0)
        first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(starts, end, side="left")
        shared = np.minimum(ends[first:last], end) - np.maximum(starts[first:last], start)
        if shared.sum() > 0:
            found[first:last] += value * shared / shared.sum()
        else:
            rest += value
    return found, rest
