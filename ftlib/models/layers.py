"""Any transformer as ordered groups: embeddings, blocks, head.

No architecture is named here. The blocks are the longest ModuleList whose items share a class; the embeddings
are what lies in the same backbone before them, the head what no backbone holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import nn
    from torch.nn import Parameter
    from transformers import PreTrainedModel

BLOCK_COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
"""What configs call the number of blocks."""


@dataclass(frozen=True)
class Layers:
    """A transformer's parts, from input to output.

    Attributes:
        embeddings: Parameters before the blocks.
        blocks: Parameters of each block, bottom up.
        head: Parameters after the blocks that no pretraining gave: pooler excluded, classifier included.
        pooler: Parameters of the backbone after the blocks (a pooler, a last normalisation).
    """

    embeddings: list[Parameter]
    blocks: list[list[Parameter]]
    pooler: list[Parameter]
    head: list[Parameter]


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[return-value,operator]


def backbone(model: nn.Module) -> nn.Module:
    """Return the pretrained transformer without its head."""
    inner = unwrapped(model)
    return getattr(inner, inner.base_model_prefix, inner)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the model's direct children that make up its head and hold weights."""
    inner = unwrapped(model)
    return tuple(
        name
        for name, child in inner.named_children()
        if name != inner.base_model_prefix and any(True for _ in child.parameters())
    )


def head_parameters(model: nn.Module) -> list[Parameter]:
    """Return the parameters of the head that the forward pass uses.

    Where peft keeps a trained copy of a head module, that is the copy, not the original beside it.
    """
    inner = unwrapped(model)
    named = [(f"{n}.{k}", p) for n in head_names(model) for k, p in inner.get_submodule(n).named_parameters()]
    return [p for name, p in named if ".original_module." not in name]


def block_list(model: nn.Module) -> nn.ModuleList:
    """Return the ModuleList that holds the transformer's blocks.

    Raises:
        UnsupportedError: If no list of equal blocks is found.
    """
    from torch import nn

    lists = [m for m in backbone(model).modules() if isinstance(m, nn.ModuleList) and len({type(b) for b in m}) == 1]
    if not lists:
        raise UnsupportedError(
            f"{type(unwrapped(model)).__name__} has no list of transformer blocks; "
            "choose a strategy that does not need them, or another base model."
        )
    return max(lists, key=lambda found: (len(found), sum(p.numel() for p in found.parameters())))


def layers(model: nn.Module) -> Layers:
    """Return the model's parameters as ordered groups; every parameter is in exactly one."""
    blocks = [list(block.parameters()) for block in block_list(model)]
    head = [p for n in head_names(model) for p in unwrapped(model).get_submodule(n).parameters()]
    placed = {id(p) for group in (*blocks, head) for p in group}
    reached_blocks = False
    before: list[Parameter] = []
    after: list[Parameter] = []
    for parameter in model.parameters():
        if id(parameter) in placed:
            reached_blocks = reached_blocks or any(parameter is p for block in blocks for p in block)
        else:
            (after if reached_blocks else before).append(parameter)
    return Layers(before, blocks, after, head)


def evenly_spaced(num_blocks: int, keep: int) -> tuple[int, ...]:
    """Return `keep` block indices spread evenly, the first and the last among them (one: the first)."""
    if keep == 1:
        return (0,)
    return tuple(round(i * (num_blocks - 1) / (keep - 1)) for i in range(keep))


def keep_blocks(model: PreTrainedModel, indices: Sequence[int]) -> PreTrainedModel:
    """Cut the model, in place, down to some of its blocks, and say so in its config.

    Args:
        model: A plain transformers model.
        indices: The blocks to keep, ascending, from 0.

    Raises:
        UnsupportedError: If an index is out of range or the config does not say how many blocks there are.
    """
    blocks = block_list(model)
    wrong = [i for i in indices if not 0 <= i < len(blocks)]
    if wrong or not indices:
        raise UnsupportedError(f"block {wrong or list(indices)} is not in a model of {len(blocks)}; count from 0.")
    field = next((f for f in BLOCK_COUNTS if getattr(model.config, f, None) == len(blocks)), None)
    if field is None:
        raise UnsupportedError(f"the config of {type(model).__name__} does not say its number of blocks.")
    kept = [blocks[i] for i in indices]
    while len(blocks):
        del blocks[-1]
    blocks.extend(kept)
    for position, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # type: ignore[assignment]
    setattr(model.config, field, len(kept))
    return model


@dataclass(frozen=True)
class Counts:
    """How large a model is.

    Attributes:
        parameters: All weights that the saved model holds.
        trainable: Those that training changes.
        inference: Those that every token passes through: all but the word embeddings.
    """

    parameters: int
    trainable: int
    inference: int


def count(model: nn.Module) -> Counts:
    """Return the model's sizes; a head that peft copied counts once."""
    named = {n: p for n, p in model.named_parameters() if ".original_module." not in n}
    words = unwrapped(model).get_input_embeddings()
    total = sum(p.numel() for p in named.values())
    trainable = sum(p.numel() for p in named.values() if p.requires_grad)
    return Counts(total, trainable, total - sum(p.numel() for p in words.parameters()))
