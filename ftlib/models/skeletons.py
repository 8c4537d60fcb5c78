"""A base model without its weights: what it is built of, known from config.json alone, in a moment and no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem


def skeleton(base_model: str, problem: Problem) -> PreTrainedModel | None:
    """Return the model that a problem is learned with, its weights on torch's "meta" device.

    Args:
        base_model: As the params name it.
        problem: What is learned; its labels may be unknown.

    Returns:
        The model; None where its config is not on this machine, or such a model cannot be built: what is wrong then
        shows when it is opened.
    """
    import torch
    import transformers

    from ftlib.models.checkpoints import quiet
    from ftlib.models.pretrained import folder_at_hand

    folder = folder_at_hand(base_model)
    if folder is None:
        return None
    try:
        with quiet(), torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
            return getattr(transformers, problem.auto_class).from_config(config)
    except (OSError, ValueError, KeyError):
        return None
