"""The Fusion contract: one way of combining the members' predictions.

A fusion fits on predictions, never on models, and on rows that no member was trained on. One that has its members
answer together says how (`Fusion.joint`), and fits on what they say. One that makes one model of the members' weights
says so (`Fusion.merging`, `Fusion.merge`), and is fitted on what that model says, its only member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from ftlib.errors import UnsupportedError
from ftlib.plugins import Plugin

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

Weights: TypeAlias = "Mapping[str, Tensor]"
"""A model's weights by name, float32; weights that are tied are there once."""

COMPLETE = frozenset({"single_label", "multi_label", "value", "candidate"})
"""Kinds of units whose scores are all there is to know of them."""

LINEAR = COMPLETE | {"likelihood"}
"""Kinds of units that the members' mean score combines."""

Mean = Literal["arithmetic", "geometric"]


@dataclass(frozen=True)
class Joint:
    """How members answer together, where a fusion has them do so.

    Attributes:
        fusion: Whose wish it is, for messages.
        shares: Each member's weight; they sum to 1. A member at 0 is not run.
        mean: What is averaged: probabilities (arithmetic) or log-probabilities (geometric).
    """

    fusion: str
    shares: tuple[float, ...]
    mean: Mean

    @property
    def used(self) -> tuple[int, ...]:
        """The positions of the members that are run."""
        return tuple(i for i, share in enumerate(self.shares) if share > 0)


@dataclass(frozen=True)
class Merging:
    """Whose weights become one model's, where a fusion merges its members.

    Attributes:
        members: Their names, in the order of merging.
        needs_start: Whether the checkpoint that they all started from is read.
        scored: Whether mixes are scored on held-out rows.
        metric: What they are scored by; the target's main metric where None.
    """

    members: tuple[str, ...]
    needs_start: bool = False
    scored: bool = False
    metric: str | None = None


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What there is to merge.

    Attributes:
        weights: Each member's, with the same names and shapes.
        start: Those that the members started from, less what was drawn at random; {} unless `Merging.needs_start`.
        values: How good each member is on held-out rows, greater is better; () unless `Merging.scored`.
        value_of: Gives the same of any weights; it runs a model over those rows.
    """

    weights: Sequence[Weights]
    start: Weights
    values: Sequence[float]
    value_of: Callable[[Weights], float]


@dataclass(frozen=True, eq=False)
class Merged:
    """One model's weights, and what they were made of.

    Attributes:
        weights: With the members' names and shapes.
        shares: Each member's share, summing to 1; None where the method has none.
        note: What was not as hoped for; "" for nothing.
    """

    weights: Weights
    shares: tuple[float, ...] | None = None
    note: str = ""


class Combiner:
    """A fitted fusion: a plain value that combines predictions and can be saved without pickle.

    Served models call it too, so it needs nothing of the rows it was fitted on, and gives a row the same
    scores whichever rows come with it.
    """

    note: str = ""
    """What was not as hoped for when it was fitted, for its figures; "" for nothing."""

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return fused scores, shape (num_units, num_outputs).

        Members are in the order of fitting. The scores of a member whose weight is 0 are never read: a
        server need not run it, and may give NaN in its place.

        Args:
            scores: Shape (num_members, num_units, num_outputs).
            layout: Which units each row has; None where each row is one.
        """
        raise NotImplementedError

    def weights(self) -> list[float] | None:
        """Return each member's share, summing to 1, where the method has such; a member at 0 need not run."""
        return None

    def save(self, folder: Path) -> None:
        """Write the combiner into a folder: combiner.json, arrays beside it in combiner.npz."""
        raise NotImplementedError


class Fusion(Plugin):
    """One way of combining the members' predictions."""

    kind: ClassVar[str] = "fusion"

    @property
    def unit_kinds(self) -> frozenset[str]:
        """The kinds of units that it combines: see `Target.unit_kind`."""
        return COMPLETE

    def check(self, target: Target) -> None:
        """Refuse, before any work, a target that this fusion cannot combine (UnsupportedError)."""
        if target.unit_kind not in self.unit_kinds:
            raise UnsupportedError(
                f"{self.name} cannot combine tokens of a vocabulary: of most only their sum is known, so that nothing "
                "but a mean of scores stays right. Choose averaging, weighted or greedy, uncalibrated, space: scores."
            )

    def joint(self, num_members: int) -> Joint | None:
        """Return how the members answer together, rather than each for itself (None, as by default).

        They are then run once more, by `Problem.predict_jointly`, and what they say together stands in the place of
        every member's own predictions, wherever this fusion or its combiner is given scores.

        Raises:
            ParamsError: If the parameters do not fit so many members.
        """
        return None

    def merging(self, members: Sequence[str]) -> Merging | None:
        """Return whose weights are made one model's, rather than fusing what members predict (None, as by default).

        That model is an ordinary checkpoint: it costs what one member costs, its predictions stand in the place of the
        members', and it alone is served.

        Args:
            members: The names of the experiment's members, in their order.

        Raises:
            ParamsError: If the parameters do not fit such members.
        """
        return None

    def merge(self, ingredients: Ingredients) -> Merged:
        """Return one model's weights; called where `merging` says so."""
        raise NotImplementedError

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> Combiner:
        """Fit on held-out rows.

        Args:
            scores: Members' scores as `Problem.align` gives them, shape (num_members, num_units, num_outputs).
            references: Gold answers as `Target.encode` gives them, one line a unit.
            target: What is predicted, over the layout of these rows; `unit_kind` says what a unit's scores are.
            seed: For every random choice.

        Raises:
            DataError: If the rows do not allow fitting; the message says what is missing.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Combiner:
        """Read back what `Combiner.save` wrote."""
        raise NotImplementedError
