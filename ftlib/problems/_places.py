"""Logits at some places of a text: a language model has tens of thousands for each, so none is made in vain.

The head runs on the chosen places alone: what the backbone gives is cut down to them before the head reads it. That
holds for any architecture whose head looks at each place by itself, which is every language model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftlib.targets.losses import IGNORED, PLAIN, LossShape, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

MOST_LOGITS = 1 << 25
"""Logits made at once when rows are read: 128 MiB in float32."""

NOWHERE = -1e4
"""The logit of a virtual token, which stands for no text; finite, so that a log-loss stays so."""


def logits_at(model: Any, inputs: Mapping[str, Tensor], labels: Tensor, *, causal: bool) -> Tensor:
    """Return the logits of the labelled places, row by row, shape (num_labelled, vocabulary_size).

    Args:
        model: A language model, or a peft one around it.
        inputs: What it reads.
        labels: Shape (batch_size, length); `IGNORED` where nothing is predicted.
        causal: Whether a place's logits are those that the model gives at the token before it.
    """
    from ftlib.models.layers import backbone
    from ftlib.models.virtual_tokens import attached

    chosen = _chosen(model, labels, causal=causal)

    def select(module: Any, arguments: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][chosen][:, None]
        return output

    hook = backbone(model).register_forward_hook(select)
    try:
        logits = model(**inputs).logits[:, 0]
    finally:
        hook.remove()
    virtual = attached(model)
    if virtual:
        logits[:, list(virtual.ids)] = NOWHERE
    return logits


def _chosen(model: Any, labels: Tensor, *, causal: bool) -> Tensor:
    """Return where the backbone's output is needed, bool, as long as what the backbone reads."""
    import torch

    from ftlib.models.virtual_tokens import attached

    virtual = attached(model)
    if virtual:  # the model inserts them after the places before `position`
        at = virtual.position
        gap = labels.new_full((len(labels), len(virtual.ids)), IGNORED)
        labels = torch.cat((labels[:, :at], gap, labels[:, at:]), dim=1)
    wanted = labels != IGNORED
    return torch.cat((wanted[:, 1:], torch.zeros_like(wanted[:, :1])), dim=1) if causal else wanted


def labelled(labels: Tensor) -> Tensor:
    """Return the labels of the predicted places, in the order of `logits_at`."""
    return labels[labels != IGNORED]


def mean_loss(logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
    """Return the mean cross-entropy of the predicted places whose token is known; 0 where there is none.

    Args:
        logits: As `logits_at` gives them.
        labels: Shape (batch_size, length).
        shape: How tokens count.
    """
    gold = labelled(labels)
    return cross_entropy(logits, gold.masked_fill(gold < 0, IGNORED), shape)


def rows_at_once(vocabulary_size: int) -> int:
    """Return how many tokens are read together, so that their logits fit in `MOST_LOGITS`."""
    return max(256, min(8192, MOST_LOGITS // vocabulary_size))
