"""Rows of several tasks: which batches an epoch has of each, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from ftlib.training.batches import ROWS, BatchSize, Rows, training_batches

if TYPE_CHECKING:
    import torch

TASK = "task"
"""The column of a training batch that says which task its rows are of: its place among the tasks."""

Sampling = Literal["proportional", "temperature", "uniform"]


def shares(sizes: Sequence[int], sampling: Sampling, temperature: float) -> np.ndarray:
    """Return each task's share of the batches.

    Args:
        sizes: Training rows, or batches, of each task.
        sampling: "proportional": to its size; "temperature": to its size to the power of 1 / temperature, so that
            small tasks are seen more often than they are large (multilingual BERT's exponent 0.7 is a temperature of
            1.43; Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 3.5.2, use 2); "uniform": all alike.
        temperature: At least 1.
    """
    power = {"proportional": 1.0, "temperature": 1 / temperature, "uniform": 0.0}[sampling]
    weights = np.asarray(sizes, np.float64) ** power
    return weights / weights.sum()


def counts(sizes: Sequence[int], sampling: Sampling, temperature: float) -> tuple[int, ...]:
    """Return the batches of each task in an epoch, as many in all as there are; at least one of each.

    Args:
        sizes: Batches of each task.
        sampling: See `shares`.
        temperature: See `shares`.
    """
    wanted = shares(sizes, sampling, temperature) * sum(sizes)
    return tuple(max(1, round(value)) for value in wanted.tolist())


class MixedSampler:
    """A batch sampler over several tasks' batches of similar length; `set_epoch` chooses the epoch.

    A task's batches come pass by pass over its rows, going on in the next epoch where the last one ended.

    Args:
        lengths: Tokens of each row, an array a task.
        counts: Batches of each task in an epoch.
        batch_size: Of each batch.
        seed: Decides, with the epoch, every batch.
    """

    def __init__(self, lengths: Sequence[np.ndarray], counts: Sequence[int], batch_size: BatchSize, seed: int) -> None:
        self.lengths, self.counts, self.batch_size, self.seed, self.epoch = lengths, counts, batch_size, seed, 0
        self.starts = np.concatenate([[0], np.cumsum([len(rows) for rows in lengths])])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[np.ndarray]:
        streams = [self._batches(task) for task in range(len(self.counts))]
        order = np.repeat(np.arange(len(self.counts)), self.counts)
        for task in np.random.default_rng([self.seed, self.epoch, len(order)]).permutation(order):
            yield next(streams[task])

    def _batches(self, task: int) -> Iterator[np.ndarray]:
        """Yield a task's batches from the first of the epoch on, without end."""
        in_pass = self.batch_size.number(self.lengths[task])
        first, skipped = divmod(self.epoch * self.counts[task], in_pass)
        while True:
            batches = training_batches(self.lengths[task], self.batch_size, seed=self.seed, epoch=first)
            yield from (batch + self.starts[task] for batch in islice(batches, skipped, None))
            first, skipped = first + 1, 0


@dataclass(frozen=True)
class MixedRows(Rows):
    """Rows of several tasks, of which a batch is of one; a row's place counts on through the tasks.

    The columns are those of all tasks, each under "<task>/<column>".

    Attributes:
        parts: The tasks' rows.
        counts: Batches of each task in an epoch.
    """

    parts: tuple[Rows, ...] = ()
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, Rows], counts: Sequence[int]) -> MixedRows:
        """Return the rows of several tasks, by name."""
        lists = {column_of(task, name): column for task, rows in parts.items() for name, column in rows.lists.items()}
        fixed = {column_of(task, name): column for task, rows in parts.items() for name, column in rows.fixed.items()}
        padding = next(iter(parts.values())).padding_id
        return cls(lists, fixed, frozenset(), padding_id=padding, parts=tuple(parts.values()), counts=tuple(counts))

    @property
    def lengths(self) -> np.ndarray:
        """Places that each row takes in the model."""
        return np.concatenate([rows.lengths for rows in self.parts])

    def sampler(self, batch_size: BatchSize, seed: int) -> MixedSampler:
        """Return what draws the batches of an epoch."""
        return MixedSampler([rows.lengths for rows in self.parts], self.counts, batch_size, seed)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Return rows of one task as a padded batch that says which they are, and of which task."""
        import torch

        starts = np.cumsum([0, *(len(rows) for rows in self.parts)])
        task = int(np.searchsorted(starts, indices[0], side="right")) - 1
        batch = self.parts[task].batch(np.asarray(indices) - starts[task])
        return {**batch, ROWS: torch.as_tensor(indices), TASK: torch.full((len(indices),), task)}


def column_of(task: str, name: str) -> str:
    """Return what a task's column is called among those of several tasks."""
    return f"{task}/{name}"
