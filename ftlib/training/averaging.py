"""Averages of a stage's weights over its steps: an exponential moving average, or a plain mean of the last part.

The averaged weights are what is validated, kept as the best, and saved; training itself goes on from its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ftlib.training.regularization import Regularization


class Average:
    """The average of some tensors, step by step.

    Args:
        weights: Name -> what is averaged; they change in place.
        settings: Which average.
        max_steps: Optimizer steps of the stage.
    """

    def __init__(self, weights: dict[str, Tensor], settings: Regularization, max_steps: int) -> None:
        self.weights = {name: value for name, value in weights.items() if value.is_floating_point()}
        self.settings = settings
        self.first = round(settings.swa_start * max_steps) if settings.averaging == "swa" else 0
        self.mean: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after a step, from 1."""
        if step <= self.first:
            return
        self.count += 1
        if not self.mean:
            self.mean = {name: value.detach().clone() for name, value in self.weights.items()}
            return
        share = 1 / self.count if self.settings.averaging == "swa" else 1 - self._decay()
        for name, value in self.weights.items():
            self.mean[name].lerp_(value.detach(), share)

    def _decay(self) -> float:
        """Return the decay of this step: lower at first, so that the start does not outweigh what follows."""
        return min(self.settings.ema_decay, self.count / (self.count + 9))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the weights while the context is open, once there is one."""
        kept = {name: value.detach().clone() for name, value in self.weights.items()} if self.mean else {}
        self._copy(self.mean)
        try:
            yield
        finally:
            self._copy(kept)

    def settle(self) -> None:
        """Put the average into the weights for good."""
        self._copy(self.mean)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.weights[name].copy_(value)

    # -- resumption --------------------------------------------------------------------------------

    def dump(self) -> dict[str, Tensor]:
        """Return what `restore` takes: empty before the first step that counts."""
        return {**self.mean, COUNT: torch.tensor(self.count)} if self.mean else {}

    def restore(self, values: dict[str, Tensor]) -> None:
        """Take back what `dump` gave."""
        self.mean = {name: value.clone() for name, value in values.items() if name != COUNT}
        self.count = int(values[COUNT]) if values else 0


COUNT = "count"
