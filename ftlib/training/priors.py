"""Heads that are new begin with what the training labels' frequencies say.

A new head's bias is zero: at first every label is as likely as any other. Where one of them is nearly all there is, as
"no entity" is among the tags of words, the first steps then push every weight the same way, and at a high rate a model
can end up giving one answer for everything: of three LoRA stages on WNUT17 one did.

Lin et al. (2017), "Focal Loss for Dense Object Detection", https://arxiv.org/abs/1708.02002, section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ftlib.models.layers import head_parameters

if TYPE_CHECKING:
    from ftlib.problems.base import Problem
    from ftlib.targets.losses import LossShape
    from ftlib.training.batches import Rows


@torch.no_grad()
def begin_at_frequencies(model: Any, problem: Problem, rows: Rows, shape: LossShape) -> None:
    """Give the bias of a new head the logits that suit the labels best where nothing is known of a row.

    A bias that is not all zeros was trained and stays, and so does one that is frozen.

    Args:
        model: Adapted by the strategy.
        problem: What is learned, its labels filled in.
        rows: Training rows.
        shape: How gold labels count.
    """
    target = problem.target
    logits = target.prior_logits(rows.labels, shape) if target.has_prior else None
    if logits is None:
        return
    new = [p for p in head_parameters(model) if p.requires_grad and p.shape == logits.shape and not p.any()]
    if new:
        new[-1].copy_(torch.from_numpy(logits))
