"""How large a base model is, by the config.json that lies on this machine: nothing is fetched, no model is opened.

So what cannot fit is refused before any work. Where no config is at hand, or it does not say, nothing is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError
from ftlib.files import read_json
from ftlib.models.layers import BLOCK_COUNTS, DECODER_COUNTS, ENCODER_COUNTS, check_blocks
from ftlib.models.widths import Widths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Self

COMPUTED = ("rope", "rotary", "relative", "alibi")
"""In the keys of configs whose positions are computed, not looked up: such a model reads further than it says."""

COUNTED_AFTER_PADDING = frozenset({
    "bridgetower_text_model", "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke",
    "markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Model types that number the positions of a row from the padding token's id on, as RoBERTa does: those before are in
the table, and no row has them."""

LANGUAGE_MODELS = ("LMHead", "MaskedLM", "CausalLM", "PreTraining", "ConditionalGeneration")
"""In the names of classes with a head that predicts words."""


@dataclass(frozen=True)
class Size:
    """What a checkpoint has room for.

    Attributes:
        positions: How many tokens it can read; None where that is not known.
        ends_there: Whether it fails on more, since positions are looked up in a table.
        longest_text: Tokens that its tokenizer keeps of a text at most; None where that is not known.
        blocks: How many blocks it has; of an encoder-decoder, each half; () where that is not known.
        num_virtual_tokens: What strategies have added to every row.
        predicts_words: Whether it was published with a language model's head; None where that is not known.
        widths: How wide it is; None where that is not known.
    """

    positions: int | None = None
    ends_there: bool = False
    longest_text: int | None = None
    blocks: tuple[int, ...] = ()
    num_virtual_tokens: int = 0
    predicts_words: bool | None = None
    widths: Widths | None = None

    def check_length(self, max_length: int) -> None:
        """Refuse rows that are longer than the model can read, though the tokenizer would not cut them.

        Raises:
            UnsupportedError: With the model's positions.
        """
        read = min(max_length, self.longest_text or max_length)
        if self.positions and self.ends_there and read > self.positions:
            raise UnsupportedError(f"{read} tokens, but the model has {self.positions} positions; lower it.")

    def with_virtual_tokens(self, number: int, max_length: int, strategy: str) -> Self:
        """Return what is left once a strategy has added tokens to every row.

        Raises:
            UnsupportedError: If the model has no positions for them.
        """
        total = self.num_virtual_tokens + number
        if self.positions:
            check_room(max_length, total, self.positions, strategy)
        return replace(self, num_virtual_tokens=total)

    @property
    def num_blocks(self) -> int | None:
        """How many blocks it has in all; None where that is not known."""
        return sum(self.blocks) or None

    def with_blocks(self, kept: int | Sequence[int]) -> Self:
        """Return what is left once a strategy has cut the model down to some of its blocks.

        Args:
            kept: How many, or which.

        Raises:
            UnsupportedError: If the model does not have them.
        """
        check_blocks(kept, self.blocks)
        return replace(
            self, blocks=tuple(min(kept, number) if isinstance(kept, int) else len(kept) for number in self.blocks)
        )

    def with_widths(self, hidden: int | None, heads: int | None, inner: int | None) -> Self:
        """Return what is left once a strategy has cut a narrower model out; what is not given stays.

        Raises:
            UnsupportedError: If it cannot be cut so.
        """
        return replace(self, widths=self.widths.cut(hidden, heads, inner)) if self.widths else self

    @property
    def weights(self) -> int | None:
        """About how many weights its blocks have; None where that is not known."""
        return sum(self.blocks) * self.widths.block_weights if self.blocks and self.widths else None

    def with_block_on_top(self) -> Self:
        """Return what is left once a strategy has put a block on top, of an encoder-decoder on each half."""
        return replace(self, blocks=tuple(number + 1 for number in self.blocks))


def check_room(max_length: int, num_virtual_tokens: int, positions: int, strategy: str) -> None:
    """Refuse virtual tokens that a model has no positions for (UnsupportedError)."""
    needed = max_length + num_virtual_tokens
    if needed > positions:
        raise UnsupportedError(
            f"{strategy}: max_length {max_length} + {num_virtual_tokens} virtual tokens = {needed} tokens, but the "
            f"model has {positions} positions; lower one of them."
        )


def size_of(base_model: str) -> Size | None:
    """Return the size of a base model; None where its config is not on this machine."""
    from ftlib.models.pretrained import folder_at_hand

    folder = folder_at_hand(base_model)
    if folder is None:
        return None
    config, tokenizer = _read(folder / "config.json"), _read(folder / "tokenizer_config.json")
    longest = tokenizer.get("model_max_length")
    text: dict[str, Any] = config.get("text_config") or config
    return Size(
        positions=positions_of(text),
        ends_there=not computes_positions(text),
        longest_text=int(longest) if longest else None,
        blocks=() if "text_config" in config else _blocks(config),
        predicts_words=_predicts_words(config),
        widths=None if "text_config" in config else Widths.of(config),
    )


def computes_positions(config: Mapping[str, Any]) -> bool:
    """Return whether a model computes positions inside its attention instead of looking them up before it."""
    return any(mark in key for key in config for mark in COMPUTED)


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it cannot be read, which is told when the model is opened."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def _predicts_words(config: dict[str, Any]) -> bool | None:
    """Return whether the class that a config names has a language model's head."""
    classes = config.get("architectures") or ()
    return any(mark in name for name in classes for mark in LANGUAGE_MODELS) if classes else None


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Return how many positions a config leaves a row; T5's `n_positions` are none, its distances are relative."""
    old = None if "relative_attention_num_buckets" in config else config.get("n_positions")
    found = config.get("max_position_embeddings", old)
    if not found or config.get("model_type") not in COUNTED_AFTER_PADDING:
        return found
    padding = config.get("pad_token_id")
    return found - (1 if padding is None else padding) - 1


def _blocks(config: dict[str, Any]) -> tuple[int, ...]:
    halves = (ENCODER_COUNTS, DECODER_COUNTS) if config.get("is_encoder_decoder") else (BLOCK_COUNTS,)
    found = [next((config[name] for name in names if config.get(name)), None) for names in halves]
    return tuple(number or found[0] for number in found) if found[0] else ()
