"""Any transformer as ordered groups: embeddings, blocks, head.

No architecture is named here. The blocks are the longest ModuleList whose items share a class (of an encoder-decoder,
one such list in each half); the embeddings are what lies in the same backbone before them, the head what no backbone
holds. What a language model predicts words with came with pretraining, so it is no head in this sense.
"""

from __future__ import annotations

import copy
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

ENCODER_COUNTS = ("encoder_layers", "num_layers", "num_encoder_layers")
DECODER_COUNTS = ("decoder_layers", "num_decoder_layers")
"""What the configs of encoder-decoders call the numbers of their halves' blocks."""


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


def reserved_positions(model: nn.Module) -> int:
    """Return how many positions a RoBERTa-like model keeps for padding: it counts from padding_idx + 1."""
    positions = getattr(getattr(backbone(model), "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    return 0 if padding is None else padding + 1


def is_encoder_decoder(model: nn.Module) -> bool:
    """Return whether the model has two halves, one that reads and one that writes."""
    return bool(getattr(unwrapped(model).config, "is_encoder_decoder", False))


def halves(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return an encoder-decoder's encoder and decoder, or of any other model its backbone."""
    if not is_encoder_decoder(model):
        return (backbone(model),)
    inner = unwrapped(model)
    return inner.get_encoder(), inner.get_decoder()


def ties_words(model: nn.Module) -> bool:
    """Return whether a model predicts words with its word embeddings themselves."""
    inner = unwrapped(model)
    output = inner.get_output_embeddings()
    return output is not None and output.weight is inner.get_input_embeddings().weight


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the model's direct children that make up its head and hold weights.

    A language model has none: what it predicts words with is pretrained, and mostly is its word embeddings. Nor has
    a backbone by itself.
    """
    inner = unwrapped(model)
    if inner.get_output_embeddings() is not None or not hasattr(inner, inner.base_model_prefix):
        return ()
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
    """Return the ModuleList that holds the transformer's blocks; of an encoder-decoder, the encoder's.

    Raises:
        UnsupportedError: If no list of equal blocks is found.
    """
    return block_lists(model)[0]


def block_lists(model: nn.Module) -> tuple[nn.ModuleList, ...]:
    """Return the list of blocks of each half: one, or of an encoder-decoder two.

    Raises:
        UnsupportedError: If no list of equal blocks is found.
    """
    return tuple(_blocks_of(half, model) for half in halves(model))


def _blocks_of(part: nn.Module, model: nn.Module) -> nn.ModuleList:
    from torch import nn

    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len({type(b) for b in m}) == 1]
    if not lists:
        raise UnsupportedError(
            f"{type(unwrapped(model)).__name__} has no list of transformer blocks; "
            "choose a strategy that does not need them, or another base model."
        )
    return max(lists, key=lambda found: (len(found), sum(p.numel() for p in found.parameters())))


def layers(model: nn.Module) -> Layers:
    """Return the model's parameters as ordered groups; every parameter is in exactly one.

    An encoder-decoder's blocks are the encoder's, then the decoder's.
    """
    lists = block_lists(model)
    blocks = [list(block.parameters()) for found in lists for block in found]
    head = [p for n in head_names(model) for p in unwrapped(model).get_submodule(n).parameters()]
    placed = {id(p) for group in (*blocks, head) for p in group}
    after = _after_blocks(model, lists)
    others = [p for p in model.parameters() if id(p) not in placed]
    return Layers([p for p in others if id(p) not in after], blocks, [p for p in others if id(p) in after], head)


def _after_blocks(model: nn.Module, lists: Sequence[nn.ModuleList]) -> set[int]:
    """Return the ids of parameters that come after the blocks of the half they are in, or after all halves."""
    after: set[int] = set()
    known: set[int] = set()
    for half, blocks in zip(halves(model), lists, strict=True):
        after |= _behind(half, blocks)
        known |= {id(p) for p in half.parameters()}
    return after | (_behind(model, lists[-1]) - known)


def _behind(part: nn.Module, blocks: nn.ModuleList) -> set[int]:
    inside = {id(p) for p in blocks.parameters()}
    order = [id(p) for p in part.parameters()]
    last = max((i for i, p in enumerate(order) if p in inside), default=-1)
    return set(order[last + 1 :]) if last >= 0 else set()


def evenly_spaced(num_blocks: int, keep: int) -> tuple[int, ...]:
    """Return `keep` block indices spread evenly, the first and the last among them (one: the first)."""
    if keep == 1:
        return (0,)
    return tuple(round(i * (num_blocks - 1) / (keep - 1)) for i in range(keep))


def keep_blocks(model: PreTrainedModel, kept: int | Sequence[int]) -> PreTrainedModel:
    """Cut the model, in place, down to some of its blocks, and say so in its config.

    Args:
        model: A plain transformers model; of an encoder-decoder, both halves are cut.
        kept: How many blocks to keep, evenly spaced, of a half that has fewer all; or which, ascending, from 0.

    Raises:
        UnsupportedError: If there are no such blocks, the config does not say how many there are, or the first block,
            which would go, holds what all need.
    """
    check_blocks(kept, [len(blocks) for blocks in block_lists(model)])
    names = (ENCODER_COUNTS, DECODER_COUNTS) if is_encoder_decoder(model) else (BLOCK_COUNTS,)
    chosen = []
    for half, blocks, fields in zip(halves(model), block_lists(model), names, strict=True):
        indices = evenly_spaced(len(blocks), min(kept, len(blocks))) if isinstance(kept, int) else tuple(kept)
        _check_first(model, blocks, indices)
        chosen.append((half, blocks, indices, _count_field(model, fields, len(blocks))))
    for half, blocks, indices, field in chosen:
        _cut_blocks(blocks, indices)
        for config in (model.config, half.config):
            for name in {field, *BLOCK_COUNTS} if config is not model.config else {field}:
                if hasattr(config, name):
                    setattr(config, name, len(indices))
    return model


def append_block(model: PreTrainedModel) -> nn.Module:
    """Put a copy of the last block on top of a model's one stack of blocks, in place; say so in its config.

    Raises:
        UnsupportedError: If there are two stacks, or the config does not say how many blocks there are.
    """
    if is_encoder_decoder(model):
        raise UnsupportedError(f"{type(model).__name__} has two stacks of blocks: a block on top reads nothing whole.")
    blocks = block_list(model)
    field = _count_field(model, BLOCK_COUNTS, len(blocks))
    blocks.append(copy.deepcopy(blocks[-1]))
    _number(blocks)
    setattr(model.config, field, len(blocks))
    return blocks[-1]


def check_blocks(kept: int | Sequence[int], numbers: Sequence[int]) -> None:
    """Refuse blocks that a model does not have.

    Args:
        kept: How many blocks, or which, from 0.
        numbers: How many each half has; () where that is not known.

    Raises:
        UnsupportedError: With how many there are.
    """
    if isinstance(kept, int):
        if numbers and kept > max(numbers):
            raise UnsupportedError(f"{kept} blocks are more than the model's {max(numbers)}; keep fewer.")
        return
    for number in numbers:
        wrong = [i for i in kept if not 0 <= i < number]
        if wrong or not kept:
            raise UnsupportedError(f"block {wrong or list(kept)} is not in a model of {number}; count from 0.")


def _check_first(model: PreTrainedModel, blocks: nn.ModuleList, indices: Sequence[int]) -> None:
    if indices[0] != 0 and any("relative_attention_bias" in name for name, _ in blocks[0].named_parameters()):
        raise UnsupportedError(
            f"block 0 of {type(model).__name__} holds the positions that all blocks use; keep it among student_blocks."
        )


def _count_field(model: PreTrainedModel, fields: Sequence[str], number: int) -> str:
    field = next((f for f in fields if getattr(model.config, f, None) == number), None)
    if field is None:
        raise UnsupportedError(f"the config of {type(model).__name__} does not say its number of blocks.")
    return field


def _cut_blocks(blocks: nn.ModuleList, indices: Sequence[int]) -> None:
    kept = [blocks[i] for i in indices]
    while len(blocks):
        del blocks[-1]
    blocks.extend(kept)
    _number(blocks)


def _number(blocks: nn.ModuleList) -> None:
    """Tell blocks which one they are, where they want to know."""
    for position, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # type: ignore[assignment]


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
