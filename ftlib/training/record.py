"""What a stage's training has seen so far: its history, its best validation pass, its patience."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """The state of `ftlib.trainer.Watch`, as plain values that survive a kill.

    Attributes:
        metric: What the best weights are chosen by.
        patience: Validation passes without a better score before stopping; None never stops.
        higher_is_better: Whether a larger value of the metric is a better one.
        keeps_last: Whether the newest weights are kept, not the best ones.
        history: See `ftlib.training.TrainResult`.
        best: The validation pass whose weights are kept: "validation_loss" and metrics; {} before the first.
        best_step: When it was; 0 before the first.
        num_worse: Validation passes since the best one.
        loss_sum: Sum of the losses since the last point of the curve.
        loss_count: How many they are.
    """

    metric: str
    patience: int | None
    higher_is_better: bool = True
    keeps_last: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    num_worse: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0

    def add_loss(self, loss: float) -> None:
        """Note the loss of a step."""
        self.loss_sum += loss
        self.loss_count += 1

    @property
    def is_finite(self) -> bool:
        """Whether the losses since the last point of the curve are numbers."""
        return math.isfinite(self.loss_sum)

    def log_loss(self, step: int, epoch: float, learning_rate: float) -> None:
        """Add a point to the loss curve: the mean since the last one."""
        loss = self.loss_sum / max(1, self.loss_count)
        self.history.append({"step": step, "epoch": epoch, "loss": loss, "learning_rate": learning_rate})
        self.loss_sum, self.loss_count = 0.0, 0

    def log_validation(self, step: int, epoch: float, metrics: dict[str, float]) -> bool:
        """Add a validation pass; return whether it is the best so far (on equal scores, the lower loss)."""
        if not metrics:
            return False
        earlier = [self._rank(row) for row in self.history if "validation_loss" in row]
        is_best = not earlier or self._rank(metrics) > max(earlier)
        self.history.append({"step": step, "epoch": epoch, **metrics})
        self.num_worse = 0 if is_best else self.num_worse + 1
        if is_best or self.keeps_last:
            self.best, self.best_step = dict(metrics), step
        return is_best

    @property
    def should_stop(self) -> bool:
        """Whether patience is over."""
        return self.patience is not None and self.num_worse >= self.patience

    @property
    def newest(self) -> dict[str, float]:
        """The newest loss and validation figures, for people who watch."""
        loss = next((row["loss"] for row in reversed(self.history) if "loss" in row), None)
        if self.loss_count:
            loss = self.loss_sum / self.loss_count
        name = f"validation_{self.metric}"
        score = next((row[name] for row in reversed(self.history) if name in row), None)
        return {k: v for k, v in (("loss", loss), (name, score)) if v is not None}

    def dump(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON values; floats survive exactly."""
        names = ("history", "best", "best_step", "num_worse", "loss_sum", "loss_count")
        return {name: getattr(self, name) for name in names}

    def restore(self, values: dict[str, Any]) -> None:
        """Take back what `dump` gave."""
        for name, value in values.items():
            setattr(self, name, value)

    def _rank(self, metrics: dict[str, float]) -> tuple[float, float]:
        value = metrics.get(f"validation_{self.metric}")
        signed = -math.inf if value is None else value if self.higher_is_better else -value
        return signed, -metrics["validation_loss"]
