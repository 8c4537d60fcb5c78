"""Observing: what a model's layers make of a batch, noted as it passes; no second forward pass.

Layers are numbered as in transformers' `hidden_states`: 0 is what the embeddings give the first block, m what block m
gives. Attention scores are those before softmax and mask: queries times keys over the root of a head's size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

from ftlib.errors import UnsupportedError
from ftlib.models.attention import roles
from ftlib.models.layers import block_list, is_encoder_decoder, unwrapped
from ftlib.models.sizes import computes_positions

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


class Observer:
    """Notes hidden states and attention scores of a model while the context is open.

    Args:
        model: With one stack of blocks.
        hidden: Layers whose hidden states are noted.
        attention: Blocks, from 1, whose attention scores are noted.

    Raises:
        UnsupportedError: If the model has no such layers, or its scores cannot be had.
    """

    def __init__(self, model: Any, *, hidden: Collection[int] = (), attention: Collection[int] = ()) -> None:
        if is_encoder_decoder(model):
            raise UnsupportedError(f"{_name(model)} has two stacks of blocks: its layers cannot be imitated one by "
                                   "one; leave hidden_weight and attention_weight out.")  # fmt: skip
        self.model, self.blocks = model, list(block_list(model))
        self.hidden, self.attention = frozenset(hidden), tuple(sorted(attention))
        self.states: dict[int, Tensor] = {}
        """Layer -> hidden states of the last batch, shape (batch_size, length, hidden_size)."""
        self.shape: Sequence[int] = ()
        """Of the last batch: (batch_size, length)."""
        self._projected: dict[tuple[int, str], Tensor] = {}
        self._projections = {m: _projections(model, self.blocks[m - 1]) for m in self.attention}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Stand in for the blocks' forward, so that no other shortcut does: all places are looked at."""
        for number, block in enumerate(self.blocks, start=1):
            block.forward = self._noting(number, block.forward)  # type: ignore[method-assign]
        for number, parts in self._projections.items():
            self._handles += [module.register_forward_hook(self._keep(number, role)) for role, module in parts.items()]
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model as it was."""
        for block in self.blocks:
            block.__dict__.pop("forward", None)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def clear(self) -> None:
        """Forget the last batch."""
        self.states.clear()
        self._projected.clear()

    def scores(self, number: int) -> Tensor:
        """Return the attention scores of a block, from 1: shape (batch_size, num_heads, length, length), float32."""
        query, key = (self._heads(self._projected[number, role]).float() for role in ("query", "key"))
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5

    def _heads(self, projected: Tensor) -> Tensor:
        """Return queries or keys by head, shape (batch_size, num_heads, length, head_size)."""
        return projected.unflatten(-1, (num_heads(self.model), -1)).transpose(1, 2)

    def _noting(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **named: Any) -> Any:
            if number == 1:
                entering = arguments[0] if arguments else named["hidden_states"]
                self.shape = entering.shape[:2]
                self.states |= {0: entering} if 0 in self.hidden else {}
            output = forward(*arguments, **named)
            if number in self.hidden:
                self.states[number] = output[0] if isinstance(output, tuple) else output
            return output

        return noting

    def _keep(self, number: int, role: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._projected[number, role] = output

        return keep


def hidden_size(model: Any) -> int:
    """Return how many numbers a token has between blocks."""
    return int(unwrapped(model).config.get_text_config().hidden_size)


def num_heads(model: Any) -> int:
    """Return how many heads a block's attention has."""
    return int(unwrapped(model).config.get_text_config().num_attention_heads)


def _projections(model: Any, block: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a block that make queries and keys."""
    if computes_positions(unwrapped(model).config.to_dict()):
        raise UnsupportedError(f"{_name(model)} lets positions enter inside attention: its scores are more than "
                               "queries times keys; leave attention_weight out, hidden_weight remains.")  # fmt: skip
    found: dict[str, nn.Module]
    found = {role: block.get_submodule(name) for name, role in roles(block).items() if role in ("query", "key")}
    if len(found) != 2:
        raise UnsupportedError(f"{_name(model)} makes queries and keys in one layer, or in none of its own: scores "
                               "cannot be read; leave attention_weight out, hidden_weight remains.")  # fmt: skip
    return found


def _name(model: Any) -> str:
    return type(unwrapped(model)).__name__
