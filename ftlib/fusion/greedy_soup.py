"""Greedy soup: members go into the mean of weights one by one, best first, and stay where it gets no worse.

The members are sorted by their score on held-out rows; the soup starts with the best one, and each next one is kept if
the mean with it scores at least as well as without. So it is never worse than the best member on those rows, and a
member that left the common basin stays out. It is one model, run once.

The rows are those of the fusion split where there is one, else validation. In the latter case its score on validation
is one that it was chosen by (as a stage's is, by its best epoch), so a little high; the test score is honest. Each
member but the first costs one pass over these rows, where texts are generated that is slow.

It helps where members are of mixed quality: a sweep over rates, a stage that went wrong. It does not help more than
uniform_soup where all are good, and on a few hundred rows a member is kept or left out by chance. What members must
have in common is the same: one architecture, vocabulary and set of labels, and best one stage that they all start from.

    fusions: [greedy_soup, {name: by-loss, method: {name: greedy_soup, metric: log_loss}}]

Source: Wortsman et al. (2022), "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", https://arxiv.org/abs/2203.05482, section 2, recipe 1.
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


class GreedySoup(Fusion):
    """The mean of the weights of those members that do it good."""

    members: tuple[str, ...] | None = Field(None, min_length=1)
    """The members that are tried; all unless given."""

    metric: str | None = None
    """What they are chosen by; the problem's main metric unless given."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds: the merged model predicts as a member does."""
        return LINEAR

    def check(self, target: Target) -> None:
        """Refuse a metric that the target does not have (ParamsError)."""
        from ftlib.evaluation.measures import check_metric

        super().check(target)
        if self.metric is not None:
            check_metric(self.metric, target)

    def merging(self, members: Sequence[str]) -> Merging:
        """Return the members to try."""
        return Merging(chosen(self.name, self.members, members), scored=True, metric=self.metric)

    def merge(self, ingredients: Ingredients) -> Merged:
        """Return the mean of the members that are kept; of equal ones the earlier comes first."""
        weights, values = ingredients.weights, ingredients.values
        ranked = sorted(range(len(weights)), key=lambda i: -values[i])
        kept, soup, best = ranked[:1], weights[ranked[0]], values[ranked[0]]
        for i in ranked[1:]:
            tried = mean([weights[k] for k in (*kept, i)], uniform(len(kept) + 1))
            value = ingredients.value_of(tried)
            if value >= best:
                kept, soup, best = [*kept, i], tried, value
        shares = tuple(1 / len(kept) if i in kept else 0.0 for i in range(len(weights)))
        alone = len(kept) == 1 < len(weights)
        return Merged(soup, shares, "no member did the best one good, which is alone in the soup" if alone else "")

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return what leaves the merged model's predictions as they are: the mean of one."""
        return WeightedMean(target.unit_kind, "scores", uniform(len(scores)))

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)
