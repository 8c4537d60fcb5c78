"""Packing: short rows share a line, without seeing each other, so that little of a batch is padding.

Positions count anew from each row's first token, and a token attends to its own row alone: transformers reads that off
the positions where it is given no attention mask. So a packed row gets the logits that it gets alone, and they are
handed back row by row: loss and labels know nothing of it. The rows of an optimizer step stay the same.

It helps where rows of very different lengths meet in a batch. Beside batches of similar length, which leave 3 to 6 % of
padding, it gains nothing: attention reads the whole line, and what neighbours have to do with each other is computed
before it is hidden. For that reason lines are no longer than twice the batch's longest row.

Source: Krell et al. (2021), "Efficient Sequence Packing without Cross-contamination", https://arxiv.org/abs/2107.02027;
first fit decreasing: Johnson (1974), https://doi.org/10.1137/0203025.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftlib.problems._places import logits_at
from ftlib.targets.losses import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

WIDEST = 2
"""How long a line is at most, in rows as long as the batch's longest: attention costs a line's length squared."""

TRIED = 4
"""Tokens of a row that a model is given twice, to see whether rows that share a line see each other."""

TOLERANCE = 1e-4
"""How far logits may differ, as a ratio of the largest: what rounding does in float32."""

logger = logging.getLogger(__name__)


def causal_logits(model: Any, batch: Mapping[str, Tensor], room: int | None) -> Tensor:
    """Return the logits of the labelled places, row by row, shape (num_labelled, vocabulary_size).

    Args:
        model: A causal model, or a peft one around it; rows that it cannot keep apart are not packed.
        batch: input_ids, attention_mask (real tokens first) and labels.
        room: Most tokens of a line, while the model is trained; a longer row has one for itself. None packs nothing.
    """
    if room is None or not (model.training and packs(model, batch)):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
        return logits_at(model, inputs, batch["labels"], causal=True)
    line, column = _places(batch["attention_mask"], room)
    inputs, labels = _packed(batch, line, column)
    logits = logits_at(model, inputs, labels, causal=True)
    wanted = (batch["labels"] != IGNORED)[batch["attention_mask"] > 0]
    order = (line * labels.shape[1] + column)[wanted].argsort()  # the lines' order, in which the logits come
    return logits[order.argsort()]


def plan(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Return which rows share a line: each, longest first, joins the first line that has room for it.

    Args:
        lengths: Tokens of each row.
        room: Most tokens of a line.
    """
    lines: list[list[int]] = []
    left: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = next((i for i, free in enumerate(left) if free >= lengths[row]), len(lines))
        if at == len(lines):
            lines.append([])
            left.append(room)
        lines[at].append(row)
        left[at] -= lengths[row]
    return lines


def _places(mask: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Return the line and the column of each token, row by row, shape (num_tokens,)."""
    import torch

    lengths = mask.sum(1).tolist()
    line, start = [0] * len(lengths), [0] * len(lengths)
    for number, rows in enumerate(plan(lengths, min(room, WIDEST * max(lengths)))):
        taken = 0
        for row in rows:
            line[row], start[row] = number, taken
            taken += lengths[row]
    row_of, place = (mask > 0).nonzero(as_tuple=True)
    return (torch.tensor(line, device=mask.device)[row_of], torch.tensor(start, device=mask.device)[row_of] + place)


def _packed(batch: Mapping[str, Tensor], line: Tensor, column: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return what the model reads, and labels, both by line; padding is at position 0, so that it sees but itself."""
    real = batch["attention_mask"] > 0
    shape = (int(line.max()) + 1, int(column.max()) + 1)

    def laid(values: Tensor, padding: int) -> Tensor:
        filled = values.new_full(shape, padding)
        filled[line, column] = values[real]
        return filled

    inputs = {
        "input_ids": laid(batch["input_ids"], 0),
        "position_ids": laid(batch["attention_mask"].cumsum(1) - 1, 0),
    }
    return {**inputs, "use_cache": False}, laid(batch["labels"], IGNORED)  # type: ignore[dict-item]


# -- models that can -----------------------------------------------------------------------------------


def packs(model: Any, batch: Mapping[str, Tensor]) -> bool:
    """Return whether a model keeps rows apart that share a line; tried once, and what was found left on the model."""
    if "packs_rows" not in model.__dict__:
        model.packs_rows = not _has_virtual(model) and _keeps_apart(model, batch)
        if not model.packs_rows:
            logger.warning("packing: this model cannot keep rows apart that share a line; they are not packed.")
    return bool(model.packs_rows)


def _has_virtual(model: Any) -> bool:
    """Return whether virtual tokens or a prefix go before the line, where only its first row would have them."""
    from ftlib.models.virtual_tokens import attached

    learned = getattr(model, "peft_config", {}).values()
    return attached(model) is not None or any(config.is_prompt_learning for config in learned)


def _keeps_apart(model: Any, batch: Mapping[str, Tensor]) -> bool:
    """Return whether the beginning of a row gets the same logits alone and behind itself."""
    import torch

    row = batch["input_ids"][:1, :TRIED]
    positions = torch.arange(row.shape[1], device=row.device)[None]
    twice = {"input_ids": row.repeat(1, 2), "position_ids": positions.repeat(1, 2)}
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(row.device.type, enabled=False):
            alone = model(input_ids=row, use_cache=False).logits.float().repeat(1, 2, 1)
            together = model(**twice, use_cache=False).logits.float()
    except TypeError:  # it takes no positions
        return False
    finally:
        model.train()
    return bool((alone - together).abs().max() <= TOLERANCE * alone.abs().max())
