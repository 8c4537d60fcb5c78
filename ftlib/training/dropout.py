"""Dropout with cheap masks.

Drawing dropout's random numbers takes a fifth of a bfloat16 training step on a CPU: torch draws a float for each
element. Here a mask takes 16 random bits an element, drawn in bulk, and they come from a stream that starts anew at
each step from (seed, step): so a resumed run meets the same masks, with nothing to save.

Srivastava et al. (2014), "Dropout", https://jmlr.org/papers/v15/srivastava14a.html. The ratio is rounded to
1/65536 and the kept values are scaled by exactly the inverse of what is kept, so the mean is unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ftlib.training.precision import product_dtype

STEPS = 1 << 16
"""Values that 16 random bits take."""

NAME = "ftlib_dropout"
"""What transformers calls our attention while a stage trains."""


class Masks:
    """The stream of random bits.

    Args:
        seed: Of the stage.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.at_step(0)
        self.is_on = True
        self.is_used = False
        """Whether dropout draws from here at all."""

    def at_step(self, step: int) -> None:
        """Start the stream of an optimizer step."""
        self.generator = np.random.Generator(np.random.SFC64([self.seed, step]))

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave dropout out, as in evaluation mode."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def keep(self, shape: torch.Size, ratio: float, dtype: torch.dtype) -> Tensor:
        """Return factors for values: 0 with probability `ratio`, rounded to 1/65536, else 1 / (1 - ratio)."""
        count, dropped = shape.numel(), round(ratio * STEPS)
        if dropped >= STEPS:
            return torch.zeros(shape, dtype=dtype)
        words = self.generator.integers(0, 2**64, size=-(-count // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[:count].view(shape)
        kept = torch.empty(shape, dtype=dtype)
        torch.ge(bits, dropped - STEPS // 2, out=kept)  # writes numbers at once: four times faster than a bool mask
        return kept.mul_(STEPS / (STEPS - dropped))


def drop(values: Tensor, ratio: float, masks: Masks) -> Tensor:
    """Return `values` with a share of `ratio` set to zero and the rest scaled so that the mean stays."""
    return values * masks.keep(values.shape, ratio, values.dtype)


@contextmanager
def cheap_dropout(model: nn.Module, seed: int, *, is_cheap: bool = True) -> Iterator[Masks]:
    """Let all dropout of the model draw from one cheap stream while the context is open (CPU only, and if `is_cheap`).

    That is every nn.Dropout, and the dropout of attention probabilities where the model goes through transformers'
    attention interface.
    """
    masks = Masks(seed)
    if not is_cheap or next(model.parameters()).device.type != "cpu":
        yield masks
        return
    masks.is_used = True
    changed = [m for m in model.modules() if type(m) is nn.Dropout and m.p > 0]
    for module in changed:
        module.forward = _forward(module, masks)  # type: ignore[method-assign]
    try:
        with _attention(model, masks):
            yield masks
    finally:
        for module in changed:
            del module.forward


def _forward(module: nn.Dropout, masks: Masks) -> Any:
    def forward(values: Tensor) -> Tensor:
        return drop(values, module.p, masks) if module.training and masks.is_on else values

    return forward


@contextmanager
def _attention(model: Any, masks: Masks) -> Iterator[None]:
    """Send attention through `attend` while the context is open, for models that use PyTorch's own attention."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    changed = [c for c in configs if getattr(c, "_attn_implementation", None) == "sdpa"]
    AttentionInterface.register(NAME, functools.partial(attend, masks=masks))
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        for config in changed:
            config._attn_implementation = NAME
        yield
    finally:
        for config in changed:
            config._attn_implementation = "sdpa"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    masks: Masks,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return attention as transformers' "sdpa" does, its dropout drawn from the cheap stream.

    Args:
        module: The attention layer.
        query: Shape (batch_size, num_heads, length, head_size); `key` and `value` alike.
        key: See `query`.
        value: See `query`.
        attention_mask: True where attention may look, shape (batch_size, 1, length, key_length).
        masks: The stream.
        dropout: Ratio; 0 in evaluation.
        scaling: Of the products.
        others: What transformers passes and "sdpa" knows.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    special = others.get("position_bias") is not None or others.get("softcap") is not None
    special = special or (attention_mask is not None and attention_mask.requires_grad)
    causal = others.get("is_causal") or getattr(module, "is_causal", False)
    plain = dropout == 0.0 or not masks.is_on or key.shape[1] != query.shape[1] or causal or special
    if plain:
        rate = dropout if masks.is_on else 0.0
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=rate, scaling=scaling, **others
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = product_dtype(value)
    kept = masks.keep(torch.Size((*query.shape[:3], key.shape[2])), dropout, dtype)
    states = Attention.apply(query.to(dtype), key.to(dtype), value.to(dtype), attention_mask, kept, scale)
    return states.transpose(1, 2).contiguous(), None


class Attention(torch.autograd.Function):
    """Attention with a dropout mask, as one operation.

    The softmax is computed in float32: of bfloat16 torch's is slower, save for lengths that are multiples of 32.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kept: Tensor, scale: float
    ) -> Tensor:
        """Return what each place takes from all, shape (batch_size, num_heads, length, head_size).

        Args:
            ctx: Autograd's.
            query: Shape (batch_size, num_heads, length, head_size); `key` and `value` alike.
            key: See `query`.
            value: See `query`.
            mask: True where attention may look, or what is added to scores; shape (batch_size, 1, length, key_length).
            kept: What probabilities are multiplied by, shape (batch_size, num_heads, length, key_length).
            scale: Of the products.
        """
        query, key, value = (query * scale).contiguous(), key.contiguous(), value.contiguous()
        scores = (query @ key.transpose(2, 3)).float()
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores += mask
        probabilities = torch.softmax(scores, -1)
        dropped = probabilities.to(value.dtype).mul_(kept) if value.dtype != scores.dtype else probabilities * kept
        ctx.scale = scale
        ctx.save_for_backward(query, key, value, probabilities, kept, dropped)
        return dropped @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        query, key, value, probabilities, kept, dropped = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_probabilities = (gradient @ value.transpose(2, 3)).mul_(kept).float()
        of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, torch.float32).to(value.dtype)
        of_query = (of_scores @ key).mul_(ctx.scale)
        return of_query, of_scores.transpose(2, 3) @ query, dropped.transpose(2, 3) @ gradient, None, None, None
