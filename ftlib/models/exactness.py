"""Whether a shortcut leaves what a model computes as it is: logits, and in training gradients, of a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[[dict[str, Tensor]], Tensor]

TOLERANCE = 1e-4
"""How far logits and gradients in float32 may be from those without the shortcut, over their own size."""


def outcomes(
    run: Run, batches: Sequence[dict[str, Tensor]], learning: Sequence[nn.Parameter], block: nn.Module | None = None
) -> list[list[Tensor]]:
    """Return logits of all batches, and of the first one gradients, too.

    Args:
        run: Runs the model on a batch in float32 and returns its logits.
        batches: Some of what the model will read.
        learning: The parameters whose gradients are wanted.
        block: One whose input's gradient is wanted, too, where it has one.
    """
    first, *others = batches
    return [_outcome(run, first, learning, block), *(_outcome(run, batch, (), None) for batch in others)]


def _outcome(
    run: Run, batch: dict[str, Tensor], learning: Sequence[nn.Parameter], block: nn.Module | None
) -> list[Tensor]:
    """Return logits, and the gradients of a sum of them, each weighted at random."""
    with torch.set_grad_enabled(bool(learning) or block is not None), _inputs_of(block) as read:
        logits = run(batch)
        wanted = [*learning, *(states for states in read if states.requires_grad)]
        if not wanted:
            return [logits.detach()]
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits.device)
        gradients = torch.autograd.grad((logits * weights).sum(), wanted, allow_unused=True)
    return [logits.detach(), *(torch.zeros(()) if one is None else one for one in gradients)]


@contextmanager
def _inputs_of(block: nn.Module | None) -> Iterator[list[Tensor]]:
    """Note the hidden states that a block reads while the context is open."""
    read: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        read.append(arguments[0] if arguments else named["hidden_states"])

    handle = block.register_forward_pre_hook(note, with_kwargs=True) if block is not None else None
    try:
        yield read
    finally:
        if handle is not None:
            handle.remove()


def is_same(results: list[list[Tensor]], expected: list[list[Tensor]]) -> bool:
    """Return whether all is equal but for rounding; and rows' logits must differ, where they alone are to tell.

    Args:
        results: What `outcomes` gave with the shortcut.
        expected: And without.
    """
    for pair in zip(results, expected, strict=True):
        largest = max((float(value.norm()) for value in pair[1][1:]), default=0.0)
        for number, (one, other) in enumerate(zip(*pair, strict=True)):
            slack = 0.1 * largest if number else 0.0  # some gradients are zero but for rounding: biases of keys
            if not float((one - other).norm()) <= TOLERANCE * (float(other.norm()) + slack):
                return False
    logits = expected[0][0]
    return len(expected[0]) > 1 or bool((logits - logits[:1]).norm() > 10 * TOLERANCE * logits.norm())
