"""What the steps of a phase leave out: frozen blocks (`trunk`), places that no head reads (`narrowing`), padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.models import narrowing
from ftlib.models.layers import block_lists
from ftlib.problems.base import Problem
from ftlib.training.dropout import cheap_dropout
from ftlib.training.trunk import FILE, Trunk, built
from ftlib.training.unpadding import Unpadding, is_right

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
        self.unpadding: Unpadding | None = None
        self.unpads = False

    def num_lengths(self) -> int:
        """Return how many lengths rows of a batch may have: two where blocks can work on both at once.

        Checkpointed blocks cannot, nor can rows that share a line, but they learn from the same batches: neither is to
        give another result.
        """
        trainer, model, problem = self.trainer, self.trainer.model, self.trainer.plan.problem
        if type(problem).draw is not Problem.draw:
            return 1
        learning = [p for p in model.parameters() if p.requires_grad]
        was_training, masks = model.training, trainer.masks
        model.eval()
        with masks.off(), nullcontext(masks) if masks.is_used else cheap_dropout(model, 0) as found:
            is_usable = found.is_used and is_right(model, trainer.rows, self._exact_logits, learning)
        model.train(was_training)
        self.unpads = is_usable and masks.is_used and problem.reads_rows_as_encoded
        return 2 if is_usable else 1

    def take(self, batch: dict[str, Any]) -> None:
        """Say which batch comes next."""
        if self.trunk is not None:
            self.trunk.take(batch)
        if self.unpadding is not None:
            self.unpadding.take(batch)

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
        if self.unpads:
            self._unpad()
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

    def _unpad(self) -> None:
        """Let blocks that compute at all places work on several lengths at once."""
        blocks = block_lists(self.trainer.model)[0]
        first, stop = len(self.trunk.blocks) if self.trunk else 0, len(blocks) - (self.narrowing is not None)
        if first < stop:
            self.unpadding = Unpadding(blocks[first:stop], pad_left=self.trainer.rows.pad_left, first=first)
            self.unpadding.apply()

    def _exact_logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        trainer = self.trainer
        return trainer.plan.problem.forward(trainer.model, trainer._prepare_inputs(batch)).float()  # type: ignore

    def lift(self) -> None:
        """Let every block compute again, at every place, padding included."""
        if self.unpadding is not None:
            self.unpadding.lift()
            self.unpadding = None
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
            for shortcut in (self.trunk, self.narrowing, self.unpadding):
                if shortcut is not None:
                    stack.enter_context(shortcut.aside())
            yield
