"""Learning rates that adapt while a stage trains: by each level's trust ratio, and down when validation stalls."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import Parameter
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

MEMORY = 0.9
"""How much of a level's ratio is kept at each step; the rest is the new one."""

SMALLEST = 1e-12
"""Norms of gradients below it count as it."""


class AdaptiveRates(TrainerCallback, ExportableState):
    """Multiplies the scheduled rate of each level by a factor of its own.

    A level is the groups of the optimizer with the same "level". Its ratio is the norm of its weights over that of
    their gradients, a moving mean. Its factor is this ratio over the geometric mean of the ratios of all levels that
    learn, held within the limit: so the mean rate stays as scheduled. Every validation pass that is not the best so
    far cuts all rates.

    Args:
        trust_limit: The largest factor; its inverse is the smallest.
        stall_factor: What rates are multiplied by at a pass that is no better.
    """

    def __init__(self, trust_limit: float, stall_factor: float) -> None:
        self.trust_limit, self.stall_factor = trust_limit, stall_factor
        self.ratios: dict[str, float] = {}
        self.cut = 1.0

    def state(self) -> dict[str, Any]:
        """Return what a resumed stage goes on with."""
        arguments = {"trust_limit": self.trust_limit, "stall_factor": self.stall_factor}
        return {"args": arguments, "attributes": {"ratios": dict(self.ratios), "cut": self.cut}}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the rates of the step at hand; the scheduler sets those of the next one anew."""
        groups = kwargs["optimizer"].param_groups
        levels: dict[str, list[Parameter]] = {}
        for group in groups:
            levels.setdefault(str(group["level"]), []).extend(p for p in group["params"] if p.grad is not None)
        self._look(levels)
        factors = self.factors()
        for group in groups:
            group["lr"] *= self.cut * factors.get(str(group["level"]), 1.0)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut the rates where validation stalls."""
        if not kwargs["metrics"]["is_best"]:
            self.cut *= self.stall_factor

    def factors(self) -> dict[str, float]:
        """Return the factor of each level that has learned."""
        mean = math.exp(sum(map(math.log, self.ratios.values())) / max(1, len(self.ratios)))
        limit = self.trust_limit
        return {level: min(limit, max(1 / limit, ratio / mean)) for level, ratio in self.ratios.items()}

    def _look(self, levels: dict[str, list[Parameter]]) -> None:
        for level, learning in levels.items():
            gradient = _norm([p.grad for p in learning if p.grad is not None])
            ratio = _norm([p.detach() for p in learning]) / max(gradient, SMALLEST)
            if learning and ratio > 0:
                self.ratios[level] = MEMORY * self.ratios.get(level, ratio) + (1 - MEMORY) * ratio


def _norm(tensors: list[torch.Tensor]) -> float:
    if not tensors:
        return 0.0
    return float(torch.stack([torch.linalg.vector_norm(t) for t in tensors]).norm())
