"""Merging: several checkpoints opened, compared, and made one by a fusion that combines their weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError
from ftlib.fusion.base import Ingredients, Merged
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.fusion.base import Fusion, Merging, Weights
    from ftlib.problems.base import Problem

MERGED = "merged"
"""What ftlib.json says of a merged checkpoint under this key: members, weights (member -> share, or null), note."""

OF_THE_STAGE = ("strategy", "tuned", "num_trainable_parameters")
"""Settings of a member that are not the merged model's."""

BESIDE_WEIGHTS = frozenset({"prefix"})
"""What of `Strategy.leaves` is weights that are no part of the model's own."""

AROUND_TEXT = {"virtual_tokens": "virtual tokens", "cloze": "cloze templates or words"}
"""Settings of a checkpoint that say what it puts around a row's text, as they are called."""

FEW_IN_COMMON = 0.5
"""Cosine of two members' heads below which they hardly started as one."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Held-out rows that merging may look at.

    Attributes:
        validation: Encoded, for what is decided of a model beside its weights: see `Problem.tune`.
        scored: Encoded, to score mixes on.
        predictions: Each member's predictions artifact on the same rows; () where nothing is scored.
    """

    validation: pa.Table
    scored: pa.Table
    predictions: Sequence[Path] = ()


def merge(
    fusion: Fusion, members: Mapping[str, Path], rows: Rows, problem: Problem, *, start: Path | None = None
) -> Checkpoint:
    """Return the one model that a fusion makes of its members.

    Args:
        fusion: One that merges.
        members: Name -> checkpoint of those that are merged, in their order.
        rows: Held-out rows.
        problem: What the members have learned, its labels filled in.
        start: The checkpoint that all of them descend from, where the fusion reads it.

    Raises:
        UnsupportedError: If the members are not built alike, or the start is not built like them.
    """
    merging: Merging = fusion.merging(tuple(members))  # type: ignore[assignment]
    opened = {name: checkpoints.load(folder, problem) for name, folder in members.items()}
    check_alike(opened, asked_by=fusion.name)
    result = checkpoints.load(next(iter(members.values())), problem)
    ingredients = Ingredients(
        weights=[weights_of(one) for one in opened.values()],
        start=_start(start, result, problem, asked_by=fusion.name) if start else {},
        values=_values(merging, rows, problem),
        value_of=partial(_value_of, result, merging=merging, rows=rows, problem=problem),
    )
    merged = fusion.merge(ingredients)
    put(result, merged.weights)
    facts = {k: v for k, v in result.settings.items() if k not in OF_THE_STAGE}
    result.settings = {**facts, "fusion": fusion.name, MERGED: _told(merged, opened)}
    _tune(result, rows, problem)
    return result


def _told(merged: Merged, members: Mapping[str, Checkpoint]) -> dict:
    weights = merged.shares and dict(zip(members, merged.shares, strict=True))
    note = "; ".join(filter(None, (merged.note, _unlike_heads(members))))
    return {"members": list(members), "weights": weights, "note": note}


# -- weights -------------------------------------------------------------------------------------------


def weights_of(checkpoint: Checkpoint) -> Weights:
    """Return a model's weights by name, not copied; tied ones once, counters and the like left out."""
    found = {name: value for name, value in checkpoint.model.state_dict().items() if value.is_floating_point()}
    first = {value.data_ptr(): name for name, value in reversed(found.items())}
    return {name: value for name, value in found.items() if first[value.data_ptr()] == name}


def put(checkpoint: Checkpoint, weights: Weights) -> None:
    """Give a model other weights; those that are tied to them follow.

    They are copied to new memory: what a problem remembers of a model (`ftlib.models.image_text`) goes by where its
    weights are.
    """
    held = checkpoint.model.state_dict(keep_vars=True)
    for name, value in weights.items():
        held[name].data = value.clone()


def _start(folder: Path, member: Checkpoint, problem: Problem, *, asked_by: str) -> Weights:
    """Return the weights that a checkpoint holds, in a member's form: what differs by the seed is drawn at random."""
    import torch

    from ftlib.training.stage import set_seed

    found = []
    for seed in (0, 1):
        set_seed(seed)
        found.append(checkpoints.load(folder, problem))
    difference = _difference(member, found[0])
    if difference:
        raise UnsupportedError(other_start(asked_by, difference))
    one, other = map(weights_of, found)
    return {name: value for name, value in one.items() if torch.equal(value, other[name])}


# -- held-out rows -------------------------------------------------------------------------------------


def _values(merging: Merging, rows: Rows, problem: Problem) -> tuple[float, ...]:
    """Return how good each member is, by what it has predicted already."""
    from ftlib.ensembling import PREDICTIONS
    from ftlib.files import read_table

    tables = [read_table(folder / PREDICTIONS) for folder in rows.predictions] if merging.scored else []
    return tuple(_value(table, rows.scored, merging, problem) for table in tables)


def _value_of(vessel: Checkpoint, weights: Weights, *, merging: Merging, rows: Rows, problem: Problem) -> float:
    """Return how good weights are; `vessel` is left with them."""
    put(vessel, weights)
    _tune(vessel, rows, problem)
    return _value(problem.predict(vessel, rows.scored), rows.scored, merging, problem)


def _value(predictions: pa.Table, rows: pa.Table, merging: Merging, problem: Problem) -> float:
    import math

    import pyarrow as pa

    from ftlib.ensembling import rows_at
    from ftlib.evaluation.measures import value_of
    from ftlib.models.forward import one_line_each

    alone = one_line_each(rows)
    order = rows_at(alone["row_id"].to_numpy(), predictions["row_id"].to_numpy(), "predictions of what is merged")
    scores, layout = problem.align([predictions.take(pa.array(order))], alone)
    target = problem.target.over(layout)
    metric = merging.metric or target.main_metric
    value = value_of(metric, scores[0], problem.references(alone, layout), target)
    return -math.inf if math.isnan(value) else value if target.higher_is_better(metric) else -value


def _tune(checkpoint: Checkpoint, rows: Rows, problem: Problem) -> None:
    checkpoint.settings.pop("tuned", None)
    tuned = problem.tune(checkpoint, rows.validation) if len(rows.validation) else {}
    checkpoint.settings |= {"tuned": tuned} if tuned else {}


# -- what fits together --------------------------------------------------------------------------------


def check_alike(members: Mapping[str, Checkpoint], *, asked_by: str) -> None:
    """Refuse members whose weights do not stand for the same: other architecture, vocabulary, labels or head.

    Args:
        members: Name -> model.
        asked_by: The fusion that merges them.

    Raises:
        UnsupportedError: With the two members, what differs, and what to do.
    """
    first, *others = members
    for name in others:
        difference = _difference(members[first], members[name])
        if difference:
            raise UnsupportedError(cannot(asked_by, first, name, difference))


def cannot(fusion: str, first: str, second: str, difference: str) -> str:
    """Return how it is said that two members cannot be merged."""
    return (
        f"{fusion} cannot make one model of {first!r} and {second!r}: {difference}. Leave one out (`members: [...]` "
        "names those that are merged), or use averaging, which fuses what they predict."
    )


def other_start(fusion: str, difference: str) -> str:
    """Return how it is said that members are not built like the checkpoint that they started from."""
    return (
        f"{fusion} adds up what members have changed in the checkpoint that they all started from, but members and "
        f"start are built otherwise: {difference}. Use uniform_soup, which needs no start."
    )


def beyond_weights(first: Collection[str], second: Collection[str]) -> str:
    """Return what two models have beyond plain ones, where that keeps them apart, in words; "" where it does not.

    Args:
        first: In the words of `Strategy.leaves`.
        second: Likewise.
    """
    for which, found in (("former", first), ("latter", second)):
        for name in sorted(BESIDE_WEIGHTS & {*found}):
            return f"the {which} keeps a {name} beside its weights"
    for name in sorted({*first} ^ {*second}):
        return f"only the {'former' if name in first else 'latter'} has a {name}"
    return ""


def _difference(first: Checkpoint, second: Checkpoint) -> str:
    """Return the first thing in which two models are built otherwise, in words; "" for none."""
    from ftlib.models.peft_models import has_beyond_plain

    beyond = beyond_weights(*(has_beyond_plain(one.model) for one in (first, second)))
    if beyond:
        return beyond
    kinds = [type(one.model).__name__ for one in (first, second)]
    if kinds[0] != kinds[1]:
        return f"the former is a {kinds[0]}, the latter a {kinds[1]}"
    return _other_words(first, second) or _other_labels(first, second) or _other_shapes(first, second)


def _other_words(first: Checkpoint, second: Checkpoint) -> str:
    for name, called in AROUND_TEXT.items():
        if first.settings.get(name) != second.settings.get(name):
            return f"their {called} differ"
    known = [one.tokenizer.get_vocab() for one in (first, second)]
    if known[0] == known[1]:
        return ""
    shared = len(known[0].items() & known[1].items())
    return f"their vocabularies of {len(known[0]):,} and {len(known[1]):,} tokens share {shared:,}"


def _other_labels(first: Checkpoint, second: Checkpoint) -> str:
    labels = [getattr(one.model.config, "id2label", None) or {} for one in (first, second)]
    told = [", ".join(map(str, one.values())) for one in labels]
    return "" if labels[0] == labels[1] else f"the former has the labels {told[0]}, the latter {told[1]}"


def _other_shapes(first: Checkpoint, second: Checkpoint) -> str:
    shapes = [{name: tuple(value.shape) for name, value in weights_of(one).items()} for one in (first, second)]
    for name in dict.fromkeys((*shapes[0], *shapes[1])):
        one, other = (found.get(name) for found in shapes)
        if one is None or other is None:
            return f"only the {'latter' if one is None else 'former'} has the weight {name}"
        if one != other:
            return f"the weight {name} has the shape {one} in the former, {other} in the latter"
    return ""


def _unlike_heads(members: Mapping[str, Checkpoint]) -> str:
    """Return a note where two members' heads point elsewhere, as where each stage drew its own; else ""."""
    from torch.nn.functional import cosine_similarity

    from ftlib.models.layers import head_names

    first, *others = members.items()
    heads = head_names(first[1].model)
    weights = weights_of(first[1])
    layers = [name for name, value in weights.items() if name.partition(".")[0] in heads and value.dim() > 1]
    for name, other in others:
        for layer in layers:
            found = float(cosine_similarity(weights[layer].flatten(), weights_of(other)[layer].flatten(), dim=0))
            if found < FEW_IN_COMMON:
                return (
                    f"the heads of {first[0]!r} and {name!r} have little in common (cosine {found:.2f}): stages that "
                    "start from one trained stage share its head"
                )
    return ""
