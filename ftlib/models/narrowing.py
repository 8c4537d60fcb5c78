"""Narrowing: the last block works only at the place that the head reads.

A head for whole texts reads one vector of the last block: the first token's, or in causal models the last one's. Of
all other places that block needs to give nothing but keys and values, so its queries, its feed-forward part and all
that follows attention are computed at the one place: five sixths of its matrix products are left out, forward and
backward, and what is computed is the same. Of six blocks that is a seventh of the work, of three more than a quarter.

It knows no architecture. The block runs as far as its attention, which tells keys and values of all places; then it
runs at the one place, its attention handed those. It is used only where a few rows show that logits, and in training
gradients, are the same; not where a head reads other places, where attention does not go through transformers'
interface, or in encoder-decoders. Dropout then draws fewer masks, so a trained model differs as under another seed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.errors import FtlibError
from ftlib.models.exactness import Run, is_same, outcomes
from ftlib.models.layers import backbone, block_lists, is_encoder_decoder, unwrapped

if TYPE_CHECKING:
    from ftlib.training.batches import Rows

Place = Literal["first", "last"]

NAME = "ftlib_narrowing"
"""What transformers calls the attention of a block that is narrowed, while it runs."""

INTERFACES = ("sdpa", "ftlib_dropout")
"""The implementations of attention that can be stood in for."""

CHECKED = 4
"""Rows on which the result is compared."""

FEWEST_ROWS = 1024
"""Rows to be read, below which looking whether it may be used costs as much as it saves."""

logger = logging.getLogger(__name__)


class _Running(threading.local):
    """What a thread's narrowed block does in the place of attention; None elsewhere."""

    attend: Callable[..., Any] | None = None


class _Attended(Exception):  # noqa: N818 - no error: it ends a pass that has told all it was run for
    """Carries keys, values and mask of a block's attention out of it."""

    def __init__(self, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
        super().__init__()
        self.key, self.value, self.mask = key, value, mask


_running = _Running()
_alone = threading.Lock()
"""Held while a block's config names the stand-in, which other threads must not take for what it was."""


class Narrowing:
    """A model whose last block works at one place.

    Args:
        model: The model; of its one stack of blocks the last is changed.
        place: Which place its head reads: the first, or the last that is no padding.
    """

    def __init__(self, model: Any, place: Place) -> None:
        self.block, self.place = block_lists(model)[0][-1], place
        configs: list[Any] = [getattr(module, "config", None) for module in self.block.modules()]
        self.configs = list({id(c): c for c in configs if hasattr(c, "_attn_implementation")}.values())
        self.checkpoints = getattr(self.block, "gradient_checkpointing", False)

    def apply(self) -> None:
        """Narrow the block; what it then keeps is small, so it needs no gradient checkpointing."""
        self.block.forward = self._forward  # type: ignore[method-assign]
        if self.checkpoints:
            self.block.gradient_checkpointing = False  # type: ignore[assignment]

    def lift(self) -> None:
        """Let the block work at all places again."""
        self.block.__dict__.pop("forward", None)
        if self.checkpoints:
            self.block.gradient_checkpointing = True  # type: ignore[assignment]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Narrow the block while the context is open."""
        self.apply()
        try:
            yield
        finally:
            self.lift()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the block work at all places while the context is open."""
        self.lift()
        try:
            yield
        finally:
            self.apply()

    def _forward(self, hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        length = hidden_states.shape[1]
        if length == 1:
            return self._whole(hidden_states, *others, **named)
        with _alone:
            seen = self._seen(hidden_states, *others, **named)
            at = self._at(seen, hidden_states)
            output = self._handed(seen, *_narrowed((hidden_states, *others), at, length), **{
                name: other if _is_flat_mask(name, other) else _narrowed(other, at, length)
                for name, other in named.items()
            })  # fmt: skip
        if not isinstance(output, tuple):
            return _put(output, at, length)
        return (_put(output[0], at, length), *output[1:])

    def _seen(self, *arguments: Any, **named: Any) -> _Attended:
        """Run the block as far as its attention."""
        with self._attending(_tell):
            try:
                self._whole(*arguments, **named)
            except _Attended as seen:
                return seen
        raise FtlibError(f"{type(self.block).__name__} does not attend through transformers' interface.")

    def _handed(self, seen: _Attended, *arguments: Any, **named: Any) -> Any:
        """Run the block, its attention handed keys and values that were seen."""
        with self._attending(_handing(seen)):
            return self._whole(*arguments, **named)

    def _whole(self, *arguments: Any, **named: Any) -> Any:
        return type(self.block).forward(self.block, *arguments, **named)

    def _at(self, seen: _Attended, hidden_states: Tensor) -> Tensor:
        """Return each line's place, shape (num_lines,)."""
        num_lines, length = hidden_states.shape[:2]
        if self.place == "first":
            return torch.zeros(num_lines, dtype=torch.long, device=hidden_states.device)
        if seen.mask is None:
            return torch.full((num_lines,), length - 1, device=hidden_states.device)
        mask = seen.mask[:, 0, -1]
        visible = mask if mask.dtype == torch.bool else mask > -1
        places = torch.arange(visible.shape[-1], device=mask.device)
        before = seen.key.shape[2] - length  # a prefix that every line attends to
        return (visible * places).amax(-1).sub(before).clamp_min(0).expand(num_lines)

    @contextmanager
    def _attending(self, attend: Callable[..., Any]) -> Iterator[None]:
        """Put `attend` in the place of the block's attention, which it gets as its first argument."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        kept = [config._attn_implementation for config in self.configs]
        if len(set(kept)) != 1 or kept[0] not in INTERFACES:
            raise FtlibError(f"attention is {', '.join(map(str, kept)) or 'unknown'}, not one of {INTERFACES}.")
        _register()
        _running.attend = partial(attend, ALL_ATTENTION_FUNCTIONS[kept[0]])
        for config in self.configs:
            config._attn_implementation = NAME
        try:
            yield
        finally:
            _running.attend = None
            for config, name in zip(self.configs, kept, strict=True):
                config._attn_implementation = name


def _register() -> None:
    """Make the stand-in known to transformers, with the masks of what it stands in for."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(*arguments: Any, **named: Any) -> Any:
    """Do what this thread's narrowed block does; another thread that runs the same model attends as ever."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return (_running.attend or sdpa_attention_forward)(*arguments, **named)


def _tell(
    inner: Any, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **others: Any
) -> Any:
    raise _Attended(key, value, mask)


def _handing(seen: _Attended) -> Callable[..., Any]:
    """Return attention over the keys and values that were seen; it may be asked once."""
    left = [seen]

    def attend(
        inner: Any, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **others: Any
    ) -> Any:
        if not left:
            raise FtlibError(f"{type(module).__name__} attends more than once in a block.")
        told = left.pop()
        return inner(module, query, told.key, told.value, mask, **others)

    return attend


def _is_flat_mask(name: str, value: Any) -> bool:
    """Return whether a value speaks of keys, though it has a number for each place."""
    return name == "attention_mask" and isinstance(value, Tensor) and value.ndim == 2


def _narrowed(value: Any, at: Tensor, length: int) -> Any:
    """Return what a block is given, cut down to one place a line where it has a value for each place.

    That is hidden states and positions, shape (num_lines or 1, length, ...), and masks, shape (..., length, keys).
    """
    if isinstance(value, tuple):
        return tuple(_narrowed(part, at, length) for part in value)
    dim = 2 if isinstance(value, Tensor) and value.ndim == 4 else 1
    if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[dim] != length:
        return value
    value = value.expand(len(at), *value.shape[1:])
    return value.gather(dim, _index(at, value, dim))


def _put(value: Tensor, at: Tensor, length: int) -> Tensor:
    """Return hidden states of all places, those that nobody reads being zero."""
    whole = value.new_zeros(value.shape[0], length, *value.shape[2:])
    return whole.scatter(1, _index(at, value, 1), value)


def _index(at: Tensor, value: Tensor, dim: int) -> Tensor:
    shape = [size if i != dim else 1 for i, size in enumerate(value.shape)]
    return at.view(-1, *[1] * (value.ndim - 1)).expand(shape)


# -- whether it may be used ------------------------------------------------------------------------------


def found(model: Any, rows: Rows, run: Run, learning: Sequence[nn.Parameter] = ()) -> Narrowing | None:
    """Return how a model can be narrowed, not applied yet; None where a few rows show that it must not.

    Args:
        model: In evaluation mode.
        rows: What it will read.
        run: Runs it on a batch in float32 and returns its logits.
        learning: The parameters that learn: their gradients must be the same, too.
    """
    if is_encoder_decoder(model) or not len(rows):
        return None
    try:
        if _is_watched(model):
            return None
        batches = [rows.batch(chosen) for chosen in _samples(rows)]
        above, last = _above(model, learning)
        expected = outcomes(run, batches, above, last)
        for place in _places(model, rows):
            narrowing = Narrowing(model, place)
            with narrowing.applied():
                results = outcomes(run, batches, above, last)
            if is_same(results, expected):
                return narrowing
        logger.info("the last block is not narrowed: the head reads more than one place of it.")
    except (FtlibError, RuntimeError, TypeError, IndexError, ValueError, AttributeError) as reason:
        logger.info("the last block is not narrowed: %s", reason)
    return None


def _above(model: Any, learning: Sequence[nn.Parameter]) -> tuple[list[nn.Parameter], nn.Module | None]:
    """Return the parameters whose gradients are compared, and the block whose input's gradient stands for the others'.

    Those others, of earlier blocks and of the module that holds the word embeddings, reach the logits only through what
    the last block reads: one gradient in the place of all of theirs costs a seventh of the time.
    """
    if not learning:
        return [], None
    (*lower, last), table = block_lists(model)[0], model.get_input_embeddings()
    holding = [part for part in backbone(model).children() if any(module is table for module in part.modules())]
    parts = [*lower, *(part for part in holding if all(module is not last for module in part.modules()))]
    below = {id(p) for part in parts for p in part.parameters()} - {id(p) for p in last.parameters()}
    return [p for p in learning if id(p) not in below], last


def _is_watched(model: Any) -> bool:
    """Return whether something stands in for the last block, or listens to what it, or what holds it, gives."""
    block, inner = block_lists(model)[0][-1], backbone(model)
    holding = [module for module in inner.modules() if any(part is block for part in module.modules())]
    return "forward" in vars(block) or any(module._forward_hooks for module in holding)


def _samples(rows: Rows) -> list[np.ndarray]:
    """Return rows of several lengths, and one alone, which has no padding."""
    order = np.argsort(rows.lengths, kind="stable")
    spread = order[np.linspace(0, 0.75 * (len(order) - 1), min(CHECKED, len(order))).astype(int)]  # the rest costs more
    return [spread, spread[-1:]]


def _places(model: Any, rows: Rows) -> Iterator[Place]:
    """Yield the places that a head may read.

    Heads of causal models tell padding by its token, so a text that holds that token itself would mislead.
    """
    yield "first"
    if "input_ids" in rows.lists and not np.any(rows.input_ids.flat == unwrapped(model).config.pad_token_id):
        yield "last"
