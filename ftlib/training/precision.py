"""Which number format a machine multiplies fastest."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

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
    return bool(_processor_flags() & FAST_FLAGS)


def autocast(precision: Literal["float32", "bfloat16"], device: torch.device | None = None) -> Any:
    """Return a context in which matrix products run in this precision; weights stay float32."""
    import torch

    kind = device.type if device is not None else "cpu"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _processor_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo") as lines:
            found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    except FileNotFoundError:  # not Linux: float32 is right everywhere
        return frozenset()
    return frozenset(found.partition(":")[2].split())
