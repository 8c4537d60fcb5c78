"""Batches of similar length: which rows go together, and how they become tensors.

Random batches of 32 SST-2 rows hold 52 tokens a row where 25 are real. Rows of similar length together waste
almost nothing, but a gradient of one length costs accuracy (docs/benchmarks.md). Where a model can work on several
lengths at once (`unpadding`), half of a batch are short rows and half are long ones. Which rows those are is a function
of the seed and the epoch alone, so that a resumed run meets the same batches.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from transformers import PreTrainedTokenizerBase

    from ftlib.problems.base import Problem

ROWS = "rows"
"""The column of a training batch that says which rows it holds."""

JITTER = 0.05
"""How far a row's length is blurred before sorting, as a ratio: mixes neighbours anew every epoch."""


@dataclass(frozen=True)
class BatchSize:
    """How large the batches of an epoch are.

    Attributes:
        rows: Rows a batch; one batch holds the remainder.
        tokens: The most tokens of a batch, padding included, so that those of long rows hold fewer rows; a row that is
            longer is a batch by itself. None: any number.
        num_lengths: Of the rows of a batch: 1, or 2 with short rows before long ones; of batches within a number of
            tokens it is 1.
    """

    rows: int
    tokens: int | None = None
    num_lengths: int = 1

    def number(self, lengths: np.ndarray) -> int:
        """Return how many batches an epoch has, the same in each."""
        return -(-len(lengths) // self.rows) if self.tokens is None else len(self._within(lengths, self.tokens))

    def cuts(self, lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return where rows in the order of their blurred lengths are cut into batches.

        Args:
            lengths: Tokens of each row, shape (num_rows,).
            random: Decides where the remainder is; with `tokens` it is among the shortest.
        """
        if self.tokens is not None:
            return np.cumsum(self._within(lengths, self.tokens)[::-1])[:-1]
        remainder = len(lengths) % self.rows
        cuts = np.arange(self.rows, len(lengths), self.rows)
        if not remainder:
            return cuts
        short = random.integers(len(cuts) + 1)
        return np.concatenate([cuts[:short], cuts[short:] - self.rows + remainder])

    def _within(self, lengths: np.ndarray, tokens: int) -> list[int]:
        """Return the rows of each batch, those of the longest rows first, with room for rows that blurring moves."""
        return _sizes(np.sort(lengths)[::-1] * ((1 + JITTER) / (1 - JITTER)), tokens, self.rows)


def training_batches(lengths: np.ndarray, batch_size: BatchSize, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Return an epoch's batches: rows of one or two lengths, drawn anew for each epoch, in random order.

    Args:
        lengths: Tokens of each row, shape (num_rows,).
        batch_size: Of each batch.
        seed: With `epoch`, decides everything.
        epoch: From 0.
    """
    random = np.random.default_rng([seed, epoch])
    blurred = lengths * random.uniform(1 - JITTER, 1 + JITTER, len(lengths))
    order = np.argsort(blurred, kind="stable")
    if batch_size.num_lengths > 1 and batch_size.tokens is None and len(order) >= 2 * batch_size.rows > 2:
        batches = _of_two_lengths(order, batch_size.rows, random)
    else:
        batches = [batch for batch in np.split(order, batch_size.cuts(lengths, random)) if len(batch)]
    return [batches[i] for i in random.permutation(len(batches))]


def _of_two_lengths(order: np.ndarray, num_rows: int, random: np.random.Generator) -> list[np.ndarray]:
    """Return batches of which half the rows are of the shorter half of all, each half of one length.

    Args:
        order: Rows by their length.
        num_rows: Of a batch; one of rows of one length holds the remainder.
        random: Decides which lengths meet.
    """
    number, remainder = divmod(len(order), num_rows)
    at = num_rows * int(random.integers(number + 1))
    rest, order = order[at : at + remainder], np.delete(order, np.s_[at : at + remainder])
    half = num_rows // 2
    short, long = order[: number * half].reshape(number, half), order[number * half :].reshape(number, num_rows - half)
    pairs = zip(short, long[random.permutation(number)], strict=True)
    return [np.concatenate(pair) for pair in pairs] + ([rest] if remainder else [])


@functools.cache
def tokens_at_once() -> int:
    """Return how many tokens are read at once: on a processor so few that hidden states stay in its caches."""
    import torch

    return 8192 if torch.cuda.is_available() else 2048


def reading_batches(lengths: np.ndarray, max_tokens: int | None = None, max_rows: int = 256) -> list[np.ndarray]:
    """Return batches for reading rows once: longest first, as many rows as `max_tokens` padded tokens allow.

    Args:
        lengths: Tokens of each row, shape (num_rows,).
        max_tokens: Of a batch; None: `tokens_at_once`.
        max_rows: Of a batch.
    """
    max_tokens = max_tokens or tokens_at_once()
    order = np.argsort(-lengths, kind="stable")
    return np.split(order, np.cumsum(_sizes(lengths[order], max_tokens, max_rows))[:-1]) if len(order) else []


def _sizes(lengths: np.ndarray, max_tokens: int, max_rows: int) -> list[int]:
    """Return how many rows, whose lengths fall, go into each batch: as many as fit, and at least one."""
    sizes, start = [], 0
    while start < len(lengths):
        fitting = int(np.clip(max_tokens // max(1, lengths[start]), 1, max_rows))
        sizes.append(min(fitting, len(lengths) - start))
        start += fitting
    return sizes


class Sampler(Protocol):
    """What says which rows make the batches of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""

    def __len__(self) -> int:
        """Return the batches of an epoch."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the places of each batch's rows."""


class SimilarLengthSampler:
    """A batch sampler over `training_batches`; `set_epoch` chooses the epoch.

    Args:
        lengths: Tokens of each row.
        batch_size: Of each batch.
        seed: Decides, with the epoch, every batch.
    """

    def __init__(self, lengths: np.ndarray, batch_size: BatchSize, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batch_size.number(self.lengths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(training_batches(self.lengths, self.batch_size, seed=self.seed, epoch=self.epoch))


@dataclass(frozen=True)
class Lists:
    """A column of lists as one flat array.

    Attributes:
        flat: All values, one row after the other.
        starts: Where each row begins in `flat`, and the last one's end, shape (num_rows + 1,).
        padding: What fills a batch's shorter rows.
    """

    flat: np.ndarray
    starts: np.ndarray
    padding: int | float

    @classmethod
    def of(cls, column: pa.ChunkedArray, padding: int | float) -> Lists:
        """Return a column's lists; integers as int64, other numbers as float32."""
        lists = column.combine_chunks()
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        flat = flat.astype(np.int64 if np.issubdtype(flat.dtype, np.integer) else np.float32)
        return cls(flat, np.concatenate([[0], np.cumsum(_value_lengths(lists))]).astype(np.int64), padding)

    @property
    def lengths(self) -> np.ndarray:
        """Values of each row."""
        return np.diff(self.starts)

    def batch(self, indices: np.ndarray, *, left: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return some rows, padded to the longest of them, and which places are real, both (rows, longest)."""
        lengths = self.lengths[indices]
        columns = np.arange(lengths.max(initial=0))
        if left:
            columns = columns - (lengths.max(initial=0) - lengths)[:, None]
        real = (columns >= 0) & (columns < lengths[:, None])
        places = np.where(real, self.starts[indices][:, None] + columns, 0)
        filled = self.flat[places] if len(self.flat) else np.zeros(real.shape, self.flat.dtype)
        return np.where(real, filled, np.asarray(self.padding, self.flat.dtype)), real


@dataclass(frozen=True)
class Rows:
    """Encoded rows as flat arrays, ready to be cut into padded batches.

    Attributes:
        lists: Columns of lists, input_ids among them.
        fixed: Columns of one number, or one vector, a row.
        targets: Which of the columns the loss reads, and the model does not.
        pad_left: Whether shorter rows are filled on the left, in columns with a value for each token of input_ids.
        places: How long rows are for the model; None: as many places as input_ids.
        padding_id: The token that fills shorter rows.
    """

    lists: dict[str, Lists]
    fixed: dict[str, np.ndarray]
    targets: frozenset[str]
    pad_left: bool = False
    places: np.ndarray | None = None
    padding_id: int = 0

    @classmethod
    def from_table(cls, table: pa.Table, tokenizer: PreTrainedTokenizerBase, problem: Problem) -> Rows:
        """Return what a problem's model and loss read of an encoded table, as `ftlib.data.encode` writes it."""
        import pyarrow as pa

        padding = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        padding |= problem.padding
        lists, fixed = {}, {}
        for name in (*problem.model_inputs, *problem.model_targets):
            if name not in table.column_names:
                continue
            kind = table.schema.field(name).type
            if pa.types.is_list(kind) or pa.types.is_large_list(kind):
                lists[name] = Lists.of(table[name], padding.get(name, 0))
            else:
                fixed[name] = values(table[name])
        targets = frozenset(problem.model_targets) & {*lists, *fixed}
        left = (problem.padding_side or tokenizer.padding_side) == "left"
        places = values(table["length"]) if "length" in table.column_names else None
        return cls(lists, fixed, targets, left, places, padding["input_ids"])

    @property
    def input_ids(self) -> Lists:
        """The tokens."""
        return self.lists["input_ids"]

    @property
    def labels(self) -> np.ndarray:
        """The labels of all rows, one after the other: shape (N,), or (N, num_labels) where each is a vector."""
        return self.fixed["labels"] if "labels" in self.fixed else self.lists["labels"].flat

    @property
    def lengths(self) -> np.ndarray:
        """Places that each row takes in the model: its tokens, as a rule."""
        return self.input_ids.lengths if self.places is None else self.places

    def __len__(self) -> int:
        return len(self.lengths)

    def sampler(self, batch_size: BatchSize, seed: int) -> Sampler:
        """Return what draws the batches of an epoch."""
        return SimilarLengthSampler(self.lengths, batch_size, seed)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Return the rows at `indices` as one padded batch that says which they are; a DataLoader calls this."""
        import torch

        return {**self.batch(np.asarray(indices)), ROWS: torch.as_tensor(indices)}

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Return a batch: columns of lists (rows, longest), attention_mask, and the other columns."""
        import torch

        lengths = self.input_ids.lengths[indices] if "input_ids" in self.lists else None
        batch = {}
        for name, lists in self.lists.items():
            by_token = lengths is not None and np.array_equal(lists.lengths[indices], lengths)
            batch[name], real = lists.batch(indices, left=self.pad_left and by_token)
            if name == "input_ids":
                batch["attention_mask"] = real.astype(np.int64)
        batch.update({name: column[indices] for name, column in self.fixed.items()})
        return {name: torch.from_numpy(column) for name, column in batch.items()}


def _value_lengths(lists: pa.Array) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.list_value_length(lists).to_numpy(zero_copy_only=False)


def values(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers, or of vectors of one size, as an array that owns its memory; bytes are uint8."""
    import pyarrow as pa

    array = column.combine_chunks()
    if pa.types.is_fixed_size_binary(array.type):
        width, data = array.type.byte_width, array.buffers()[1]
        return np.frombuffer(data, np.uint8, len(array) * width, array.offset * width).reshape(len(array), width)
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1).copy()
    return array.to_numpy(zero_copy_only=False).copy()
