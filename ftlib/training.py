"""Train one stage, fast and resumable, on `transformers.Trainer`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.plugins import Section


class Training(Section):
    """How one stage is trained, whatever its strategy."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate. Full fine-tuning wants 1e-5 to 1e-4, adapters 1e-4 to 1e-3, prompts 1e-3 to 1e-1."""

    num_train_epochs: float = Field(3.0, gt=0)
    """Passes over the training rows."""

    batch_size: int = Field(32, ge=1)
    """Rows an optimizer step."""

    warmup_ratio: float = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""

    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate falls after warm-up."""

    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decoupled decay; biases and normalisation weights have none."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""

    evaluations_per_epoch: int = Field(1, ge=1)
    """Validation passes an epoch; the best one's weights are kept."""

    early_stopping_patience: int | None = Field(3, ge=1)
    """Stop after this many validation passes without a better score; null never stops."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the processor multiplies it faster, else float32."""

    checkpoint_seconds: float = Field(60.0, gt=0)
    """Seconds between the checkpoints that a killed stage resumes from. Shapes no result."""
