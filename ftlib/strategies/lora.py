"""LoRA: beside each frozen linear layer, a product of two small matrices learns.

Close to full fine-tuning with a few percent of the weights, a tenth of the optimizer's memory, and, merged, nothing
extra to serve. It wants a rate about ten times as high as full fine-tuning's. Where the task is far from pretraining
or rows are plenty, full fine-tuning is ahead (Biderman et al., 2024, https://arxiv.org/abs/2405.09673).

Hu et al. (2022), "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685;
rsLoRA: Kalajdzievski (2023), https://arxiv.org/abs/2312.03732; DoRA: Liu et al. (2024),
https://arxiv.org/abs/2402.09353. All linear layers rather than queries and values: Dettmers et al. (2023),
https://arxiv.org/abs/2305.14314, section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem


class Lora(Strategy):
    """Low-rank updates of every linear layer; the head learns whole."""

    r: int = Field(8, ge=1)
    """Rank of the updates; more is closer to full fine-tuning."""

    alpha: float = Field(16.0, gt=0)
    """Scale: updates are multiplied by alpha / r (rsLoRA: alpha / sqrt(r))."""

    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout before the low-rank product."""

    rslora: bool = False
    """Scale by alpha / sqrt(r), which keeps a high rank learning."""

    dora: bool = False
    """Learn each weight's size apart from its direction: slower, sometimes better at a low rank."""

    merge: bool = True
    """Merge the updates into a plain checkpoint; otherwise an adapter is saved with its base beside it."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """A prefix: peft cannot merge one away, and stacks no second adapter on it."""
        return {"prefix": "start from base, or from a stage without one"}

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Wrap the model with peft's LoRA on all linear layers but the head's.

        Raises:
            UnsupportedError: If the checkpoint has a prefix.
        """
        from peft import LoraConfig, get_peft_model

        from ftlib.models.layers import head_names
        from ftlib.models.peft_models import has_beyond_plain, keep_hooks

        self.check_start(has_beyond_plain(model))
        heads = head_names(model)
        config = LoraConfig(
            task_type=problem.peft_task_type,
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            use_rslora=self.rslora,
            use_dora=self.dora,
            target_modules="all-linear",
            exclude_modules=rf"(.*\.)?({'|'.join(heads)})(\..*)?" if heads else None,
            modules_to_save=list(heads) or None,
        )
        return keep_hooks(model, lambda inner: get_peft_model(inner, config))

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Merge the updates, or leave the adapter as it is."""
        from ftlib.models.peft_models import merged

        return merged(model) if self.merge else model
