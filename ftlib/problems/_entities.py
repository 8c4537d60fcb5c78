"""Spans as a client is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftlib.problems._words import is_text, places, words_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.tags import Tags


def entities(target: Tags, scores: np.ndarray, tokens: pa.ChunkedArray | pa.Array) -> list[list[dict[str, Any]]]:
    """Return the spans of each row.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_words, num_tags).
        tokens: Lists of words, or texts, in which spans then have places.
    """
    import numpy as np

    splits = target.layout.splits  # type: ignore[union-attr]
    chosen = np.take_along_axis(scores, target.predicted(scores)[:, None], axis=1)[:, 0]
    found = target.spans(scores)
    rows = (np.searchsorted(splits, found.first, side="right") - 1).tolist()
    texts = tokens.to_pylist() if is_text(tokens) else [None] * len(tokens)
    words = words_of(tokens)
    told: list[list[dict[str, Any]]] = [[] for _ in words]
    for row, first, last, kind in zip(rows, found.first.tolist(), found.last.tolist(), found.type, strict=True):
        start = int(splits[row])
        told[row].append({
            "type": target.tags.types[kind],
            **_place(words[row], texts[row], first - start, last - start),
            "score": float(chosen[first : last + 1].min()),
        })  # fmt: skip
    return told


def _place(words: list[str], text: str | None, first: int, last: int) -> dict[str, Any]:
    if text is None:
        shown, start, end = " ".join(words[first : last + 1]), None, None
    else:
        found = places(text)
        start, end = found[first][0], found[last][1]
        shown = text[start:end]
    return {"text": shown, "start": start, "end": end, "first_word": first, "last_word": last}
