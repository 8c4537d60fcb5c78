"""What keeps a stage from learning its rows by heart: penalties, perturbed inputs, dropout, averaged weights.

Every strategy takes these as the section ``training.regularization``; all are off unless set. Beside them stand weight
decay, gradient clipping and early stopping, which are on (`ftlib.training.stage.Training`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.plugins import Section


class Regularization(Section):
    """Penalties on weights, noise, and averages, on top of a strategy's own loss."""

    l1: float = Field(0.0, ge=0)
    """Weight of the sum of absolute weights: pushes weights to zero. Biases and norms are left out."""

    l2: float = Field(0.0, ge=0)
    """Weight of half the sum of squared weights, in the gradient (unlike weight_decay, which AdamW keeps apart). Biases
    and norms are left out."""

    l2_sp: float = Field(0.0, ge=0)
    """Weight of half the squared distance from the weights at the start; of the head's, which start at random, from
    zero. Keeps what pretraining knew (Li et al. 2018, https://arxiv.org/abs/1802.01483); 1e-3 to 1e-1."""

    adversarial: float = Field(0.0, ge=0)
    """Size of a perturbation of each row's word vectors in the direction that hurts most; the loss under it is learned
    too (Miyato et al. 2017, https://arxiv.org/abs/1605.07725: FGM). 0.5 to 5; doubles the time of a step."""

    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout everywhere in the model, in place of its own; null: as its config says."""

    averaging: Literal["ema", "swa"] | None = None
    """Keep averaged weights, validate and save those: ema, an exponential moving average over the steps; swa, the plain
    mean over the last part of them (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407)."""

    ema_decay: float = Field(0.99, gt=0, lt=1)
    """How much of the moving average is kept at each step (ema only)."""

    swa_start: float = Field(0.5, ge=0, lt=1)
    """Share of the steps after which averaging begins (swa only)."""
