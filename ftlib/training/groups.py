"""AdamW's parameter groups: weights that decay, and biases and norms that don't; a model's levels, bottom up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from transformers import PreTrainedModel


def decayed(parameters: Iterable[Parameter], learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return groups over those of the parameters that learn; no decay on biases and norms.

    Those are the parameters of one dimension, as they are in every transformer.
    """
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def group_of(optimizer: Optimizer, parameter: Parameter) -> dict[str, Any]:
    """Return the group that a parameter is in: another object once the optimizer has loaded a state."""
    return next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))


def with_rates(
    levels: Sequence[Sequence[Parameter]], rates: Sequence[float], weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups with a rate for each level of parameters; "level" says which one a group is of, from 0."""
    return [
        {**group, "level": number}
        for number, (level, rate) in enumerate(zip(levels, rates, strict=True))
        for group in decayed(level, rate, weight_decay)
    ]


def falling(model: PreTrainedModel, learning_rate: float, factor: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return groups level by level (see `levels`), each with the rate of the level above it times `factor`."""
    found = levels(model)
    return with_rates(found, [learning_rate * factor**above for above in reversed(range(len(found)))], weight_decay)


def levels(model: PreTrainedModel) -> list[list[Parameter]]:
    """Return what learns, bottom up: embeddings, each block, then the head with what else follows the blocks.

    A level in which nothing learns is not there. What follows the blocks of a model without a head (a last
    normalisation) is joined to the last block, since it is little by itself.
    """
    from ftlib.models.layers import layers

    parts = layers(model)
    top = [*parts.pooler, *parts.head]
    stacked = [parts.embeddings, *parts.blocks]
    stacked = [*stacked, top] if parts.head else [*stacked[:-1], [*stacked[-1], *top]]
    learning = [[p for p in level if p.requires_grad] for level in stacked]
    return [level for level in learning if level]
