"""What fusions that merge weights share: which members they take, and the mean of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftlib.errors import ParamsError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from ftlib.fusion.base import Weights


def chosen(fusion: str, wanted: Sequence[str] | None, members: Sequence[str]) -> tuple[str, ...]:
    """Return the members whose weights are merged: those that are named, or all.

    Args:
        fusion: Who merges, for messages.
        wanted: Names in the order of merging; None for all.
        members: The experiment's members, in their order.

    Raises:
        ParamsError: If a name is no member's, or is there twice.
    """
    if wanted is None:
        return tuple(members)
    for i, name in enumerate(wanted):
        if name not in members:
            raise ParamsError(f"{fusion}: {unknown('member', name, members)}")
        if name in wanted[:i]:
            raise ParamsError(f"{fusion}: member {name!r} is named twice in members; name each once.")
    return tuple(wanted)


def mean(weights: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return the members' weighted mean, weight by weight, computed in float64.

    Args:
        weights: One a member, with the same names and shapes.
        shares: One a member; they sum to 1.
    """
    return {
        name: sum(
            (share * one[name].double() for share, one in zip(shares[1:], weights[1:], strict=True)),
            start=shares[0] * first.double(),
        ).to(first.dtype)
        for name, first in weights[0].items()
    }
