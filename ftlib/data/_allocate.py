"""Allocating rows to splits: by proportion where there are many alike, one by one where there are few.

Frequent strata (a label, a combination of labels, a bin of values) are divided by scikit-learn's stratified
shuffling. What is left, rare combinations, or whole groups, is placed greedily, the largest first, each where it
brings the label counts nearest to the wanted ones; every label has a row in train first. The greedy part follows
Sechidis, Tsoumakas & Vlahavas (2011), "On the Stratification of Multi-label Data",
https://doi.org/10.1007/978-3-642-23808-6_10, with a chi-square distance so that groups of any size fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.data._strata import frequent

if TYPE_CHECKING:
    import numpy as np

    from ftlib.data._strata import Strata

LEAST_WANTED = 0.25
"""Wanted counts below this count as this, so that no split is charged endlessly for a rare label."""


@dataclass(frozen=True)
class Allocation:
    """Where rows went.

    Attributes:
        names: The split of each row, shape (num_rows,), object.
        carved: The splits taken out of train.
        stratified: Whether rows were divided by label.
    """

    names: np.ndarray
    carved: tuple[str, ...]
    stratified: bool


def allocate(
    units: np.ndarray, strata: Strata | None, shares: Mapping[str, float], *, grouped: bool, seed: int
) -> Allocation:
    """Return a split for each row; rows of a unit stay together.

    Args:
        units: A number for each row, dense from 0: equal inputs, or groups, shape (num_rows,).
        strata: The rows' labels; None draws without looking at them.
        shares: The splits to take out -> their share of the rows.
        grouped: Whether units are groups, to be placed one by one; else almost every unit is a single row.
        seed: Rows are drawn by it.
    """
    import numpy as np

    names = ("train", *shares)
    wanted = np.array([1 - sum(shares.values()), *shares.values()])
    num_units = int(units.max(initial=-1)) + 1
    random = np.random.default_rng(seed)
    split = np.full(num_units, -1)
    if shares and not grouped:
        _by_proportion(split, _unit_strata(units, strata), wanted, seed)
    left = np.flatnonzero(split < 0)
    if not shares:
        split[:] = 0
    elif len(left):
        _Greedy(units, strata, wanted, split).place(random.permutation(left))
    return Allocation(np.array(names, dtype=object)[split[units]], tuple(shares), bool(shares) and strata is not None)


def _unit_strata(units: np.ndarray, strata: Strata | None) -> np.ndarray:
    """Return the stratum of each unit: that of its first row."""
    import numpy as np

    first = np.unique(units, return_index=True)[1]
    return np.zeros(len(first), np.int64) if strata is None else strata.combination[first]


def _by_proportion(split: np.ndarray, strata: np.ndarray, wanted: np.ndarray, seed: int) -> None:
    """Give the units of frequent strata to splits, in place; leave the others at -1."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    many = np.flatnonzero(frequent(np.bincount(strata), wanted[1:].min())[strata])
    sizes = np.maximum(1, np.round(wanted[1:] * len(many)).astype(int))
    if min(len(many) - sizes.sum(), *sizes) < len(np.unique(strata[many])) or not len(many):
        return
    rest = many
    for number, size in enumerate(sizes.tolist(), 1):
        rest, taken = train_test_split(rest, test_size=size, stratify=strata[rest], random_state=seed + number)
        split[taken] = number
    split[rest] = 0


class _Greedy:
    """Places units one by one.

    Args:
        units: The unit of each row.
        strata: The rows' labels, or None.
        wanted: The share of each split, train first.
        split: The split of each unit, -1 where it is open; filled in place.
    """

    def __init__(self, units: np.ndarray, strata: Strata | None, wanted: np.ndarray, split: np.ndarray) -> None:
        import numpy as np

        self.split = split
        rows, labels = (np.arange(0), np.arange(0)) if strata is None else (strata.rows, strata.labels)
        num_labels = int(labels.max(initial=-1)) + 1
        # one more label that every row has: the split's size
        pairs = np.concatenate([units[rows] * (num_labels + 1) + labels, units * (num_labels + 1) + num_labels])
        pairs, counts = np.unique(pairs, return_counts=True)
        self.unit_of, self.label_of, self.counts = pairs // (num_labels + 1), pairs % (num_labels + 1), counts
        self.starts = np.searchsorted(self.unit_of, np.arange(len(split) + 1))
        self.sizes = np.bincount(units, minlength=len(split))
        totals = np.bincount(self.label_of, self.counts, num_labels + 1)
        self.wanted = np.maximum(wanted[:, None] * totals, LEAST_WANTED)
        self.has = np.zeros_like(self.wanted)
        done = split[self.unit_of] >= 0
        np.add.at(self.has, (split[self.unit_of[done]], self.label_of[done]), self.counts[done])

    def place(self, order: np.ndarray) -> None:
        """Place the open units, the largest first, in the given order where sizes are equal."""
        import numpy as np

        ordered = order[np.argsort(-self.sizes[order], kind="stable")]
        self._every_label_in_train(ordered[::-1])
        for unit in ordered.tolist():
            if self.split[unit] < 0:
                self._put(unit, int(self._costs(unit).argmin()))

    def _every_label_in_train(self, smallest_first: np.ndarray) -> None:
        import numpy as np

        rank = np.full(len(self.split), len(self.split))
        rank[smallest_first] = np.arange(len(smallest_first))
        num_units = np.bincount(self.label_of)
        for label in np.argsort(num_units, kind="stable").tolist():
            if not self.has[0, label]:
                owners = self.unit_of[self.label_of == label]
                self._put(int(owners[rank[owners].argmin()]), 0)

    def _costs(self, unit: int) -> np.ndarray:
        """Return by how much each split's chi-square distance from the wanted counts grows with this unit."""
        at = slice(self.starts[unit], self.starts[unit + 1])
        labels, counts = self.label_of[at], self.counts[at]
        wanted = self.wanted[:, labels]
        return ((2 * (self.has[:, labels] - wanted) * counts + counts**2) / wanted).sum(axis=1)

    def _put(self, unit: int, split: int) -> None:
        at = slice(self.starts[unit], self.starts[unit + 1])
        self.split[unit] = split
        self.has[split, self.label_of[at]] += self.counts[at]
