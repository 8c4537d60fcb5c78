"""The frozen trunk: what lower blocks that do not learn make of each row is computed once, not at every epoch.

Where a phase trains only what lies above some block (`partial`, a linear probe, the first phases of gradual
unfreezing), that block's outputs never change. They are written to the stage's scratch, one vector a token, in the
precision of the training: bfloat16 where it multiplies in bfloat16, else float32. Then batches run from there.

Dropout inside the frozen part is off. Apart from it gradients are those of the same training without a trunk, whose
boundary is rounded in the same way. It is used only where a first batch shows just that: not where the frozen part
reads anything but the row (prefixes, virtual tokens that learn, masks that are drawn anew).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.errors import FtlibError
from ftlib.models.layers import block_lists, is_encoder_decoder, layers
from ftlib.training import mapped
from ftlib.training.batches import ROWS, Rows, reading_batches

FILE = "trunk.bin"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2}
"""How far logits from a trunk may be from those without, over their own size: rounding, not another result."""

CHECKED = 8
"""Rows on which that is looked at."""

logger = logging.getLogger(__name__)


def depth(model: nn.Module, learning: Collection[int]) -> int:
    """Return how many of the lowest blocks lie, with all that is below them, beneath everything that learns.

    Args:
        model: One with one stack of blocks; of others there is no trunk.
        learning: Ids of the parameters that learn.
    """
    if is_encoder_decoder(model) or hasattr(model, "peft_config"):
        return 0
    parts = layers(model)
    if any(id(p) in learning for p in parts.embeddings):
        return 0
    frozen = [not any(id(p) in learning for p in block) for block in parts.blocks]
    return frozen.index(False) if False in frozen else len(frozen)


class Trunk:
    """The outputs of a model's lowest blocks for all training rows.

    Args:
        model: The model.
        num_blocks: How many of its blocks are frozen, at least 1.
        rows: The training rows.
        dtype: What the outputs are kept in.
        path: Where they are kept.
    """

    def __init__(self, model: Any, num_blocks: int, rows: Rows, dtype: torch.dtype, path: Path) -> None:
        self.rows, self.dtype, self.path, self.left = rows, dtype, path, rows.pad_left
        blocks = list(block_lists(model)[0])
        self.blocks, self.is_whole = blocks[:num_blocks], num_blocks == len(blocks)
        self.starts = torch.from_numpy(rows.input_ids.starts)
        self.values: Tensor | None = None
        self.at: Tensor | None = None
        self.is_tuple = False

    def fill(self, run: Callable[[dict[str, Tensor]], Tensor]) -> None:
        """Compute the outputs of every row.

        Args:
            run: Runs the model on a batch.
        """
        with self._watched(), torch.no_grad():
            for indices in reading_batches(self.rows.lengths):
                batch = self.rows.batch(indices)
                self.at, self.real = torch.from_numpy(indices), batch["attention_mask"].bool()
                run(batch)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let the last frozen block write down what it gives."""
        handle = self.blocks[-1].register_forward_hook(self._write)
        try:
            yield
        finally:
            handle.remove()

    def _write(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.is_tuple = isinstance(output, tuple)
        if self.is_tuple and any(part is not None for part in output[1:]):
            raise FtlibError(f"{type(block).__name__} gives more than its hidden states.")
        states = output[0] if self.is_tuple else output
        if self.values is None:
            shape = (int(self.starts[-1]), states.shape[-1])
            self.values = mapped.created(self.path, shape, self.dtype)
        self.values[self._places(self.real)] = states[self.real].to(self.dtype)

    def _places(self, real: Tensor) -> Tensor:
        """Return where the tokens of the rows at hand lie in the file, row by row."""
        assert self.at is not None
        return mapped.token_places(self.starts, self.at, real)

    def error(self, run: Callable[[dict[str, Tensor]], Tensor]) -> float:
        """Return how far the logits of some rows are from those without, over their size; leave the trunk in use."""
        chosen = np.arange(min(CHECKED, len(self.rows)))
        batch = self.rows.batch(chosen)
        with torch.no_grad():
            expected = self._of_real(run(batch), batch)
            self.replace()
            self.take({**batch, ROWS: torch.from_numpy(chosen)})
            found = self._of_real(run(batch), batch)
        return float((found - expected).norm() / expected.norm().clamp_min(1e-12))

    def _of_real(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return logits without those of padding, where they are given token by token."""
        real = batch["attention_mask"].bool()
        return (logits[real] if logits.shape[:2] == real.shape else logits).float()

    # -- use ---------------------------------------------------------------------------------------

    def take(self, batch: dict[str, Tensor]) -> None:
        """Say which batch comes next."""
        self.at, self.real = batch[ROWS], batch["attention_mask"].bool()

    def replace(self) -> None:
        """Let the frozen blocks hand on what was written down instead of computing it."""
        for block in self.blocks[:-1]:
            block.forward = self._pass  # type: ignore[method-assign]
        self.blocks[-1].forward = self._recall  # type: ignore[method-assign]

    def restore(self) -> None:
        """Let the frozen blocks compute again."""
        for block in self.blocks:
            block.__dict__.pop("forward", None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the frozen blocks compute while the context is open: other rows are read."""
        self.restore()
        try:
            yield
        finally:
            self.replace()

    def close(self) -> None:
        """Let the blocks compute again, and drop what was written."""
        self.restore()
        self.values = None
        self.path.unlink(missing_ok=True)

    def _pass(self, hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        return (hidden_states,) if self.is_tuple else hidden_states

    def _recall(self, hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        assert self.values is not None
        if hidden_states.shape[:2] != self.real.shape:
            raise FtlibError("the model reads other lines than the batch has rows.")
        states = torch.zeros_like(hidden_states)
        states[self.real] = self.values[self._places(self.real)].to(states.dtype)
        return (states,) if self.is_tuple else states


def built(
    model: Any, learning: Collection[int], rows: Rows, dtype: torch.dtype, path: Path, run: Callable[[Any], Tensor]
) -> Trunk | None:
    """Return the trunk below what learns, in use; None where there is none, or a first batch shows that it misleads.

    Args:
        model: In evaluation mode.
        learning: Ids of the parameters that learn.
        rows: The training rows.
        dtype: What outputs are kept in.
        path: Where.
        run: Runs the model on a batch and returns its logits.
    """
    num_blocks = depth(model, learning)
    if not num_blocks or "input_ids" not in rows.lists:
        return None
    trunk = Trunk(model, num_blocks, rows, dtype, path)
    try:
        trunk.fill(run)
        error = trunk.error(run)
        if error <= TOLERANCE[dtype]:
            return trunk
        logger.info("the frozen trunk is not used: logits from it are off by %.2g.", error)
    except (FtlibError, RuntimeError, IndexError, ValueError) as reason:
        logger.info("the frozen trunk is not used: %s", reason)
    trunk.close()
    return None
