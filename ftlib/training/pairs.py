"""Pairs of rows that are alike or not, by their labels: what contrastive training reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlib.training.batches import ROWS, Rows, SimilarLengthSampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ftlib.training.batches import BatchSize, Sampler

CANDIDATES = 10
"""How many pairs are looked at for one that is drawn, where there are too many to look at all."""


def alike(first: Any, second: Any) -> Any:
    """Return whether rows have the same label, or one in common.

    Args:
        first: Labels, shape (num_pairs,), or of sets of labels (num_pairs, num_labels), 0 or 1; arrays or tensors.
        second: The same, of the other rows.
    """
    return first == second if first.ndim == 1 else (first * second).any(-1)


def draw(labels: np.ndarray, max_pairs: int, random: np.random.Generator) -> np.ndarray:
    """Return pairs of rows, as many that are alike as that are not, shape (num_pairs, 2).

    All of them, and the rarer kind repeated until both are equally many (SetFit's "oversampling"); a row is a pair
    with itself too, which dropout tells apart.

    Args:
        labels: As `alike` takes them.
        max_pairs: The most pairs; beyond, they are drawn.
        random: Decides which.
    """
    number = len(labels)
    if number * (number + 1) // 2 <= CANDIDATES * max_pairs:
        candidates = random.permutation(np.stack(np.triu_indices(number), axis=1))
    else:
        candidates = random.integers(number, size=(CANDIDATES * max_pairs, 2))
    same = alike(labels[candidates[:, 0]], labels[candidates[:, 1]])
    kinds = [kind[: max_pairs // 2] for kind in (candidates[same], candidates[~same]) if len(kind)]
    most = max(map(len, kinds))
    return np.concatenate([np.resize(kind, (most, 2)) for kind in kinds])


def distinct(rows: Rows) -> np.ndarray:
    """Return the places of rows that differ in their tokens or labels: the first of each."""
    ids, labels = rows.input_ids, rows.fixed["labels"]
    first: dict[tuple[bytes, bytes], int] = {}
    for i, label in enumerate(labels):
        first.setdefault((ids.flat[ids.starts[i] : ids.starts[i + 1]].tobytes(), label.tobytes()), i)
    return np.array(list(first.values()))


@dataclass(frozen=True)
class Pairs(Rows):
    """Rows, of which a batch holds pairs: one after the other, the two rows of each side by side.

    Attributes:
        pairs: Places of rows, shape (num_pairs, 2).
    """

    pairs: np.ndarray = None  # type: ignore[assignment]

    @classmethod
    def of(cls, rows: Rows, pairs: np.ndarray) -> Pairs:
        """Return pairs of rows."""
        return cls(**{f.name: getattr(rows, f.name) for f in fields(Rows)}, pairs=pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def sampler(self, batch_size: BatchSize, seed: int) -> Sampler:
        """Return what draws random batches of an epoch: pairs of similar length repeat the same few texts."""
        lengths = np.full(len(self.pairs), 2 * int(self.lengths.max(initial=1)))
        return SimilarLengthSampler(lengths, replace(batch_size, num_lengths=1), seed)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Return the pairs at `indices` as one padded batch that says which they are, two lines for each."""
        import torch

        return {**self.batch(self.pairs[np.asarray(indices)].reshape(-1)), ROWS: torch.as_tensor(indices)}
