"""Prefix tuning: learned keys and values that every layer attends to; the model itself stays frozen.

A few thousand weights a task on one shared model. On small encoders and hard tasks it stays behind full
fine-tuning, and gets nearer as models grow (Liu et al., 2022, tables 2 and 3). It wants a rate of 1e-3 to 1e-2 and
more epochs. `prefix_projection` (a small network that makes the prefix) steadies it where rows are few.

Li and Liang (2021), "Prefix-Tuning", https://arxiv.org/abs/2101.00190; on encoders, layer by layer as here:
Liu et al. (2022), "P-Tuning v2", https://arxiv.org/abs/2110.07602.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem


class Prefix(Strategy):
    """Learned keys and values before every layer's; only they and the head learn."""

    leaves: ClassVar[frozenset[str]] = frozenset({"prefix"})

    num_virtual_tokens: int = Field(20, ge=1)
    """Length of the prefix; long inputs lose as many positions."""

    prefix_projection: bool = False
    """Make the prefix by a small network while training: steadier with few rows, slower."""

    projection_size: int = Field(128, ge=1)
    """Width of that network's hidden layer."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """Another prefix, and a template: peft puts one before heads for labels alone."""
        return {
            "prefix": "start from base, or from a stage without one",
            "cloze template": "choose prompt_tuning or lora, or start from base",
        }

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model without positions for the prefix."""
        return size.with_virtual_tokens(self.num_virtual_tokens, problem.max_length, self.name)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze the model and put peft's prefix before each layer.

        Raises:
            UnsupportedError: If the model takes no keys and values from outside, has no room for the prefix,
                or has a prefix already.
        """
        from peft import PrefixTuningConfig, get_peft_model

        from ftlib.models.layers import head_parameters, unwrapped
        from ftlib.models.peft_models import has_beyond_plain, keep_hooks

        self.check_start(has_beyond_plain(model))
        self._check_model(model, problem)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        config = PrefixTuningConfig(
            task_type=problem.peft_task_type,
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.prefix_projection,
            encoder_hidden_size=self.projection_size,
        )
        wrapped = keep_hooks(model, lambda inner: get_peft_model(inner, config))
        for parameter in head_parameters(wrapped):
            parameter.requires_grad_(True)
        unwrapped(wrapped).config.use_cache = False
        return wrapped

    def _check_model(self, model: PreTrainedModel, problem: Problem) -> None:
        import inspect

        from ftlib.models.layers import backbone, head_names, reserved_positions
        from ftlib.models.sizes import check_room

        name = type(model).__name__
        if "past_key_values" not in inspect.signature(backbone(model).forward).parameters:
            raise UnsupportedError(
                f"prefix cannot train {name}: it takes no keys and values from outside. "
                "Choose prompt_tuning or lora, or a BERT-like or RoBERTa-like base model."
            )
        unknown_heads = [n for n in head_names(model) if not any(k in n for k in ("classifier", "score", "qa_outputs"))]
        if unknown_heads:
            raise UnsupportedError(f"prefix cannot train the head {', '.join(unknown_heads)} of {name}; choose lora.")
        room = getattr(model.config, "max_position_embeddings", 1 << 30) - reserved_positions(model)
        check_room(problem.max_length, self.num_virtual_tokens, room, self.name)
