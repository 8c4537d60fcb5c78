"""IA3: each block's keys, values and inner feed-forward activations are scaled by learned vectors; all else is frozen.

Far fewer weights than LoRA: about three vectors a block, so that it can hardly overfit, and suits rows in the tens or
hundreds. Merged, it costs nothing to serve: the scales are multiplied into weights that are there anyway. It can only
make stronger or weaker what the model computes already, so where there are thousands of rows LoRA and full fine-tuning
are ahead. It wants a high rate, 3e-3 to 1e-2.

Liu et al. (2022), "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
https://arxiv.org/abs/2205.05638, section 3.3. Layers that give queries, keys and values in one (GPT-2's) are scaled
whole, as peft does: scaling queries beside keys adds nothing that scaling keys cannot do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem

SCALE = ".ia3_l."
"""In the names of peft's parameters: a learned vector."""


class Ia3(Strategy):
    """Learned scales of keys, values and feed-forward activations; the head learns whole."""

    merge: bool = True
    """Merge the scales into a plain checkpoint; otherwise an adapter is saved with its base beside it."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """A prefix: peft stacks no second adapter on it."""
        return {"prefix": "start from base, or from a stage without one"}

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Wrap the model with peft's IA3.

        Raises:
            UnsupportedError: If the checkpoint has a prefix, or the layers that are scaled are not found.
        """
        from peft import IA3Config, get_peft_model

        from ftlib.models.layers import head_names
        from ftlib.models.peft_models import has_beyond_plain, keep_hooks

        self.check_start(has_beyond_plain(model))
        attention, feedforward = _scaled(model)
        config = IA3Config(
            task_type=problem.peft_task_type,  # type: ignore[arg-type]
            target_modules=[*attention, *feedforward],
            feedforward_modules=feedforward,
            modules_to_save=list(head_names(model)) or None,
        )
        return keep_hooks(model, lambda inner: get_peft_model(inner, config))

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Give the scales no decay, which would pull them to 0: they rest at 1."""
        from ftlib.training.groups import decayed

        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        scales = [p for name, p in named if SCALE in name]
        head = decayed((p for name, p in named if SCALE not in name), learning_rate, weight_decay)
        return [{"params": scales, "lr": learning_rate, "weight_decay": 0.0}, *head]

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Merge the scales, or leave the adapter as it is."""
        from ftlib.models.peft_models import merged

        return merged(model) if self.merge else model


def _scaled(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the layers whose outputs are scaled (keys, values), and whose inputs (feed-forward).

    Raises:
        UnsupportedError: If some are not found.
    """
    from ftlib.models.attention import roles

    found = {name: role for name, role in roles(model).items() if _in_block(name)}
    attention = [name for name, role in found.items() if role in ("key", "value", "fused")]
    feedforward = [name for name, role in found.items() if role == "narrowing"]
    missing = {"keys and values": not attention, "inner feed-forward activations": not feedforward}
    if any(missing.values()):
        absent = " and ".join(what for what, is_missing in missing.items() if is_missing)
        raise UnsupportedError(
            f"ia3 cannot train {type(model).__name__}: the layers of its {absent} are not found by their names and "
            "shapes. Choose lora, which learns beside every linear layer."
        )
    return attention, feedforward


def _in_block(name: str) -> bool:
    """Return whether a module is inside one of a list's: neither pooler nor head."""
    return any(part.isdigit() for part in name.split("."))
