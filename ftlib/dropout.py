"""Dropout with cheap masks.

Drawing dropout's random numbers takes a fifth of a bfloat16 training step on a CPU: torch draws a float for each
element. Here a mask takes 16 random bits an element, drawn in bulk, and they come from a stream that starts anew at
each step from (seed, step): so a resumed run meets the same masks, with nothing to save.

Srivastava et al. (2014), "Dropout", https://jmlr.org/papers/v15/srivastava14a.html. The ratio is rounded to
1/65536 and the kept values are scaled by exactly the inverse of what is kept, so the mean is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 1 << 16
"""Values that 16 random bits take."""


class Masks:
    """The stream of random bits.

    Args:
        seed: Of the stage.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.at_step(0)
        self.is_on = True

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

    def keep(self, shape: torch.Size, ratio: float) -> Tensor:
        """Return a boolean mask: True with probability 1 - `ratio`, rounded to 1/65536."""
        count = shape.numel()
        words = self.generator.integers(0, 2**64, size=-(-count // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[:count].view(shape)
        return bits >= round(ratio * STEPS) - STEPS // 2


def drop(values: Tensor, ratio: float, masks: Masks) -> Tensor:
    """Return `values` with a share of `ratio` set to zero and the rest scaled so that the mean stays."""
    kept = 1 - round(ratio * STEPS) / STEPS
    if kept <= 0:
        return torch.zeros_like(values)
    mask = masks.keep(values.shape, ratio).to(values.dtype)
    return values * mask.mul_(1 / kept)


@contextmanager
def cheap_dropout(model: nn.Module, seed: int) -> Iterator[Masks]:
    """Let every nn.Dropout of the model draw from one cheap stream while the context is open (CPU only)."""
    masks = Masks(seed)
    changed = []
    if next(model.parameters()).device.type == "cpu":
        changed = [m for m in model.modules() if type(m) is nn.Dropout and m.p > 0]
    for module in changed:
        module.forward = _forward(module, masks)  # type: ignore[method-assign]
    try:
        yield masks
    finally:
        for module in changed:
            del module.forward


def _forward(module: nn.Dropout, masks: Masks) -> Any:
    def forward(values: Tensor) -> Tensor:
        return drop(values, module.p, masks) if module.training and masks.is_on else values

    return forward
