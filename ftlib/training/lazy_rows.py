"""AdamW whose steps leave those rows of the word embeddings alone that their batch does not read.

AdamW moves a row without a gradient all the same: by what is left of its moments, and by decay. Over tens of thousands
of rows, of which a batch reads some hundreds, that is most of its work. Here a row waits until a batch reads it, or
anyone else does, and then catches up with all steps since, in one; gradients are of a batch's rows alone.

A row that step s touched last has at step t the moments b1^(t-s) m and b2^(t-s) v, and AdamW moves it by

    p <- (1 - rate_t decay) p - rate_t / (1 - b1^t) b1^(t-s) m / (sqrt(b2^(t-s) v / (1 - b2^t)) + eps)

(Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", https://arxiv.org/abs/1711.05101, algorithm 2,
with g = 0). Were it not for eps, all that happens to it between s and t were m / sqrt(v) times a number that is the
same for every row of that s: `owed` has the number for each s, divided by the decay up to t, so that a step adds to the
newest `WINDOW` of them and leaves the others. For eps stands its mean over the steps in between, each weighed by how
far it moves the row: so the result is the dense AdamW's but for rounding and what is of second order in eps / sqrt(v).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.adamw import adamw

from ftlib.training.groups import group_of

if TYPE_CHECKING:
    from ftlib.training.embeddings import RowEmbedding

WINDOW = 512
"""Steps after which nothing is left of a first moment: 0.9^512 is 1e-23."""

FEWEST = 2**22
"""Weights of rows in use from which it pays: taking a batch's rows out and putting them back costs time, too."""

BLOCK = 1024
"""Rows that are brought up to date at a time where all are: they stay in the caches."""

SMALLEST = 1e-30
"""Stands for eps where a row is up to date and nothing is divided."""


class LazyAdamW(AdamW):
    """Fused AdamW that moves rows of an embedding only when a batch reads them.

    Args:
        groups: Parameter groups, the embedding's `rows` in one of them.
        learning_rate: Of groups that have none of their own.
        embedding: Its rows become lazy.
        max_steps: The most steps that will ever be taken.
    """

    def __init__(
        self, groups: list[dict[str, Any]], learning_rate: float, embedding: RowEmbedding, max_steps: int
    ) -> None:
        super().__init__(groups, lr=learning_rate, fused=True)
        rows = embedding.rows
        self.state[rows] = {
            "step": torch.zeros((), device=rows.device),
            "exp_avg": torch.zeros_like(rows),
            "exp_avg_sq": torch.zeros_like(rows),
        }
        self.lazy = embedding.lazy = LazyRows(self, rows, max_steps)

    def step(self, closure: Any = None) -> Any:
        """Move everything else densely, and of the rows those that were read."""
        loss = super().step(closure)
        self.lazy.step()
        return loss


@dataclass
class Part:
    """Rows that the step at hand has read.

    Attributes:
        places: Which, shape (num_read,), int64.
        vectors: As they are by now, shape (num_read, width): what learns in their stead.
        moments: AdamW's first and second, of the same shape.
    """

    places: Tensor
    vectors: Tensor
    moments: tuple[Tensor, Tensor]


class LazyRows(nn.Module):
    """What the rows of an embedding are owed, and those that a step has read.

    Args:
        optimizer: Keeps the rows' settings and moments.
        rows: Shape (number, width).
        max_steps: The most steps that will ever be taken.
    """

    clock: Tensor
    last: Tensor
    decays: Tensor
    owed: Tensor
    softened: Tensor

    def __init__(self, optimizer: AdamW, rows: nn.Parameter, max_steps: int) -> None:
        super().__init__()
        self._of = (optimizer, rows)  # in a tuple, or the rows would be a parameter of this module, too
        by_step = torch.zeros(max_steps + 1, dtype=torch.float64, device=rows.device)
        clock = torch.zeros((), dtype=torch.long)  # goes back with the best weights, unlike the optimizer's "step"
        self.register_buffer("clock", clock)
        self.register_buffer("last", torch.zeros(len(rows), dtype=torch.long, device=rows.device))
        self.register_buffer("decays", by_step + 1)
        self.register_buffer("owed", by_step)
        self.register_buffer("softened", by_step.clone())
        self.gaps = torch.arange(WINDOW, 0, -1, dtype=torch.float64, device=rows.device)
        self.slots = torch.full((len(rows),), -1, device=rows.device)
        self.parts: list[Part] = []
        self.is_open = False

    @property
    def _group(self) -> dict[str, Any]:
        return group_of(*self._of)

    @property
    def _state(self) -> dict[str, Tensor]:
        optimizer, rows = self._of
        return optimizer.state[rows]

    def open(self) -> None:
        """Begin a step: what is read from now on learns."""
        self._close()
        self.is_open = True

    def _close(self) -> None:
        for part in self.parts:
            self.slots[part.places] = -1
        self.parts, self.is_open = [], False

    def vectors(self, places: Tensor, padding_place: int | None = None) -> Tensor:
        """Return rows as they are by now.

        Args:
            places: Which, any shape, int64.
            padding_place: One that has no gradient.

        Returns:
            Shape (*places.shape, width). Their gradient is that of the step's parts; of the rows while no step is open.
        """
        if self.is_open:
            return self._read(places, padding_place)
        rows, flat = self._of[1], places.flatten()
        with torch.no_grad():
            kept, moved = self._since(flat, *self._moments(flat))
        found = nn.functional.embedding(flat, rows, padding_idx=padding_place) * kept - moved
        return found.view(*places.shape, -1)

    def _read(self, places: Tensor, padding_place: int | None) -> Tensor:
        fresh = places[self.slots[places] < 0].unique()
        if len(fresh) or not self.parts:
            start = sum(len(part.places) for part in self.parts)
            self.slots[fresh] = torch.arange(start, start + len(fresh), device=fresh.device)
            self.parts.append(self._caught_up(fresh))
            self.parts[-1].vectors.requires_grad_()
        table = torch.cat([p.vectors for p in self.parts]) if len(self.parts) > 1 else self.parts[0].vectors
        padding = -1 if padding_place is None else int(self.slots[padding_place])
        return nn.functional.embedding(self.slots[places], table, padding_idx=padding if padding >= 0 else None)

    @torch.no_grad()
    def _caught_up(self, places: Tensor) -> Part:
        first, second = self._moments(places)
        kept, moved = self._since(places, first, second)
        beta1, beta2 = self._group["betas"]
        gaps = (self.clock - self.last[places]).double()
        faded = torch.where(gaps < WINDOW, beta1**gaps, 0.0)  # below that, numbers so small that they are slow
        vectors = self._of[1].index_select(0, places).mul_(kept).sub_(moved)
        return Part(places, vectors, (first.mul_(_column(faded, first)), second.mul_(_column(beta2**gaps, second))))

    def all(self) -> Tensor:
        """Return all rows as they are by now, shape (number, width)."""
        return torch.cat([self.vectors(places) for places in self._blocks()])

    @torch.no_grad()
    def catch_up(self) -> None:
        """Bring all rows up to date where they are kept."""
        for places in self._blocks():
            self._put(self._caught_up(places))

    def _blocks(self) -> Sequence[Tensor]:
        return torch.arange(len(self.last), device=self.last.device).split(BLOCK)

    @torch.no_grad()
    def step(self) -> None:
        """Take AdamW's step with the rows that were read, and note what the others are owed. None open: nothing."""
        if not self.is_open:
            return
        group, step = self._group, self._state["step"]
        beta1, beta2 = group["betas"]
        self.clock += 1
        for part in self.parts:
            if part.vectors.grad is not None:
                adamw(
                    [part.vectors], [part.vectors.grad], [part.moments[0]], [part.moments[1]], [], [step.clone()],
                    fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"], eps=group["eps"],
                    weight_decay=group["weight_decay"], maximize=False,
                )  # fmt: skip
                self._put(part)
        step += 1
        self._owe(int(self.clock), group)
        self._close()

    def _owe(self, step: int, group: dict[str, Any]) -> None:
        """Add a step to what rows are owed that it did not touch."""
        beta1, beta2 = group["betas"]
        start = max(0, step - WINDOW)
        gaps = self.gaps[start - step :]
        self.decays[step] = self.decays[step - 1] * (1 - group["lr"] * group["weight_decay"])
        rest = math.sqrt(1 - beta2**step)
        moves = (beta1 / math.sqrt(beta2)) ** gaps * (group["lr"] * rest / (1 - beta1**step)) / self.decays[step]
        self.owed[start:step] += moves
        self.softened[start:step] += moves * (group["eps"] * rest) / beta2 ** (gaps / 2)

    def _since(self, places: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return by what rows are to be multiplied, and what is to be taken off then, to bring them up to date."""
        last = self.last[places]
        decay, owed = self.decays[self.clock], self.owed[last]
        eps = (self.softened[last] / owed.clamp_min(SMALLEST)).clamp_min(SMALLEST)
        moved = first * _column(owed * decay, first) / second.sqrt().add_(_column(eps, first))
        return _column(decay / self.decays[last], first), moved

    def _moments(self, places: Tensor) -> tuple[Tensor, Tensor]:
        state = self._state
        return state["exp_avg"].index_select(0, places), state["exp_avg_sq"].index_select(0, places)

    def _put(self, part: Part) -> None:
        state = self._state
        self._of[1].index_copy_(0, part.places, part.vectors)
        state["exp_avg"].index_copy_(0, part.places, part.moments[0])
        state["exp_avg_sq"].index_copy_(0, part.places, part.moments[1])
        self.last.index_fill_(0, part.places, int(self.clock))


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).unsqueeze(1)
