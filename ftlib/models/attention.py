"""Which linear layer of a transformer's block does what: by its name inside an attention, else by its shape."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Role = Literal["query", "key", "value", "fused", "other", "narrowing", "widening"]

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
NAMES: dict[Role, re.Pattern[str]] = {
    "query": re.compile(r"q|query|q_(lin|proj)|query_proj"),
    "key": re.compile(r"k|key|k_(lin|proj)|key_proj"),
    "value": re.compile(r"v|value|v_(lin|proj)|value_proj"),
    "fused": re.compile(r"c_attn|query_key_value|qkv|qkv_proj|Wqkv|in_proj"),
}
"""What models call the layers inside an attention; fused: queries, keys and values in one."""


def roles(model: nn.Module) -> dict[str, Role]:
    """Return what each linear layer does, by name.

    Returns:
        Inside an attention one of `NAMES`, or "other" (what follows it); elsewhere "narrowing" where it gives fewer
        numbers than it takes, such as a feed-forward part's second layer, and "widening".
    """
    sizes = {name: _size(module) for name, module in model.named_modules()}
    return {name: _role(name, *size) for name, size in sizes.items() if size}


def _role(name: str, num_inputs: int, num_outputs: int) -> Role:
    if not ATTENTION.search(name):
        return "narrowing" if num_inputs > num_outputs else "widening"
    leaf = name.rpartition(".")[2]
    return next((role for role, pattern in NAMES.items() if pattern.fullmatch(leaf)), "other")


def _size(module: nn.Module) -> tuple[int, int] | None:
    """Return how many numbers a linear layer takes and gives; None of anything else."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if isinstance(module, Conv1D) else None
