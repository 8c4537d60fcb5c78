"""What the steps of a phase leave out: frozen blocks (`trunk`), and places that no head reads (`narrowing`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.models import narrowing
from ftlib.problems.base import Problem
from ftlib.training.trunk import FILE, Trunk, built

if TYPE_CHECKING:
    from ftlib.training.course import Phase
    from ftlib.training.trainer import StageTrainer


class Shortcuts:
    """The shortcuts in use.

    Args:
        trainer: Whose steps they shorten.
    """

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer
        self.trunk: Trunk | None = None
        self.narrowing: narrowing.Narrowing | None = None

    def take(self, batch: dict[str, Any]) -> None:
        """Say which batch comes next."""
        if self.trunk is not None:
            self.trunk.take(batch)

    def lay(self, phase: Phase) -> None:
        """Find and use what a phase has, in the place of what there was."""
        self.lift()
        trainer, plan = self.trainer, self.trainer.plan
        if type(plan.problem).draw is not Problem.draw:
            return
        num_steps, learning = phase.stop - phase.start, [p for p in trainer.model.parameters() if p.requires_grad]
        trainer.model.eval()
        with trainer.masks.off():
            if num_steps > plan.steps_per_epoch and trainer.perturbation is None:
                self._lay_trunk(learning)
            if num_steps * len(trainer.rows) >= narrowing.FEWEST_ROWS * plan.steps_per_epoch:
                self._narrow(learning)
        trainer.model.train()

    def _lay_trunk(self, learning: list[nn.Parameter]) -> None:
        trainer, ids = self.trainer, {id(p) for p in learning}
        dtype = torch.bfloat16 if trainer.precision == "bfloat16" else torch.float32
        self.trunk = built(trainer.model, ids, trainer.rows, dtype, trainer.plan.scratch / FILE, trainer.logits)

    def _narrow(self, learning: list[nn.Parameter]) -> None:
        """Let the last block, where it computes at all, work only at the place that the head reads."""
        if self.trunk is not None and self.trunk.is_whole:
            return
        with self.trunk.aside() if self.trunk else nullcontext():
            self.narrowing = narrowing.found(self.trainer.model, self.trainer.rows, self._exact_logits, learning)
        if self.narrowing is not None:
            self.narrowing.apply()

    def _exact_logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        trainer = self.trainer
        return trainer.plan.problem.forward(trainer.model, trainer._prepare_inputs(batch)).float()  # type: ignore

    def lift(self) -> None:
        """Let every block compute again, and at every place."""
        if self.narrowing is not None:
            self.narrowing.lift()
            self.narrowing = None
        if self.trunk is not None:
            self.trunk.close()
            self.trunk = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let every block compute while the context is open: other rows are read."""
        with ExitStack() as stack:
            for shortcut in (self.trunk, self.narrowing):
                if shortcut is not None:
                    stack.enter_context(shortcut.aside())
            yield
