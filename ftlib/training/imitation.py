"""Imitation: a student's layers learn to make of a row what its teacher's layers make of it.

Jiao et al. (2020), "TinyBERT: Distilling BERT for Natural Language Understanding", https://arxiv.org/abs/1909.10351,
equations 7 to 9: mean squared errors of attention scores before softmax, of hidden states and of embeddings, both
through a learned projection where the student's width is another. Here a row's mean is over its own tokens, without
padding, and a batch's over its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.errors import UnsupportedError
from ftlib.models.layers import block_list
from ftlib.models.observing import Observer, hidden_size, num_heads
from ftlib.training import layer_states
from ftlib.training.batches import ROWS, Rows
from ftlib.training.layer_states import layer_map

NAME = "imitation"
"""What the projections are called among the student's modules while it learns."""


class Imitation(nn.Module):
    """How far a student's layers are from its teacher's.

    Args:
        student: The model that learns.
        kept: What was kept of the teacher.

    Raises:
        UnsupportedError: If the student's heads are not as many as the teacher's, where scores were kept.
    """

    def __init__(self, student: Any, kept: layer_states.Kept) -> None:
        super().__init__()
        self.kept, shape = kept, kept.shape
        chosen = layer_map(len(block_list(student)), shape.num_blocks)
        self.layers = dict(enumerate(chosen)) if shape.layers else {}
        self.blocks = dict(enumerate(chosen[1:], start=1)) if shape.blocks else {}
        if shape.blocks and num_heads(student) != shape.num_heads:
            raise UnsupportedError(
                f"attention_weight needs a student with as many heads as its teacher: it has {num_heads(student)}, the "
                f"teacher {shape.num_heads}; leave attention_weight out, hidden_weight remains."
            )
        self.observer = Observer(student, hidden=self.layers, attention=self.blocks)
        width, taught = hidden_size(student), shape.hidden_size
        is_other = bool(self.layers) and width != taught
        self.embedding_projection = nn.Linear(width, taught, bias=False) if is_other else nn.Identity()
        self.hidden_projection = nn.Linear(width, taught, bias=False) if is_other else nn.Identity()

    def hidden_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum over layers, embeddings among them, of the mean squared error of hidden states."""
        real = self._real(batch)
        taught = self.kept.hidden(batch[ROWS].cpu(), real.cpu())
        counts = real.sum(1)
        shares = torch.repeat_interleave(1 / (counts * len(counts)), counts)
        total = shares.new_zeros(())
        for layer, imitated in self.layers.items():
            projection = self.hidden_projection if layer else self.embedding_projection
            states = projection(self.observer.states[layer][real].float())
            errors = (states - taught[imitated].to(states.device)).square().mean(1)
            total = total + (errors * shares).sum()
        return total

    def attention_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum over blocks of the mean squared error of attention scores before softmax."""
        real = self._real(batch)
        taught = self.kept.attention(batch[ROWS].cpu(), real.cpu())
        pairs = (real[:, None, :, None] & real[:, None, None, :]).float()
        total = pairs.new_zeros(())
        for block, imitated in self.blocks.items():
            errors = (self.observer.scores(block) - taught[imitated].to(pairs.device)).square() * pairs
            total = total + (errors.sum((2, 3)) / pairs.sum((2, 3))).mean()
        return total

    def _real(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which places of the batch are tokens, after making sure that the student has read just those."""
        real = batch["attention_mask"].bool()
        layer_states.check_places(self.observer.shape, real, "student")
        return real


@contextmanager
def imitating(student: Any, folder: Path, rows: Rows) -> Iterator[Imitation]:
    """Let a student's layers be compared with its teacher's while the context is open; projections learn beside it.

    Args:
        student: The model that learns.
        folder: What was kept of its teacher: see `layer_states`.
        rows: What the student trains on.
    """
    imitation = Imitation(student, layer_states.read(folder, rows))
    student.add_module(NAME, imitation)
    try:
        with imitation.observer:
            yield imitation
    finally:
        delattr(student, NAME)
