"""Uniform soup: the plain mean of the members' weights, one model that costs what one member costs.

Models that were fine-tuned from the same checkpoint, with other rates, seeds, rows or strategies, mostly lie in one
basin of the loss: the mean of their weights is a good model too, often a better one than the mean member, and unlike
the mean of predictions it is run once. Wortsman et al. (2022) gain on the best member by soups, above all on rows from
elsewhere than training.

It helps where all members start from one stage that has a head already (`start_from: warm`, a short one). It does not
where stages start from `base` and each draws a head of its own: nothing ties one head's directions to another's, and
the mean head may say little (a note beside the figures says so). Nor where rates were so high that members left the
basin: a bad member spoils the mean, which greedy_soup prevents. Members must have one architecture, vocabulary and set
of labels: what differs is refused with its name. LoRA members are plain models and fine; prefix members are refused.

    fusions: [uniform_soup, {name: two, method: {name: uniform_soup, members: [full, lora]}}]

Source: Wortsman et al. (2022), "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", https://arxiv.org/abs/2203.05482, section 2; that members share a basin: Neyshabur, Sedghi &
Zhang (2020), https://arxiv.org/abs/2008.11687.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion._merging import chosen, mean
from ftlib.fusion.base import LINEAR, Fusion, Ingredients, Merged, Merging

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target


class UniformSoup(Fusion):
    """The mean of the members' weights."""

    members: tuple[str, ...] | None = Field(None, min_length=1)
    """The members whose weights are merged; all unless given."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds: the merged model predicts as a member does."""
        return LINEAR

    def merging(self, members: Sequence[str]) -> Merging:
        """Return the members to merge."""
        return Merging(chosen(self.name, self.members, members))

    def merge(self, ingredients: Ingredients) -> Merged:
        """Return the mean."""
        shares = uniform(len(ingredients.weights))
        return Merged(mean(ingredients.weights, shares), shares)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return what leaves the merged model's predictions as they are: the mean of one."""
        return WeightedMean(target.unit_kind, "scores", uniform(len(scores)))

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)
