"""Virtual tokens: vocabulary entries that stand for no text and are inserted into every input.

They sit after the leading special tokens, so that a pooler still reads [CLS]. Inside ftlib a hook inserts their
ids, so that every member shares one encoding of the rows; in a saved checkpoint the tokenizer inserts
them itself, and no ftlib is needed to use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

PER_TOKEN_OUTPUTS = ("logits", "last_hidden_state")
SPAN_OUTPUTS = ("start_logits", "end_logits")
NAME = re.compile(r"<\|virtual_\d+\|>")


@dataclass(frozen=True)
class TokenLayout:
    """What a strategy must know of the tokenizer; `checkpoints.load` leaves it on the model as `token_layout`.

    Attributes:
        num_leading: Special tokens before the text: 1 for [CLS] or <s>.
        next_id: The id that the tokenizer would give a new token.
    """

    num_leading: int
    next_id: int


@dataclass(frozen=True)
class VirtualTokens:
    """Which tokens are inserted, and where.

    Attributes:
        ids: Their vocabulary ids, in order.
        position: Tokens of the input that come before them.
    """

    ids: tuple[int, ...]
    position: int

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"ids": list(self.ids), "position": self.position}

    @classmethod
    def parse(cls, value: dict[str, Any]) -> VirtualTokens:
        """Read back what `dump` gave."""
        return cls(tuple(value["ids"]), value["position"])


def layout(tokenizer: PreTrainedTokenizerBase) -> TokenLayout:
    """Return where a text begins in an encoded input, and the next free id."""
    encoding = _backend(tokenizer).encode("a")
    leading = next((i for i, part in enumerate(encoding.sequence_ids) if part is not None), len(encoding.ids))
    return TokenLayout(leading, max(tokenizer.get_vocab().values()) + 1)


# -- in the model --------------------------------------------------------------------------------------


def attach(model: nn.Module, virtual: VirtualTokens) -> None:
    """Make the model insert `virtual` into its inputs, and cut them out of outputs that have a place per token.

    Inputs that hold them already, such as those of the saved checkpoint's own tokenizer, stay as they are.
    Replaces what was attached before.
    """
    detach(model)

    def insert(module: nn.Module, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if arguments:
            inputs = {"input_ids": arguments[0], **inputs}
        return (), inserted(inputs, virtual)

    def cut(module: nn.Module, arguments: Any, inputs: dict[str, Any], output: ModelOutput) -> ModelOutput:
        if "decoder_input_ids" in inputs:  # its outputs have a place per token of the text that is written
            return output
        return _cut(output, inputs["input_ids"], virtual)

    model.virtual_tokens = virtual  # type: ignore[assignment]
    model.virtual_token_hooks = [  # type: ignore[assignment]
        model.register_forward_pre_hook(insert, with_kwargs=True),
        model.register_forward_hook(cut, with_kwargs=True),
    ]


def detach(model: nn.Module) -> None:
    """Undo `attach`, where it was called."""
    for hook in model.__dict__.pop("virtual_token_hooks", ()):
        hook.remove()
    model.__dict__.pop("virtual_tokens", None)


def attached(model: nn.Module) -> VirtualTokens | None:
    """Return what `attach` was called with, or None."""
    return model.__dict__.get("virtual_tokens")


def holds(input_ids: Tensor, virtual: VirtualTokens) -> bool:
    """Return whether the inputs have the virtual tokens in them already."""
    return input_ids.shape[1] > virtual.position and bool((input_ids[:, virtual.position] == virtual.ids[0]).all())


def inserted(inputs: dict[str, Any], virtual: VirtualTokens) -> dict[str, Any]:
    """Return inputs with the virtual tokens in them; those that hold them already as they are."""
    import torch

    input_ids = inputs["input_ids"]
    if holds(input_ids, virtual):
        return inputs
    mask = inputs.get("attention_mask")
    filled = {**inputs, "attention_mask": torch.ones_like(input_ids) if mask is None else mask}
    ids = torch.tensor(virtual.ids, device=input_ids.device)
    new = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    at = virtual.position
    for name, values in new.items():
        old = filled.get(name)
        if old is not None:
            added = values.to(old.dtype).expand(len(old), -1)
            filled[name] = torch.cat((old[:, :at], added, old[:, at:]), dim=1)
    return filled


def _cut(output: ModelOutput, input_ids: Tensor, virtual: VirtualTokens) -> ModelOutput:
    import torch

    length, at, after = input_ids.shape[1], virtual.position, virtual.position + len(virtual.ids)
    for name, value in list(output.items()):
        per_token = name in SPAN_OUTPUTS or (name in PER_TOKEN_OUTPUTS and value.dim() == 3)
        if per_token and value.shape[1] == length:
            output[name] = torch.cat((value[:, :at], value[:, after:]), dim=1)
    return output


# -- in the tokenizer ----------------------------------------------------------------------------------


def name(number: int) -> str:
    """Return how the tokenizer spells a virtual token."""
    return f"<|virtual_{number}|>"


def is_name(token: str) -> bool:
    """Return whether the tokenizer spells a virtual token so."""
    return NAME.fullmatch(token) is not None


def with_virtual(tokenizer: PreTrainedTokenizerBase, virtual: VirtualTokens) -> PreTrainedTokenizerBase:
    """Return a copy of the tokenizer that knows the virtual tokens and inserts them into singles and pairs.

    Raises:
        CheckpointError: If the tokenizer's next ids are not those of the virtual tokens.
    """
    from tokenizers import AddedToken

    tokenizer = _copy(tokenizer)
    names = [name(i) for i in range(len(virtual.ids))]
    tokenizer.add_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    given = tuple(map(tokenizer.convert_tokens_to_ids, names))
    if given != virtual.ids:
        raise CheckpointError(f"virtual tokens have ids {virtual.ids} in the model but {given} in the tokenizer.")
    _set_template(tokenizer, lambda pieces, kind: _put(pieces, virtual.position, [f"{n}:0" for n in names]))
    return tokenizer


def without_virtual(tokenizer: PreTrainedTokenizerBase, virtual: VirtualTokens) -> PreTrainedTokenizerBase:
    """Return a copy of the tokenizer that inserts no virtual tokens: the encoding that all members share."""
    tokenizer = _copy(tokenizer)
    names = {name(i) for i in range(len(virtual.ids))}
    _set_template(tokenizer, lambda pieces, kind: [p for p in pieces if p.rpartition(":")[0] not in names])
    return tokenizer


def _put(pieces: list[str], position: int, added: Iterable[str]) -> list[str]:
    return [*pieces[:position], *added, *pieces[position:]]


def _set_template(tokenizer: PreTrainedTokenizerBase, change: Any) -> None:
    """Rewrite how the tokenizer lays out special tokens: `change` maps pieces and "single"/"pair" to pieces."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    backend = _backend(tokenizer)
    single = change(_pieces(backend.encode("a"), "AB"), "single")
    pair = change(_pieces(backend.encode("a", "a"), "AB"), "pair")
    specials = {p.rpartition(":")[0] for p in (*single, *pair) if not p.startswith("$")}
    template = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(s, tokenizer.convert_tokens_to_ids(s)) for s in sorted(specials)]
    )
    trims = "ByteLevel" in repr(backend.pre_tokenizer)  # RoBERTa: offsets without the leading space
    backend.post_processor = Sequence([ByteLevel(trim_offsets=True), template]) if trims else template


def _pieces(encoding: Any, names: str) -> list[str]:
    """Return the template that laid out an encoding, such as ``["[CLS]:0", "$A:0", "[SEP]:0"]``."""
    pieces: list[str] = []
    for token, part, type_id in zip(encoding.tokens, encoding.sequence_ids, encoding.type_ids, strict=True):
        piece = f"{token}:{type_id}" if part is None else f"${names[part]}:{type_id}"
        if part is None or not pieces or pieces[-1] != piece:
            pieces.append(piece)
    return pieces


def _copy(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    import copy

    _backend(tokenizer)
    return copy.deepcopy(tokenizer)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"{type(tokenizer).__name__} has no fast tokenizer, which ftlib needs; add tokenizer.json to the model."
        )
    return backend
