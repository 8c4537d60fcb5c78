"""TIES: what each member has learned, trimmed to its largest changes, merged where members agree on the direction.

A member's change is its weights less those of the checkpoint that all members started from. Three steps: trim, all but
the `density` largest numbers of each member's change (over the whole model) become 0; elect, each weight takes the
direction in which the sum of the trimmed changes points; merge, the mean of those changes that go there and are not 0.
`scaling` times that is added to the start. In a plain mean small changes, which are mostly noise, and changes of
opposite direction pull the large ones towards 0.

It helps where many members have learned different things from one start (other rows, other tasks with one head). It
does not help much where members are alike, as seeds of one stage are: the plain mean loses nothing then, and trimming
does. The start is the nearest stage that all members descend from, or else the base model; weights that the start does
not have, such as a head that each stage drew for itself, are averaged. Members must be built like the start, so no
virtual tokens and no fewer blocks since then. The defaults are those that the paper gives for use without a search; it
finds the result to depend on scaling, for which 0.8 to 1.8 are tried.

    fusions: [ties, {name: denser, method: {name: ties, density: 0.5, scaling: 1.2}}]

Source: Yadav, Tam, Choshen, Raffel & Bansal (2023), "TIES-Merging: Resolving Interference When Merging Models",
https://arxiv.org/abs/2306.01708, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion._merging import chosen, mean
from ftlib.fusion.base import LINEAR, Fusion, Ingredients, Merged, Merging, Weights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ftlib.targets.base import Target


class Ties(Fusion):
    """The members' largest changes, where they agree on the direction."""

    members: tuple[str, ...] | None = Field(None, min_length=1)
    """The members whose weights are merged; all unless given."""

    density: float = Field(0.2, gt=0, le=1)
    """Share of each member's change that is kept: the largest numbers."""

    scaling: float = Field(1.0, gt=0)
    """What the merged change is multiplied by before it is added to the start."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds: the merged model predicts as a member does."""
        return LINEAR

    def merging(self, members: Sequence[str]) -> Merging:
        """Return the members to merge, and that their start is needed."""
        return Merging(chosen(self.name, self.members, members), needs_start=True)

    def merge(self, ingredients: Ingredients) -> Merged:
        """Return the start plus the merged change; the mean of weights that the start does not have."""
        import torch

        members, start = ingredients.weights, ingredients.start
        shares = uniform(len(members))
        merged = mean([{k: v for k, v in one.items() if k not in start} for one in members], shares)
        if start:
            origin = torch.cat([value.flatten() for value in start.values()])
            changes = torch.stack([trimmed(_flat(one, start) - origin, self.density) for one in members])
            merged |= _unflat(origin + self.scaling * agreed(changes), start)
        return Merged({name: merged[name] for name in members[0]})

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return what leaves the merged model's predictions as they are: the mean of one."""
        return WeightedMean(target.unit_kind, "scores", uniform(len(scores)))

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)


def trimmed(change: Tensor, density: float) -> Tensor:
    """Return a member's change with all but its largest numbers set to 0.

    Args:
        change: Shape (num_weights,).
        density: Share that is kept, at least one; numbers as large as the smallest that is kept stay too.
    """
    import torch

    kept = max(1, int(density * len(change)))
    sizes = change.abs()
    smallest = sizes.kthvalue(len(change) - kept + 1).values
    return torch.where(sizes >= smallest, change, 0.0)


def agreed(changes: Tensor) -> Tensor:
    """Return the mean, weight by weight, of those changes that go where their sum points.

    Args:
        changes: Trimmed, shape (num_members, num_weights).
    """
    import torch

    goes = (torch.sign(changes) == torch.sign(changes.sum(0))) & (changes != 0)
    return (changes * goes).sum(0) / goes.sum(0).clamp(min=1)


def _flat(weights: Weights, like: Weights) -> Tensor:
    import torch

    return torch.cat([weights[name].flatten() for name in like])


def _unflat(values: Tensor, like: Weights) -> dict[str, Tensor]:
    parts = values.split([value.numel() for value in like.values()])
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}
