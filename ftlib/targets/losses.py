"""Losses that several targets share, and the ways in which a stage may shape them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of what is not learned."""

SMALLEST = 1e-12

IMPOSSIBLE = -5e3
"""Logits below it are of answers that cannot be given (a place outside the text, a virtual token)."""


@dataclass(frozen=True)
class LossShape:
    """How the loss on gold labels counts.

    Attributes:
        label_smoothing: Share of a label's probability that is spread evenly over all labels that can be given
            (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7).
        focal_gamma: Power of (1 - p) by which a label of probability p counts: what is learned already counts little
            (Lin et al. 2017, https://arxiv.org/abs/1708.02002). 0: every label counts alike.
        class_weights: A weight for each label; None: all alike.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] | None = None


PLAIN = LossShape()
"""The loss as the field defines it."""


def cross_entropy(logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
    """Return the mean cross-entropy of the labels that are not `IGNORED`; 0 where there is none.

    Args:
        logits: Shape (N, num_labels), or (N, num_labels, ...).
        labels: Shape (N,), or (N, ...).
        shape: How labels count. With weights, the mean is that of torch: divided by the weights of the gold labels.
    """
    from torch.nn import functional as F

    logits, kept = logits.float(), labels != IGNORED
    if shape == PLAIN:
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / kept.sum().clamp_min(1)
    gold = labels.where(kept, labels.new_zeros(()))
    log_likelihoods = F.log_softmax(logits, dim=1)
    hard = -log_likelihoods.gather(1, gold.unsqueeze(1)).squeeze(1)
    weights = _weights(shape, logits)
    counts = kept.to(hard.dtype) if weights is None else kept * weights[gold]
    losses = hard * counts
    if shape.label_smoothing:
        possible = logits > IMPOSSIBLE
        each = -log_likelihoods if weights is None else -log_likelihoods * weights.view(-1, *[1] * (logits.ndim - 2))
        even = each.masked_fill(~possible, 0.0).sum(1) / possible.sum(1)
        losses = (1 - shape.label_smoothing) * losses + shape.label_smoothing * even * kept
    if shape.focal_gamma:
        losses = losses * (1 - (-hard).exp()).clamp_min(SMALLEST).pow(shape.focal_gamma)
    return losses.sum() / counts.sum().clamp_min(SMALLEST)


def has_label(labels: Tensor) -> Tensor:
    """Return which rows have a label, bool, shape (batch_size,): of one, of a number, or a vector of several."""
    is_known = ~labels.isnan() if labels.is_floating_point() else labels != IGNORED
    return is_known if labels.ndim == 1 else is_known.all(1)


def binary_cross_entropy(logits: Tensor, labels: Tensor, shape: LossShape = PLAIN) -> Tensor:
    """Return the binary cross-entropy, mean over rows and labels.

    Args:
        logits: Shape (N, num_labels).
        labels: 0 or 1, the same shape.
        shape: How labels count: a weight multiplies the loss of rows that have the label.
    """
    from torch.nn import functional as F

    logits, labels = logits.float(), labels.float()
    smooth = labels * (1 - shape.label_smoothing) + shape.label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=_weights(shape, logits), reduction="none")
    if shape.focal_gamma:
        wrong = (labels - logits.sigmoid()).abs()
        losses = losses * wrong.clamp_min(SMALLEST).pow(shape.focal_gamma)
    return losses.mean()


def _weights(shape: LossShape, logits: Tensor) -> Tensor | None:
    return None if shape.class_weights is None else logits.new_tensor(shape.class_weights)


def softened_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """Return the Kullback-Leibler divergence of softened probabilities, summed over a row, times temperature squared.

    Hinton et al. (2015), "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531, section 2.

    Args:
        student_logits: Shape (batch_size, ...).
        teacher_logits: The same shape; no gradient is taken through them.
        temperature: Softness of both, > 0.
        dim: Over which probabilities sum to 1.
    """
    from torch.nn import functional as F

    student = F.log_softmax(student_logits.float() / temperature, dim=dim)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=dim)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def two_way_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean of both Kullback-Leibler divergences between softmaxes, mean over them; R-Drop's.

    Liang et al. (2021), "R-Drop: Regularized Dropout for Neural Networks", https://arxiv.org/abs/2106.14448, eq. 3.

    Args:
        one: Logits, shape (N, num_labels), or (N, num_labels, ...).
        other: The same shape.
    """
    from torch.nn import functional as F

    first, second = F.log_softmax(one.float(), dim=1), F.log_softmax(other.float(), dim=1)
    both = ((first.exp() - second.exp()) * (first - second)).sum()
    return both * one.shape[1] / (2 * max(1, one.numel()))


def binary_two_way_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return what `two_way_divergence` does of a probability for each label, mean over rows and labels."""
    from torch.nn import functional as F

    one, other = one.float(), other.float()
    yes = (one.sigmoid() - other.sigmoid()) * (F.logsigmoid(one) - F.logsigmoid(other))
    no = (one.sigmoid() - other.sigmoid()) * (F.logsigmoid(-other) - F.logsigmoid(-one))
    return (yes + no).mean() / 2
