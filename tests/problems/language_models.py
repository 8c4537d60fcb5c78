"""What the tests of problems on language models share: small models that are opened as a stage opens them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ftlib.data.encode import encode
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.problems.base import Problem
from ftlib.training import stage
from ftlib.training.batches import Rows

TinyModel = Callable[..., Path]


def opened(problem: Problem, folder: Path, seed: int = 3) -> Checkpoint:
    """Open a checkpoint; of other seeds the weights are moved, so that two are different models of one vocabulary."""
    import torch

    stage.set_seed(seed)
    checkpoint = checkpoints.load(folder, problem)
    if seed != 3:
        with torch.no_grad():
            for parameter in checkpoint.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return checkpoint


def encoded(problem: Problem, rows: list[dict[str, Any]], tokenizer: Any) -> pa.Table:
    """Return rows as the encode step writes them."""
    table = pa.Table.from_pylist(rows)
    table = table.add_column(0, "row_id", pa.array(np.arange(len(rows)) * 2 + 7))
    return encode(table, problem, tokenizer)[0]


def batch_of(table: pa.Table, checkpoint: Checkpoint, problem: Problem) -> dict[str, Any]:
    """Return all rows as one batch."""
    return Rows.from_table(table, checkpoint.tokenizer, problem).batch(np.arange(len(table)))
