"""A head's last layer taken off, so that a model gives what that layer reads, and put back with fitted weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.errors import UnsupportedError
from ftlib.models.layers import head_names, unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reading(nn.Module):
    """Stands where the last layer was, and hands on what that would have read.

    Args:
        width: Numbers that the layer reads.
    """

    origin: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(width), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, counted from the origin."""
        return features - self.origin


def take_off(model: PreTrainedModel, num_outputs: int) -> Reading:
    """Replace the head's last linear layer.

    Raises:
        UnsupportedError: If the head ends in none with so many outputs.
    """
    inner = unwrapped(model)
    layers = [(f"{n}.{k}".rstrip("."), m) for n in head_names(model) for k, m in inner.get_submodule(n).named_modules()]
    linear = [(name, m) for name, m in layers if isinstance(m, nn.Linear) and m.out_features == num_outputs]
    if not linear:
        raise UnsupportedError(f"{type(inner).__name__} has no linear head of {num_outputs} outputs; choose full.")
    name, layer = linear[-1]
    reading = Reading(layer.in_features)
    reading.__dict__["taken_off"] = layer  # not a submodule: its weights are none of the model's for the time
    inner.set_submodule(name, reading)
    return reading


def put_back(model: PreTrainedModel, weight: Any, bias: Any) -> None:
    """Put the last layer back, with these weights, shape (num_outputs, width) and (num_outputs,).

    A layer without a bias loses it.
    """
    inner = unwrapped(model)
    name, reading = next((n, m) for n, m in inner.named_modules() if isinstance(m, Reading))
    layer = reading.__dict__["taken_off"]
    weight, bias = (torch.as_tensor(values, dtype=torch.float64) for values in (weight, bias))
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias - weight @ reading.origin.double())
    inner.set_submodule(name, layer)
