"""What can be said of merging members before any work: by what their stages are, and what they start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError
from ftlib.params.experiment import BASE, Experiment, Stage

if TYPE_CHECKING:
    from ftlib.fusion.base import Fusion
    from ftlib.models.sizes import Size


def check_mergeable(experiment: Experiment, fusion: Fusion, sizes: Mapping[str, Size]) -> None:
    """Refuse a fusion that would merge members whose weights do not stand for the same.

    What stages do not tell, such as vocabularies, is compared when they are merged: `ftlib.models.merging`.

    Args:
        experiment: Its names and references right.
        fusion: Any.
        sizes: Stage -> what it leaves of its base model's size, where that is known.

    Raises:
        UnsupportedError: With the two members, what differs, and what to do.
        ParamsError: If the fusion's parameters do not fit the members.
    """
    merging = fusion.merging([stage.name for stage in experiment.members()])
    if merging is None:
        return
    from ftlib.models.merging import cannot, other_start

    first, *others = [experiment.stage(name) for name in merging.members]
    for other in others:
        difference = _difference(experiment, first, other, sizes)
        if difference:
            raise UnsupportedError(cannot(fusion.name, first.name, other.name, difference))
    if merging.needs_start:
        start = experiment.common_start(merging.members)
        difference = _other_size(sizes.get(first.name), _size(experiment, start, first, sizes))
        if difference:
            raise UnsupportedError(other_start(fusion.name, difference))


def _difference(experiment: Experiment, first: Stage, second: Stage, sizes: Mapping[str, Size]) -> str:
    """Return the first thing in which two stages' checkpoints are built otherwise, in words; "" for none."""
    from ftlib.models.merging import beyond_weights

    beyond = beyond_weights(*(stage.strategy.leaves | experiment.left_before(stage) for stage in (first, second)))
    if beyond:
        return beyond
    roots = [experiment.root_model(stage) for stage in (first, second)]
    if roots[0] != roots[1]:
        return f"the former descends from {roots[0]}, the latter from {roots[1]}"
    return _other_size(sizes.get(first.name), sizes.get(second.name))


def _other_size(first: Size | None, second: Size | None) -> str:
    if first is None or second is None:
        return ""
    if first.blocks != second.blocks:
        one, other = (" + ".join(map(str, size.blocks)) for size in (first, second))
        return f"the former has {one} blocks, the latter {other}"
    if first.num_virtual_tokens != second.num_virtual_tokens:
        one, other = str(first.num_virtual_tokens), str(second.num_virtual_tokens)
        return f"the former has {one} virtual tokens, the latter {other}"
    if first.widths is None or second.widths is None or first.widths == second.widths:
        return ""
    return f"the former has {first.widths}, the latter {second.widths}"


def _size(experiment: Experiment, name: str, stage: Stage, sizes: Mapping[str, Size]) -> Size | None:
    from ftlib.models.sizes import size_of

    return size_of(experiment.root_model(stage)) if name == BASE else sizes.get(name)
