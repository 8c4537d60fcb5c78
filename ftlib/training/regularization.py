"""What keeps a stage from learning its rows by heart: penalties, perturbed inputs, dropout, averaged weights.

Every strategy takes these as the section ``training.regularization``; all are off unless set. Beside them stand weight
decay, gradient clipping and early stopping, which are on (`ftlib.training.stage.Training`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ftlib.errors import UnsupportedError, unknown
from ftlib.plugins import Section
from ftlib.targets.losses import LossShape

if TYPE_CHECKING:
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target
    from ftlib.training.batches import Rows


class Regularization(Section):
    """Penalties on weights, noise, averages, and how gold labels count, on top of a strategy's own loss."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of a gold label's probability that is spread evenly over all labels: models are less sure of themselves
    (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567); 0.1 is usual."""

    focal_gamma: float = Field(0.0, ge=0)
    """Power of (1 - p) by which a label of probability p counts: easy rows count little (focal loss, Lin et al. 2017,
    https://arxiv.org/abs/1708.02002); 2 is usual."""

    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = None
    """How much rows of each label count: label -> weight, 1 where none is given; "balanced": the rarer a label is among
    the training rows, the more. Of several labels a row, what rows that have the label count."""

    r_drop: float = Field(0.0, ge=0)
    """Weight of the divergence between two passes with other dropout, whose losses both count (Liang et al. 2021,
    https://arxiv.org/abs/2106.14448); 1 to 5. Doubles the time of a step."""

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

    @property
    def has_penalties(self) -> bool:
        """Whether weights themselves are penalized, at each step."""
        return bool(self.l1 or self.l2 or self.l2_sp)

    def check(self, problem: Problem) -> None:
        """Refuse, before any work, what has no meaning for a problem.

        Raises:
            UnsupportedError: With what it is meant for.
        """
        target = problem.target
        shaped = [name for name in ("label_smoothing", "focal_gamma") if getattr(self, name)]
        if shaped and target.kind == "value":
            raise UnsupportedError(f"{' and '.join(shaped)} cannot be used with {problem.name}: they are for labels, "
                                   "and it predicts numbers; leave them out.")  # fmt: skip
        if self.class_weights is not None and not target.can_be_weighted:
            raise UnsupportedError(
                f"class_weights cannot be used with {problem.name}: its rows have no labels to weigh; leave them out."
            )
        if isinstance(self.class_weights, dict) and target.labels:
            self._weights_by_name(target)

    def shape(self, problem: Problem, rows: Rows) -> LossShape:
        """Return how gold labels count.

        Args:
            problem: What is learned, its labels filled in.
            rows: The training rows.

        Raises:
            UnsupportedError: If a weight is for a label that there is not.
        """
        weights = None
        if self.class_weights == "balanced":
            weights = problem.target.balanced_weights(rows.labels)
        elif self.class_weights is not None:
            weights = self._weights_by_name(problem.target)
        return LossShape(self.label_smoothing, self.focal_gamma, weights)

    def _weights_by_name(self, target: Target) -> tuple[float, ...]:
        assert isinstance(self.class_weights, dict)
        for label in self.class_weights:
            if label not in target.labels:
                raise UnsupportedError(f"class_weights: {unknown('label', label, target.labels)}")
        return tuple(self.class_weights.get(label, 1.0) for label in target.labels)
