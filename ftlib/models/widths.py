"""Widths: a narrower copy of a transformer, made of what weighs most in it, beside `layers.keep_blocks`.

Whole heads, neurons of the feed-forward part and dimensions of the hidden states are kept or left out (structured
pruning). Which ones is decided by the norm of their weights, so the copy is a function of the checkpoint alone: heads
and neurons block by block, hidden dimensions for the whole model, since blocks add to what passes through them. The
copy is a model of the same class with a smaller config, which plain transformers opens.

A copy with fewer neurons or heads computes what the model does with theirs set to zero. One with fewer hidden
dimensions begins far from its model, for normalisation mixes them: it has to be trained, best with the teacher's hidden
states, as Xia et al. (2022) do, "Structured Pruning Learns Compact and Accurate Models",
https://arxiv.org/abs/2204.00408, who learn what to keep. Norms as a measure: Li et al. (2017), "Pruning Filters for
Efficient ConvNets", https://arxiv.org/abs/1608.08710, section 3.1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError
from ftlib.models.attention import Role, roles
from ftlib.models.layers import block_list, is_encoder_decoder, unwrapped
from ftlib.models.peft_models import keep_hooks

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

HIDDEN_SIZES = ("hidden_size", "dim", "d_model")
HEAD_COUNTS = ("num_attention_heads", "n_heads")
INNER_SIZES = ("intermediate_size", "hidden_dim", "ffn_dim")
"""What configs call the numbers in a hidden state, of heads, and of neurons in the feed-forward part."""

_FIELDS = (*HIDDEN_SIZES, *HEAD_COUNTS, *INNER_SIZES, "head_dim")

ATTENDING: tuple[Role, ...] = ("query", "key", "value")


@dataclass(frozen=True)
class Widths:
    """How wide a model is.

    Attributes:
        hidden: Numbers of a hidden state.
        heads: Heads of a block.
        inner: Neurons of a block's feed-forward part.
        head_size: Numbers of a head.
        is_free: Whether the config has a size of heads, so that their number may be any; else they fill a hidden state.
    """

    hidden: int
    heads: int
    inner: int
    head_size: int
    is_free: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Widths | None:
        """Return the widths that a model's config.json gives; None where it does not."""
        hidden, heads, inner = (_first(config, names) for names in (HIDDEN_SIZES, HEAD_COUNTS, INNER_SIZES))
        if not (hidden and heads and inner):
            return None
        given = config.get("head_dim")
        return cls(hidden, heads, inner, given or hidden // heads, given is not None)

    def __str__(self) -> str:
        """Return them in words."""
        return f"hidden states of {self.hidden}, {self.heads} heads and {self.inner} neurons"

    @property
    def block_weights(self) -> int:
        """About how many weights a block has."""
        return 4 * self.hidden * self.heads * self.head_size + 2 * self.hidden * self.inner

    def cut(self, hidden: int | None, heads: int | None, inner: int | None) -> Widths:
        """Return smaller widths; what is not given stays, or follows.

        Raises:
            UnsupportedError: If no such model can be cut out of one this wide.
        """
        hidden, inner = hidden or self.hidden, inner or self.inner
        if not self.is_free:
            _check_heads(hidden, heads, self.head_size)
            heads = hidden // self.head_size
        wanted = replace(self, hidden=hidden, heads=heads or self.heads, inner=inner)
        for name, field in (("hidden_size", "hidden"), ("heads", "heads"), ("intermediate_size", "inner")):
            size, largest = getattr(wanted, field), getattr(self, field)
            if size > largest:
                raise UnsupportedError(f"student_{name} {size} is more than the {largest} of the checkpoint; lower it.")
        return wanted


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if config.get(name)), None)


def _check_heads(hidden: int, heads: int | None, size: int) -> None:
    if hidden % size:
        below = max(1, hidden // size) * size
        raise UnsupportedError(f"student_hidden_size {hidden} is no multiple of the {size} numbers of a head; choose "
                               f"{below} or {below + size}.")  # fmt: skip
    if heads not in (None, hidden // size):
        raise UnsupportedError(
            f"student_heads {heads}: in this model, hidden states of {hidden} have {hidden // size} heads of {size}; "
            "leave student_heads out."
        )


def narrower(
    model: PreTrainedModel, *, hidden: int | None = None, heads: int | None = None, inner: int | None = None
) -> PreTrainedModel:
    """Return a copy of a model with smaller widths; what is not given stays.

    Args:
        model: A plain model with one stack of blocks.
        hidden: Numbers of a hidden state; where the config has no size of heads, a multiple of it.
        heads: Heads of a block; as many as the hidden states have room for, unless the config has a size of heads.
        inner: Neurons of a block's feed-forward part.

    Raises:
        UnsupportedError: If the model cannot be cut so.
    """
    parts = _Parts.of(model)
    wanted = parts.widths.cut(hidden, heads, inner)
    if wanted == parts.widths:
        return model
    return keep_hooks(model, lambda plain: _copied(plain, parts, wanted))


# -- what a model is made of -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """A model's linear layers by what they do.

    Attributes:
        widths: How wide it is.
        blocks: For each block, from the bottom: role -> its linear layers.
        names: A linear layer's name -> its block, from 0, and its role.
    """

    widths: Widths
    blocks: list[dict[Role, list[nn.Linear]]]
    names: dict[str, tuple[int, Role]]

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Parts:
        _check(model)
        blocks: list[dict[Role, list[nn.Linear]]] = []
        names: dict[str, tuple[int, Role]] = {}
        paths = {id(module): name for name, module in model.named_modules()}
        for number, block in enumerate(block_list(model)):
            blocks.append({})
            for name, role in roles(block).items():
                layer: Any = block.get_submodule(name)
                names[paths[id(layer)]] = (number, role)
                blocks[-1].setdefault(role, []).append(layer)
        widths = Widths.of({name: getattr(model.config, name, None) for name in _FIELDS})
        first = blocks[0]
        if set(first) != {*ATTENDING, "other", "widening", "narrowing"} or _is_shared(first) or widths is None:
            raise UnsupportedError(
                f"{type(model).__name__} cannot be made narrower: its blocks have not each a layer for queries, keys "
                "and values of as many heads; choose a student by student_blocks, or another base_model."
            )
        return cls(widths, blocks, names)


def _check(model: PreTrainedModel) -> None:
    name = type(unwrapped(model)).__name__
    if hasattr(model, "peft_config") or is_encoder_decoder(model) or model.config.get_text_config() is not model.config:
        raise UnsupportedError(f"{name} cannot be made narrower: it is not one plain stack of blocks; choose a student "
                               "by student_blocks, or by a base_model of its own.")  # fmt: skip


def _inner_field(config: PretrainedConfig) -> str:
    return next(field for field in INNER_SIZES if hasattr(config, field))


def _is_shared(block: dict[Role, list[nn.Linear]]) -> bool:
    """Return whether several heads share keys and values."""
    return len({layer.out_features for layer in _of(block, *ATTENDING)}) > 1


# -- what is kept ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """Positions that are kept: of the hidden states, and for each block of its heads' numbers and its neurons."""

    hidden: Tensor
    heads: list[Tensor]
    inner: list[Tensor]

    @classmethod
    def of(cls, parts: _Parts, wanted: Widths) -> _Kept:
        import torch

        heads, inner = [], []
        hidden = torch.zeros(parts.widths.hidden, dtype=torch.double)
        for block in parts.blocks:
            hidden += _total(_reads(layer) for layer in _of(block, *ATTENDING, "widening"))
            hidden += _total(_gives(layer) for layer in _of(block, "other", "narrowing"))
            numbers = _total(_gives(layer) for layer in _of(block, *ATTENDING))
            numbers += _total(_reads(layer) for layer in block["other"])
            chosen = _largest(numbers.unflatten(0, (-1, parts.widths.head_size)).sum(1), wanted.heads)
            heads.append((chosen[:, None] * parts.widths.head_size + torch.arange(parts.widths.head_size)).flatten())
            neurons = _total(_gives(layer) for layer in block["widening"]) + _reads(block["narrowing"][0])
            inner.append(_largest(neurons, wanted.inner))
        return cls(_largest(hidden, wanted.hidden), heads, inner)

    def along(self, role: tuple[int, Role] | None, *, is_output: bool) -> Tensor:
        """Return what is kept of a layer's outputs, or inputs; of layers outside the blocks, hidden dimensions."""
        block, does = role or (0, "other")
        if role and (does in ATTENDING if is_output else does == "other"):
            return self.heads[block]
        if role and does == ("widening" if is_output else "narrowing"):
            return self.inner[block]
        return self.hidden


def _of(block: dict[Role, list[nn.Linear]], *wanted: Role) -> Iterator[nn.Linear]:
    for role in wanted:
        yield from block[role]


def _total(norms: Iterable[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(norms)).sum(0)


def _gives(layer: nn.Linear) -> Tensor:
    """Return the squared norm of the weights behind each output."""
    return layer.weight.detach().double().square().sum(1)


def _reads(layer: nn.Linear) -> Tensor:
    """Return the squared norm of the weights on each input."""
    return layer.weight.detach().double().square().sum(0)


def _largest(values: Tensor, number: int) -> Tensor:
    """Return the positions of the largest values, ascending; the first of equal ones."""
    return values.argsort(descending=True, stable=True)[:number].sort().values


# -- the copy --------------------------------------------------------------------------------------------


def _copied(model: PreTrainedModel, parts: _Parts, wanted: Widths) -> PreTrainedModel:
    config = _config(model, parts, wanted)
    kept = _Kept.of(parts, wanted)
    student = type(model)(config)
    shapes = {name: value.shape for name, value in student.state_dict().items()}
    state = {
        name: _cut(value, shapes[name], parts.names.get(name.rpartition(".")[0]), kept)
        for name, value in model.state_dict().items()
    }
    student.load_state_dict(state)
    return student.train(model.training)


def _config(model: PreTrainedModel, parts: _Parts, wanted: Widths) -> PretrainedConfig:
    config = copy.deepcopy(model.config)
    config.hidden_size, config.num_attention_heads = wanted.hidden, wanted.heads
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = wanted.heads
    setattr(config, _inner_field(config), wanted.inner)
    return config


def _cut(value: Tensor, shape: tuple[int, ...], role: tuple[int, Role] | None, kept: _Kept) -> Tensor:
    """Return a weight cut down to a shape, along those of its dimensions that are smaller there."""
    for dim, size in enumerate(shape):
        if size != value.shape[dim]:
            value = value.index_select(dim, kept.along(role, is_output=dim == 0))
    return value.clone()
