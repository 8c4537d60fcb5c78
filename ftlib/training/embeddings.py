"""Word embeddings of which only some rows learn.

The word embeddings are half of a small encoder, but a batch touches under a thousand of their 30,000 rows.
Zeroing, clipping and updating a dense gradient for the others costs a tenth of a step and more. Here
the rows in use are a parameter of their own.

With AdamW the result is that of the dense gradient, but for rounding: a row that no batch ever
touches has no gradient and no moments, so its update is the weight decay alone, the same factor for
all such rows. `RowEmbedding.decay` collects that factor, `merged` applies it. Where the rows in use are many, `lazy`
spares each step those that its batch does not read (`ftlib.training.lazy_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ftlib.training.lazy_rows import LazyRows

BLOCK = 1024
"""Rows of the table that are merged at a time: they stay in the caches."""


class RowEmbedding(nn.Module):
    """An embedding whose `rows` are trained while the rest of its table stays.

    Args:
        table: The whole embedding; frozen here.
        ids: The rows to train, unique.
    """

    ids: Tensor
    places: Tensor
    rest_scale: Tensor

    def __init__(self, table: nn.Embedding, ids: Tensor) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.rows = nn.Parameter(table.weight.detach()[ids].clone())
        places = torch.full((table.num_embeddings,), -1, device=ids.device)
        places[ids] = torch.arange(len(ids), device=ids.device)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("rest_scale", torch.ones((), dtype=torch.float64))
        padding = table.padding_idx
        at = None if padding is None else int(places[padding])
        self.padding_place = None if at is None or at < 0 else at
        self.covers_all = False
        self.lazy: LazyRows | None = None
        self._gradient: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The whole table as it is now, for those that look at an embedding's weight."""
        return self.merged()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors of `input_ids`, shape (batch_size, length, hidden_size)."""
        places = self.places[input_ids]
        known = places >= 0
        if (self.training and self.covers_all) or bool(known.all()):
            return self._learned(places)
        rest = nn.functional.embedding(input_ids, self.table.weight) * self.rest_scale.to(self.rows.dtype)
        return torch.where(known.unsqueeze(-1), self._learned(places.clamp_min(0)), rest)

    def _learned(self, places: Tensor) -> Tensor:
        if self.lazy is not None:
            return self.lazy.vectors(places, self.padding_place)
        rows = self.rows
        has_gradient = rows.is_leaf and rows.grad is not None  # to which a sparse one is added in place
        return nn.functional.embedding(places, rows, padding_idx=self.padding_place, sparse=has_gradient)

    @property
    def is_learning(self) -> bool:
        """Whether a step moves the rows themselves, not a network that makes them."""
        return self.rows.is_leaf and self.rows.requires_grad

    def begin_step(self) -> None:
        """Have the next backward pass add to a gradient of zeros whose memory is kept from step to step.

        A new one at each step, most of it zeros, costs its page faults: more time than its update. Lazy rows have no
        such gradient.
        """
        if not self.is_learning:
            return
        if self.lazy is not None:
            self.lazy.open()
        elif self.rows.grad is None:
            if self._gradient is None:
                self._gradient = torch.zeros_like(self.rows)
            self.rows.grad = self._gradient.zero_()

    def in_their_stead(self) -> list[Tensor]:
        """Return what has gradients in the place of the rows: where they are lazy, those that the step has read."""
        return [part.vectors for part in self.lazy.parts] if self.lazy is not None else []

    def catch_up(self) -> None:
        """Bring all rows up to date where they are kept; they are unless they are lazy."""
        if self.lazy is not None:
            self.lazy.catch_up()

    def decay(self, learning_rate: float, weight_decay: float) -> None:
        """Note an optimizer step: the rows that have no gradient decay by this factor."""
        self.rest_scale.mul_(1 - learning_rate * weight_decay)

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Return the whole table with what was learned in it."""
        return self._merge_into(torch.empty_like(self.table.weight))

    @torch.no_grad()
    def settle(self) -> None:
        """Write what was learned into the table itself."""
        self._merge_into(self.table.weight)
        self.rest_scale.fill_(1.0)

    def _merge_into(self, weight: Tensor) -> Tensor:
        for part, kept in zip(weight.split(BLOCK), self.table.weight.split(BLOCK), strict=True):
            part.copy_(kept.double() * self.rest_scale)
        rows = self.rows if self.lazy is None else self.lazy.all()
        weight[self.ids] = rows.detach().to(weight.dtype)
        return weight


def learn_rows(model: nn.Module, ids: Tensor) -> RowEmbedding:
    """Replace the model's word embeddings by ones of which only the rows `ids` learn."""
    table = model.get_input_embeddings()  # type: ignore[operator]
    embedding = RowEmbedding(table, ids.to(table.weight.device))
    model.set_input_embeddings(embedding)  # type: ignore[operator]
    return embedding


def restore(model: nn.Module) -> None:
    """Put plain word embeddings back, with what was learned in them."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    embedding.settle()
    model.set_input_embeddings(embedding.table)  # type: ignore[operator]


def before_rows(model: nn.Module, name: str) -> tuple[str, Tensor | None]:
    """Return what a parameter was called before `learn_rows`, and which rows of that it holds; None: all."""
    owner, _, last = name.rpartition(".")
    module = model.get_submodule(owner)
    return (f"{owner}.weight", module.ids) if isinstance(module, RowEmbedding) and last == "rows" else (name, None)


def append_rows(model: nn.Module, num_rows: int) -> None:
    """Give the word embeddings room for rows up to `num_rows`, new ones zero; never shrinks."""
    if model.get_input_embeddings().num_embeddings < num_rows:  # type: ignore[operator]
        table = model.get_input_embeddings()  # type: ignore[operator]
        size = table.num_embeddings
        model.resize_token_embeddings(num_rows, mean_resizing=False)  # type: ignore[operator]
        with torch.no_grad():
            model.get_input_embeddings().weight[size:] = 0  # type: ignore[operator]
