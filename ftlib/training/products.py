"""Float32 matrix products by the library that is fast on the machine.

PyTorch leaves them to Intel's MKL, which takes a slower way on processors that are not Intel's: on an AMD EPYC with
AVX-512 about 100 GFLOP/s a core where oneDNN, which PyTorch brings along, has 220. Both are exact products in float32,
summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ftlib.training.precision import processor_facts

FEWEST_ROWS, FEWEST_NUMBERS = 16, 64
"""Rows of a product, and numbers in and out of each, below which MKL is as fast."""


@cache
def is_onednn_faster() -> bool:
    """Return whether this machine multiplies float32 faster in oneDNN: a fixed property of it, never a measurement."""
    vendor, flags = processor_facts()
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and vendor == "AuthenticAMD" and "avx512f" in flags


class QuickProducts(TorchFunctionMode):
    """While the context is open, linear layers on the processor multiply float32 in oneDNN; nothing is to learn."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Take over `linear`, and let all else be."""
        if func is F.linear and not kwargs and _is_for_onednn(*args):
            return torch.ops.mkldnn._linear_pointwise(*args, *(None,) * (3 - len(args)), "none", [], "")
        return func(*args, **(kwargs or {}))


def _is_for_onednn(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        values.dtype == weight.dtype == torch.float32
        and values.device.type == "cpu"
        and weight.ndim == 2
        and min(weight.shape) >= FEWEST_NUMBERS
        and values.numel() >= FEWEST_ROWS * weight.shape[1]
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
