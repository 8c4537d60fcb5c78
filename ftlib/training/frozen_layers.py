"""Linear layers whose weights are frozen: cast once a stage, and with a low-rank update beside them one operation.

Under autocast a frozen weight is cast anew at each step, since only what learns is remembered. And peft computes LoRA's
update in seven operations over whole hidden states, some of them in float32: more than the update's own products take.
Here the frozen weight is kept in bfloat16, and the update is added inside the frozen layer's product, forward and
backward. What is computed is the same, but for rounding.

Hu et al. (2022), "LoRA", https://arxiv.org/abs/2106.09685, equation 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ftlib.training.precision import product_dtype

if TYPE_CHECKING:
    from ftlib.training.dropout import Masks

Forward = Callable[[Tensor], Tensor]


@contextmanager
def quick_frozen_layers(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Let linear layers whose weights do not learn multiply this way while the context is open (CPU only).

    Args:
        model: Adapted by its strategy. What learns may change meanwhile.
        masks: The stream that dropout draws from; where it is not in use, LoRA's layers are left as they are.
    """
    if next(model.parameters()).device.type != "cpu":
        yield
        return
    changed: dict[nn.Module, Forward] = {}
    for module in model.modules():
        if masks.is_used and _is_low_rank(module):
            changed[module] = _with_update(module, masks)
        elif type(module) is nn.Linear and "forward" not in vars(module):
            changed[module] = _Cast(module)
    for module, forward in changed.items():
        module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


class _Cast:
    """The forward pass of a linear layer that keeps its weight in the format of the products while that is frozen."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.version = -1
        self.kept: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        return F.linear(values, self.weight(), self.layer.bias)

    def weight(self) -> Tensor:
        """Return the weight: cast where autocast would cast it, and it does not learn."""
        weight = self.layer.weight
        dtype = product_dtype(weight)
        if weight.requires_grad or weight.dtype != torch.float32 or dtype == torch.float32:
            return weight
        if self.kept is None or self.version != weight._version:
            self.version, self.kept = weight._version, weight.detach().to(dtype)
        return self.kept


def _is_low_rank(module: nn.Module) -> bool:
    """Return whether a layer is a plain linear one with one plain LoRA update beside it."""
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear:
        return False
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters:
        return False
    name = module.active_adapters[0]
    return name in module.lora_A and name not in module.lora_variant and not module.lora_bias[name]


def _with_update(module: Any, masks: Masks) -> Forward:
    """Return the forward pass of a layer with a LoRA update."""
    name = module.active_adapters[0]
    down, up, scale = module.lora_A[name], module.lora_B[name], float(module.scaling[name])
    base, dropout = _Cast(module.base_layer), getattr(module.lora_dropout[name], "p", 0.0)

    def forward(values: Tensor) -> Tensor:
        weight, bias = base.weight(), module.base_layer.bias
        dtype = product_dtype(values)
        ratio = dropout if module.training and masks.is_on else 0.0
        kept = masks.keep(values.shape, ratio, dtype) if ratio else None
        given = (values, weight, bias, down.weight, up.weight)
        return LowRank.apply(*(None if one is None else one.to(dtype) for one in given), kept, scale)

    return forward


class LowRank(torch.autograd.Function):
    """A frozen linear layer and a low-rank update beside it, as one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        kept: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Return values @ weight.T + bias + scale * (values * kept) @ down.T @ up.T, shape (..., num_outputs).

        Args:
            ctx: Autograd's.
            values: Shape (..., num_inputs).
            weight: Shape (num_outputs, num_inputs); does not learn.
            bias: Shape (num_outputs,); does not learn.
            down: Shape (rank, num_inputs).
            up: Shape (num_outputs, rank).
            kept: What the update's inputs are multiplied by, shaped as `values`; None: 1.
            scale: Of the update.
        """
        flat = values.reshape(-1, values.shape[-1])
        dropped = flat if kept is None else flat * kept.view_as(flat)
        small = dropped @ down.t()
        outputs = F.linear(flat, weight, bias).addmm_(small, up.t(), alpha=scale)
        ctx.scale, ctx.shape = scale, values.shape
        ctx.save_for_backward(weight, down, up, dropped, small, kept)
        return outputs.view(*values.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values, down and up."""
        weight, down, up, dropped, small, kept = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        of_small = (gradient @ up).mul_(ctx.scale)
        of_down, of_up = of_small.t() @ dropped, (gradient.t() @ small).mul_(ctx.scale)
        of_values = None
        if ctx.needs_input_grad[0]:
            through = of_small @ down
            if kept is not None:
                through.mul_(kept.view_as(through))
            of_values = through.addmm_(gradient, weight).view(ctx.shape)
        return of_values, None, None, of_down, of_up, None, None
