"""Losses that several targets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
