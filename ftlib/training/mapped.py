"""Files as tensors: what is too large for memory is read and written where it lies; the page cache keeps what fits."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def created(path: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a new file as a tensor; what is written into it is in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _view(np.memmap(path, dtype=np.uint8, mode="w+", shape=(_num_bytes(shape, dtype),)), shape, dtype)


def opened(path: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a file as a tensor; what is written into it stays in memory."""
    return _view(np.memmap(path, dtype=np.uint8, mode="c", shape=(_num_bytes(shape, dtype),)), shape, dtype)


def token_places(starts: Tensor, rows: Tensor, real: Tensor) -> Tensor:
    """Return where the tokens of some rows lie in a file that holds all rows' tokens one after the other.

    Args:
        starts: Where each row begins in the file, shape (num_rows,) or longer.
        rows: The rows at hand, shape (batch_size,).
        real: Which places of a batch of them are tokens, shape (batch_size, length).

    Returns:
        Shape (number of tokens,), row by row.
    """
    counts = real.sum(1)
    within = torch.arange(int(counts.sum())) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return torch.repeat_interleave(starts[rows], counts) + within


def _num_bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    return prod(shape) * torch.empty((), dtype=dtype).element_size()


def _view(content: np.ndarray, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(content).view(dtype).view(*shape)
