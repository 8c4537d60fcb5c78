"""What every use of peft's wrappers needs: keep what ftlib has put on a model while wrapping or merging it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def known_warnings() -> Iterator[None]:
    """Leave out what peft 0.21 warns of by itself: it asks transformers 5 for an attribute by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # GPT-2's layers; it sets it right
        yield


def keep_hooks(model: PreTrainedModel, change: Callable[[Any], Any]) -> PreTrainedModel:
    """Return what `change` makes of a model, its virtual tokens, token layout and cloze form moved to the outside."""
    from ftlib.models import cloze
    from ftlib.models.virtual_tokens import attach, attached, detach

    virtual, form = attached(model), cloze.attached(model)
    layout = getattr(model, "token_layout", None)
    detach(model)
    cloze.detach(model)
    with known_warnings():
        changed = change(model)
    if layout is not None:
        changed.token_layout = layout
    if virtual:
        attach(changed, virtual)
    if form:
        cloze.attach(changed, form)
    return changed


def is_prefix(model: PreTrainedModel) -> bool:
    """Return whether the model is a peft one that cannot be merged into its base."""
    return any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values())


def has_beyond_plain(model: PreTrainedModel) -> frozenset[str]:
    """Return what the model has beyond a plain one, in the words of `Strategy.leaves`."""
    from ftlib.models.cloze import attached

    found = {"prefix": is_prefix(model), "cloze template": attached(model) is not None}
    return frozenset(name for name, is_there in found.items() if is_there)


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain model with the adapter's updates in its weights; a plain or prefixed model as it is."""
    if not hasattr(model, "peft_config") or is_prefix(model):
        return model
    return keep_hooks(model, lambda wrapper: wrapper.merge_and_unload())


def open_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Let every weight learn that the forward pass uses; a head that peft has replaced by its copy stays."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".original_module." not in name)
    return model
