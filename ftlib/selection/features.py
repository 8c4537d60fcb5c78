"""Frozen features: what a pretrained model makes of rows, one vector for each thing that has a label.

For a text it is the mean of its tokens' last hidden states (of an encoder-decoder, the encoder's), for a word the state
of its first piece, which the problem's own head reads. The mean, since the first token of a pretrained encoder, which
its head will read, says little before it is fine-tuned, and a pooler may be drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target

POOLED = frozenset({"single_label", "multi_label", "value"})
"""Kinds of target with one answer a text."""

WORDS = frozenset({"tags"})
"""Kinds with one label a word."""

MOST_UNITS = 20_000
"""The most words that a score reads; a sample of 1,000 rows rarely has more."""


@dataclass(frozen=True)
class Samples:
    """Features and what they are to explain.

    Attributes:
        features: Shape (num_units, width), float32.
        labels: As `Target.encode` gives them, one line a unit.
        target: What is predicted of a unit.
    """

    features: np.ndarray
    labels: np.ndarray
    target: Target

    def columns(self) -> np.ndarray:
        """Return the labels as numbers to be explained, shape (num_units, num_outputs); values at unit variance."""
        import numpy as np

        if self.target.kind == "single_label":
            return np.eye(self.target.num_outputs)[self.labels]
        if self.target.kind == "multi_label":
            return self.labels
        values = self.labels.astype(np.float64)
        spread = float(values.std())
        return ((values - values.mean()) / (spread or 1.0))[:, None]


def samples(checkpoint: Checkpoint, rows: pa.Table, problem: Problem) -> Samples:
    """Return the features of encoded rows, in one pass.

    Args:
        checkpoint: Its backbone is pretrained; what its head gives is not looked at.
        rows: Encoded, with labels.
        problem: Its target is of `POOLED` or `WORDS`.

    Raises:
        DataError: If the model's states are not finite.
    """
    import numpy as np

    found = (_words if problem.target.kind in WORDS else _texts)(checkpoint, rows, problem)
    if not np.isfinite(found.features).all():
        raise DataError("its hidden states are not finite: the model is broken.")
    return found


def _texts(checkpoint: Checkpoint, rows: pa.Table, problem: Problem) -> Samples:
    import numpy as np

    from ftlib.training.batches import values

    parts = [(indices, _means(states, mask)) for indices, states, mask in _states(checkpoint, rows, problem)]
    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    features = np.concatenate([vectors for _, vectors in parts])[order]
    return Samples(features, values(rows["labels"]), problem.target)


def _words(checkpoint: Checkpoint, rows: pa.Table, problem: Problem) -> Samples:
    import numpy as np

    from ftlib.problems._words import Owned
    from ftlib.targets.losses import IGNORED
    from ftlib.targets.single_label import SingleLabel
    from ftlib.training.batches import Lists

    owned = Owned.of(rows)
    labels = np.empty(len(owned.units), np.int64)
    labels[owned.units] = Lists.of(rows["labels"], IGNORED).flat[owned.mask]
    features = np.empty((len(labels), 0), np.float32)
    for indices, states, _ in _states(checkpoint, rows, problem):
        tokens, units = owned.in_batch(indices)
        features = features if features.size else np.empty((len(labels), states.shape[-1]), np.float32)
        features[units] = states[tokens]
    kept = np.sort(np.random.default_rng(len(labels)).permutation(len(labels))[:MOST_UNITS])
    return Samples(features[kept], labels[kept], SingleLabel(problem.target.labels))


def _means(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of each row's real tokens, shape (num_rows, width)."""
    real = mask[..., None].astype(states.dtype)
    return (states * real).sum(1) / real.sum(1)


def _states(
    checkpoint: Checkpoint, rows: pa.Table, problem: Problem
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield batches: their positions in `rows`, the last hidden states, and which tokens are real."""
    from ftlib.models.forward import forward
    from ftlib.models.layers import halves

    masks: list[Any] = []

    def watch(batch: Mapping[str, Tensor], logits: Tensor) -> None:
        masks.append(batch["attention_mask"])

    with _listening(halves(checkpoint.model)[0]) as heard:
        for indices, _ in forward(checkpoint, rows, problem, precision="auto", watch=watch):
            yield indices, heard.pop().float().cpu().numpy(), masks.pop().cpu().numpy()


@contextmanager
def _listening(backbone: nn.Module) -> Iterator[list[Any]]:
    """Give a list that receives the hidden states of each pass."""
    heard: list[Any] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        states = getattr(output, "last_hidden_state", None)
        heard.append(output[0] if states is None else states)

    handle = backbone.register_forward_hook(hook)
    try:
        yield heard
    finally:
        handle.remove()
