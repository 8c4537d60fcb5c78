"""SLERP: two members' weights mixed along the arc between them, not along the straight line.

Each weight tensor is taken as one long vector. A straight line between two vectors passes nearer to the origin than
either, so their mean is shorter; the arc keeps the length in between. t says how far from the first member to the
second: 0 is the first, 1 the second.

It helps where two members lie far apart, in tensors that turned while they learned. It does not differ from the plain
mean where they lie close, as after a short fine-tuning from a common stage: at an angle of 10 degrees the mean is
0.4 % shorter, and layers that a norm follows do not see even that. It takes exactly two members; for more there are
uniform_soup and ties. What members must have in common is what uniform_soup asks for. Vectors that point to opposite
sides, where no arc is the shortest, are mixed on the straight line.

    fusions: [{name: both, method: {name: slerp, members: [full, lora], t: 0.4}}]

Source: Shoemake (1985), "Animating rotation with quaternion curves", https://doi.org/10.1145/325334.325242,
section 3.3; on weights tensor by tensor, as in mergekit: Goddard et al. (2024), https://arxiv.org/abs/2403.13257.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.errors import ParamsError
from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion._merging import chosen
from ftlib.fusion.base import LINEAR, Fusion, Ingredients, Merged, Merging

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ftlib.targets.base import Target

STRAIGHT = 1e-6
"""Sines of angles up to this are taken for 0: the arc is a line then, or there is no single one."""


class Slerp(Fusion):
    """Two members' weights mixed along an arc."""

    members: tuple[str, ...] | None = Field(None, min_length=2, max_length=2)
    """The two members, in order; may be left out where there are only two."""

    t: float = Field(0.5, ge=0, le=1)
    """How far from the first (0) to the second (1)."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds: the merged model predicts as a member does."""
        return LINEAR

    def merging(self, members: Sequence[str]) -> Merging:
        """Return the two members.

        Raises:
            ParamsError: If there are more or fewer, and none are named.
        """
        two = chosen(self.name, self.members, members)
        if len(two) != 2:
            raise ParamsError(
                f"slerp merges two members; the experiment has {len(two)}. Name two, as in `members: [a, b]`, or use "
                "uniform_soup."
            )
        return Merging(two)

    def merge(self, ingredients: Ingredients) -> Merged:
        """Return the point on the arc, tensor by tensor."""
        first, second = ingredients.weights
        return Merged({name: on_arc(first[name], second[name], self.t) for name in first}, (1 - self.t, self.t))

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return what leaves the merged model's predictions as they are: the mean of one."""
        return WeightedMean(target.unit_kind, "scores", uniform(len(scores)))

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)


def on_arc(first: Tensor, second: Tensor, t: float) -> Tensor:
    """Return the tensor at `t` on the arc from one tensor to another of the same shape, computed in float64."""
    import torch

    one, other = first.double(), second.double()
    lengths = one.norm(), other.norm()
    if not all(lengths):
        return ((1 - t) * one + t * other).to(first.dtype)
    a, b = one / lengths[0], other / lengths[1]
    angle = 2 * torch.atan2((a - b).norm(), (a + b).norm())  # exact for small angles, where arccos is not
    sine = torch.sin(angle)
    if sine <= STRAIGHT:
        return ((1 - t) * one + t * other).to(first.dtype)
    return ((torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / sine).to(first.dtype)
