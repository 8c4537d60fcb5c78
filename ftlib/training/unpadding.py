"""Rows of several lengths in one step, almost without padding: they go through the blocks laid end to end.

A batch of rows of one length has no padding, but its gradient speaks of that length alone, which costs accuracy
(docs/benchmarks.md). So a step takes short rows and long ones. Between the embeddings and the head their places lie end
to end in one line, shape (1, num_places, hidden_size), in parts of rows that are about as long, each part as wide as
its own longest row: what works place by place, nearly all of a block, sees one large product, and attention is computed
part by part, on views.

A prefix, keys and values that come from outside and are the same for every row, stands once before the line, and is
put before each row of a part.

It knows no architecture. It is used only where a few rows show that logits and gradients are the same; not where
attention does not go through our function, or where something else stands in for a block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.errors import FtlibError
from ftlib.models.exactness import Run, is_same, outcomes
from ftlib.models.layers import block_lists, is_encoder_decoder
from ftlib.training.dropout import NAME

if TYPE_CHECKING:
    from ftlib.training.batches import Rows

logger = logging.getLogger(__name__)


PART_COST = 16
"""How many places more a step may have for one part less: attention runs once a part."""


@dataclass(frozen=True)
class Part:
    """Some rows of a batch, as wide as the longest of themselves.

    Attributes:
        rows: Which, shape (num_rows,).
        length: Of the longest.
    """

    rows: Tensor
    length: int

    @property
    def num_places(self) -> int:
        """Places of all rows, padding within the part included."""
        return len(self.rows) * self.length

    def of(self, mask: Tensor, prefix_length: int, *, pad_left: bool) -> Tensor:
        """Return an attention mask cut to the part.

        Args:
            mask: Of padded rows, shape (num_rows or 1, 1, width or 1, prefix_length + width).
            prefix_length: Keys before each row's own.
            pad_left: Whether shorter rows are filled on the left.
        """
        rows = mask[self.rows] if mask.shape[0] > 1 else mask
        places = slice(-self.length, None) if pad_left else slice(0, self.length)
        rows = rows[:, :, places] if mask.shape[2] > 1 else rows
        own = rows[..., prefix_length:][..., places]
        return torch.cat((rows[..., :prefix_length], own), -1) if prefix_length else own


def parts_of(lengths: Tensor, part_cost: int = PART_COST) -> tuple[Part, ...]:
    """Return the parts that cost least.

    Args:
        lengths: Tokens of each row, shape (num_rows,); a row without any takes one place.
        part_cost: What a part costs beside its places, in places.
    """
    lengths = lengths.clamp_min(1)
    values, counts = torch.unique(lengths, return_counts=True)
    wide, ends = values.cpu().numpy(), np.concatenate([[0], counts.cpu().numpy().cumsum()])
    least, begins = np.zeros(len(ends)), [0] * len(ends)
    for i in range(1, len(ends)):  # of the rows of the i shortest lengths
        costs = least[:i] + (ends[i] - ends[:i]) * wide[i - 1] + part_cost
        begins[i] = int(costs.argmin())
        least[i] = costs[begins[i]]
    order, parts, stop = lengths.argsort(stable=True), [], len(wide)
    while stop:
        start = begins[stop]
        parts.append(Part(order[ends[start] : ends[stop]], int(wide[stop - 1])))
        stop = start
    return tuple(parts[::-1])


class Unpadding:
    """Blocks, one after the other, that work on several parts of a batch at once.

    Args:
        blocks: The blocks.
        pad_left: Whether shorter rows are filled on the left.
        first: How many blocks of the model come before them.
        part_cost: What a part costs beside its places, in places.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], *, pad_left: bool, first: int = 0, part_cost: int = PART_COST
    ) -> None:
        self.blocks, self.pad_left, self.part_cost = list(blocks), pad_left, part_cost
        self.numbers = {id(block): first + i for i, block in enumerate(self.blocks)}
        self.taken: tuple[Part, ...] = ()
        self.parts: tuple[Part, ...] = ()
        """The parts that hidden states consist of at the moment; none outside the blocks."""
        self.is_used = False
        self.handles: list[Any] = []
        self.inner: Callable[..., Any] | None = None

    def take(self, batch: Mapping[str, Tensor]) -> None:
        """Say which batch comes next."""
        mask = batch["attention_mask"]
        self.taken, self.width = parts_of(mask.sum(1), self.part_cost), mask.shape[1]

    def apply(self) -> None:
        """Let the blocks work on parts."""
        from transformers import AttentionInterface
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self.inner = ALL_ATTENTION_FUNCTIONS[NAME]
        AttentionInterface.register(NAME, self._attend)
        self.handles = [block.register_forward_pre_hook(self._enter, with_kwargs=True) for block in self.blocks]
        self.handles.append(self.blocks[-1].register_forward_hook(self._leave))

    def lift(self) -> None:
        """Let the blocks work on padded rows."""
        from transformers import AttentionInterface

        for handle in self.handles:
            handle.remove()
        if self.inner is not None:
            AttentionInterface.register(NAME, self.inner)
        self.handles, self.inner, self.parts = [], None, ()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the blocks work on padded rows while the context is open."""
        self.lift()
        try:
            yield
        finally:
            self.apply()

    # -- hooks -------------------------------------------------------------------------------------

    def _enter(self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if len(self.taken) < 2:
            return None
        is_first = block is self.blocks[0]
        states = arguments[0] if arguments else named["hidden_states"]
        if is_first and len(states) == sum(len(part.rows) for part in self.taken):
            self._lay_out(states)
        if not self.parts:  # the model reads other lines than the batch has rows
            return None
        _keep_one_prefix((*arguments, *named.values()), self.numbers[id(block)])
        laid = self._laid(states) if is_first else states
        if arguments:
            return (laid, *self._laid(arguments[1:])), self._laid(named)
        return (), {**self._laid({**named, "hidden_states": None}), "hidden_states": laid}

    def _lay_out(self, states: Tensor) -> None:
        """Find where the places of the parts lie in padded rows, which virtual tokens may have made longer."""
        num_rows, width = states.shape[:2]
        self.is_used = True
        self.parts = tuple(Part(p.rows, p.length + width - self.width) for p in self.taken)
        grid = torch.arange(num_rows * width, device=states.device).view(num_rows, width)
        cut = [grid[p.rows, slice(-p.length, None) if self.pad_left else slice(p.length)] for p in self.parts]
        self.shape, self.places = (num_rows, width), torch.cat([places.reshape(-1) for places in cut])

    def _laid(self, value: Any) -> Any:
        """Return what has a value for each place with its parts end to end; masks of attention stay what they are."""
        if isinstance(value, tuple):
            return tuple(self._laid(one) for one in value)
        if isinstance(value, dict):
            return {name: one if name == "attention_mask" else self._laid(one) for name, one in value.items()}
        if not isinstance(value, Tensor) or not 2 <= value.ndim <= 3 or value.shape[1] != self.shape[1]:
            return value
        rows = value.expand(self.shape[0], *value.shape[1:])
        return rows.reshape(-1, *value.shape[2:]).index_select(0, self.places).unsqueeze(0)

    def _leave(self, block: nn.Module, arguments: Any, output: Any) -> Any:
        if not self.parts:
            return None
        self.parts = ()
        states = output[0] if isinstance(output, tuple) else output
        whole = states.new_zeros(self.shape[0] * self.shape[1], states.shape[-1])
        padded = whole.index_copy(0, self.places, states.squeeze(0)).view(*self.shape, -1)
        return (padded, *output[1:]) if isinstance(output, tuple) else padded

    def _attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **others: Any
    ) -> tuple[Tensor, None]:
        """Attend as ever, or part by part where hidden states consist of parts."""
        assert self.inner is not None
        if not self.parts:
            return self.inner(module, query, key, value, mask, **others)
        sizes = [part.num_places for part in self.parts]
        prefix_length = key.shape[2] - sum(sizes)
        if prefix_length < 0 or query.shape[2] != sum(sizes):
            raise FtlibError(f"{type(module).__name__} reads places of its own.")
        prefixes = [one[:, :, :prefix_length] for one in (key, value)]
        own = (one[0, :, -sum(sizes) :].split(sizes, 1) for one in (query, key, value))
        given = []
        for part, *laid in zip(self.parts, *own, strict=True):
            rows = [one.unflatten(1, (len(part.rows), part.length)).transpose(0, 1) for one in laid]
            if prefix_length:
                pairs = zip(prefixes, rows[1:], strict=True)
                rows[1:] = [torch.cat((one.expand(len(part.rows), -1, -1, -1), row), 2) for one, row in pairs]
            seen = None if mask is None else part.of(mask, prefix_length, pad_left=self.pad_left)
            given.append(self.inner(module, *rows, seen, **others)[0].flatten(0, 1))
        return torch.cat(given).unsqueeze(0), None


def _keep_one_prefix(given: Iterable[Any], number: int) -> None:
    """Leave a block one row of the keys and values that come from outside: a prefix is the same for every row."""
    from transformers import Cache

    for cache in given:
        if isinstance(cache, Cache) and cache.get_seq_length(number):
            layer: Any = cache.layers[number]
            layer.keys, layer.values = layer.keys[:1], layer.values[:1]


# -- whether it may be used ------------------------------------------------------------------------------


def is_right(model: Any, rows: Rows, run: Run, learning: Sequence[nn.Parameter]) -> bool:
    """Return whether a model's blocks can work on parts: logits and gradients of a few rows are the same.

    Args:
        model: In evaluation mode, its attention ours.
        rows: What it will read.
        run: Runs it on a batch in float32 and returns its logits.
        learning: The parameters that learn.
    """
    if is_encoder_decoder(model) or len(rows) < 2:
        return False
    try:
        blocks = block_lists(model)[0]
        if any("forward" in vars(block) or block._forward_hooks for block in blocks):
            raise FtlibError("something else stands in for a block, or listens to it.")
        order = np.argsort(rows.lengths, kind="stable")
        spread = np.linspace(0, 0.75 * (len(order) - 1), 4).astype(int)  # the longest rows cost more and tell no more
        batch = rows.batch(order[spread])
        expected = outcomes(_of_real(run), [batch], learning)
        unpadding = Unpadding(blocks, pad_left=rows.pad_left, part_cost=0)
        unpadding.take(batch)
        unpadding.apply()
        try:
            found = outcomes(_of_real(run), [batch], learning)
        finally:
            unpadding.lift()
        if not unpadding.is_used:
            raise FtlibError("the model reads other lines than the batch has rows.")
        if is_same(found, expected):
            return True
        logger.info("batches are of one length: with several the model computes something else.")
    except (FtlibError, RuntimeError, TypeError, IndexError, ValueError, AttributeError, KeyError) as reason:
        logger.info("batches are of one length: %s", reason)
    return False


def _of_real(run: Run) -> Run:
    """Return `run` without the logits of padding, where they are given token by token."""

    def logits_of_real(batch: dict[str, Tensor]) -> Tensor:
        logits, real = run(batch), batch["attention_mask"].bool()
        return logits[real] if logits.shape[:2] == real.shape else logits

    return logits_of_real
