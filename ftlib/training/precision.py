"""Which number format a machine multiplies fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]

FAST_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What Linux calls processors that multiply bfloat16 in hardware (x86, and Arm)."""


def resolve(precision: Precision) -> Literal["float32", "bfloat16"]:
    """Return the precision to compute in; auto is a fixed property of the machine, never a measurement.

    A measurement would let a busy moment choose another format, and so another result.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if multiplies_bfloat16() else "float32"


@cache
def multiplies_bfloat16() -> bool:
    """Return whether this machine has instructions (or a GPU) for bfloat16 matrix products."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(processor_facts()[1] & FAST_FLAGS)


def autocast(precision: Literal["float32", "bfloat16"], device: torch.device | None = None) -> Any:
    """Return a context in which matrix products run in this precision; weights stay float32."""
    import torch

    kind = device.type if device is not None else "cpu"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def reading(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let models on a device read and not learn while the context is open, in this precision.

    Args:
        precision: float32 is what plain transformers computes in.
        device: Where the model is.
    """
    import torch

    from ftlib.training.products import QuickProducts, is_onednn_faster

    found = resolve(precision)
    quick = found == "float32" and device.type == "cpu" and is_onednn_faster()
    with torch.inference_mode(), autocast(found, device), QuickProducts() if quick else nullcontext():
        yield


def product_dtype(values: torch.Tensor) -> torch.dtype:
    """Return the format that values on a processor are multiplied in: autocast's while it is on, or their own."""
    import torch

    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else values.dtype


@contextmanager
def bfloat16_states(model: nn.Module) -> Iterator[None]:
    """Let hidden states be bfloat16 under autocast on a processor, while the context is open.

    Left alone they are float32, since the embeddings are: then each layer casts them to multiply and casts what comes
    out to add it, and norms and dropout move twice the bytes. Norms compute in float32 inside either way.
    """
    if next(model.parameters()).device.type != "cpu":
        yield
        return
    firsts = [blocks[0] for blocks in _block_lists(model)]
    handles = [block.register_forward_pre_hook(_lowered) for block in firsts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _block_lists(model: nn.Module) -> tuple[nn.ModuleList, ...]:
    from ftlib.models.layers import block_lists

    try:
        return block_lists(model)
    except UnsupportedError:
        return ()


def _lowered(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    import torch

    if not arguments or not torch.is_autocast_enabled("cpu") or arguments[0].dtype != torch.float32:
        return None
    return arguments[0].bfloat16(), *arguments[1:]


@cache
def processor_facts() -> tuple[str, frozenset[str]]:
    """Return who made the processor ("" where that is not told) and what Linux calls its abilities."""
    facts: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                facts.setdefault(name.strip().lower(), value)
    except FileNotFoundError:  # not Linux: float32 is right everywhere
        pass
    flags = facts.get("flags") or facts.get("features") or ""
    return facts.get("vendor_id", "").strip(), frozenset(flags.split())
