"""Templates of cloze questions: texts with a gap, in the tokens of one tokenizer.

Rows are encoded by the base tokenizer once for all members; a template takes their texts' tokens out of the special
tokens around them and puts its own around these. Its own tokens are those that the whole sentence has there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GAP = "mask"
FIELD = re.compile(r"\{(\w+)\}")
SAMPLE = "a"
"""Stands for a text, or for a word in the gap, where the template is tokenized."""

TEMPLATES = {1: "{%s} It was {mask}.", 2: "{%s}? {mask}, {%s}"}
"""What is asked of one text and of two where nothing else is given: Gao et al. (2021), table 1 (SST-2, MNLI)."""


def default_template(columns: Sequence[str]) -> str:
    """Return the template for a problem's texts where none is given."""
    return TEMPLATES[len(columns)] % tuple(columns)


def check_template(template: str, columns: Sequence[str]) -> None:
    """Refuse a template that does not have each text once, in their order, and one gap.

    Raises:
        UnsupportedError: With what is missing or too much.
    """
    fields = FIELD.findall(template)
    for name in fields:
        if name not in (GAP, *columns):
            raise UnsupportedError(f"cloze: template {template!r}: {unknown('place', name, (GAP, *columns))}")
    for name in (GAP, *columns):
        if fields.count(name) != 1:
            raise UnsupportedError(
                f"cloze: template {template!r} has {{{name}}} {fields.count(name)} times; write it once, such as "
                f"{default_template(columns)!r}."
            )
    if [name for name in fields if name != GAP] != list(columns):
        raise UnsupportedError(f"cloze: template {template!r}: put the texts in the order {', then '.join(columns)}.")


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts around a row's texts.

    Attributes:
        before: In front of the first text.
        between: Between two.
        after: Behind the last one.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, num_texts: int) -> Frame:
        """Return what a tokenizer puts around one text or two."""
        encoded = tokenizer(*[SAMPLE] * num_texts)
        ids, parts = encoded["input_ids"], encoded.sequence_ids(0)
        texts = [i for i, part in enumerate(parts) if part is not None]
        between = [i for i in range(texts[0], texts[-1]) if parts[i] is None]
        return cls(tuple(ids[: texts[0]]), tuple(ids[i] for i in between), tuple(ids[texts[-1] + 1 :]))

    def texts(self, ids: list[int], types: list[int] | None, num_texts: int) -> list[list[int]]:
        """Return the tokens of each text of an encoded row."""
        inner = ids[len(self.before) : len(ids) - len(self.after)]
        if num_texts == 1:
            return [inner]
        width = len(self.between)
        if types and 1 in types:  # a text may hold the separator too
            at = types.index(1) - len(self.before) - width
        else:
            at = next(i for i in range(len(inner)) if tuple(inner[i : i + width]) == self.between)
        return [inner[:at], inner[at + width :]]


@dataclass(frozen=True, eq=False)
class Template:
    """A template in the tokens of one tokenizer.

    Attributes:
        text: As it is written: "{text} It was {mask}."
        tokenizer: Without virtual tokens.
        frame: What the tokenizer puts around a row's texts, and the template puts away.
        runs: Tokens before the first text, between texts and behind the last one, special ones among them. A causal
            model reads up to the gap.
        gap: In which run the place is whose logits are read, and where in it.
        spaced: For each text, the tokens that begin it here, by those that begin it alone, where the two differ: where
            a space before a word is a part of its first token.
    """

    text: str
    tokenizer: PreTrainedTokenizerBase
    frame: Frame
    runs: tuple[tuple[int, ...], ...]
    gap: tuple[int, int]
    spaced: tuple[Mapping[int, int], ...]

    @classmethod
    def of(cls, text: str, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, is_causal: bool) -> Template:
        """Return a template as a tokenizer reads it.

        Args:
            text: As it is written.
            columns: The texts' names, in their order.
            tokenizer: Without virtual tokens.
            is_causal: Whether the model reads from left to right.

        Raises:
            UnsupportedError: If the template is none, or the tokenizer or the model cannot read it.
        """
        check_template(text, columns)
        _check_gap(text, columns, tokenizer, is_causal)
        frame, alone = Frame.of(tokenizer, len(columns)), Frame.of(tokenizer, 1)
        if len(columns) > 1 and not frame.between:
            raise UnsupportedError(
                "cloze cannot tell two texts apart where the base model's tokenizer puts nothing between them; choose "
                "an encoder such as bert or roberta."
            )
        runs: list[list[int]] = [list(alone.before)]
        begun: list[int] = []
        gap = None
        for token, owner in _tokens(text, SAMPLE if is_causal else str(tokenizer.mask_token), tokenizer):
            if owner in columns:
                if columns.index(owner) == len(begun):
                    begun.append(token)
                    runs.append([])
                continue
            if owner == GAP:
                gap = (len(runs) - 1, len(runs[-1]))
                if is_causal:  # what is behind the gap is never read
                    break
            runs[-1].append(token)
        runs[-1] += () if is_causal else alone.after
        run, place = gap or (0, 0)
        spaced = tuple(_spaced(token, tokenizer) for token in begun)
        return cls(text, tokenizer, frame, tuple(map(tuple, runs)), (run, place - is_causal), spaced)

    @property
    def num_tokens(self) -> int:
        """How many tokens stand around a row's texts."""
        return sum(map(len, self.runs))

    @property
    def num_added(self) -> int:
        """How many tokens a row has beyond those of its own encoding."""
        frame = self.frame
        return self.num_tokens - len(frame.before) - len(frame.between) - len(frame.after)

    def pieces(self, word: str) -> tuple[int, ...]:
        """Return the tokens of a word in the gap."""
        return tuple(token for token, owner in _tokens(self.text, word.strip(), self.tokenizer) if owner == GAP)

    def word(self, token: int) -> str | None:
        """Return the word that is just this token in the gap; None where there is none."""
        word = "" if token in self.tokenizer.all_special_ids else str(self.tokenizer.decode([token])).strip()
        return word if any(map(str.isalpha, word)) and self.pieces(word) == (token,) else None

    def fill(self, texts: Sequence[Sequence[int]], room: int) -> tuple[list[int], int]:
        """Return a row's tokens, and the place whose logits are read.

        Args:
            texts: Tokens of each text.
            room: The most tokens.
        """
        sizes = _cut([len(text) for text in texts], max(0, room - self.num_tokens))
        row, place = list(self.runs[0]), self.gap[1]
        for i, (text, size) in enumerate(zip(texts, sizes, strict=True), start=1):
            row += [self.spaced[i - 1].get(token, token) for token in text[:1]][:size] + list(text[1:size])
            place = len(row) + self.gap[1] if self.gap[0] == i else place
            row += self.runs[i]
        return row, place


def _check_gap(text: str, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, is_causal: bool) -> None:
    if not is_causal and tokenizer.mask_token_id is None:
        raise UnsupportedError(
            "cloze needs a tokenizer with a mask token, and the base model's has none; choose an encoder such as "
            "bert or roberta, or a causal model."
        )
    if is_causal and FIELD.findall(text)[-1] != GAP:
        texts = " ".join(f"{{{name}}}" for name in columns)
        raise UnsupportedError(
            f"cloze: template {text!r} has a text behind {{{GAP}}}, which a causal model has not read when it gets "
            f"there; put {{{GAP}}} last, such as '{texts} It was {{{GAP}}}'."
        )


def _tokens(template: str, word: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, str | None]]:
    """Yield each token of a template with a sample in its texts' places, and the field that it fills (None: none).

    Raises:
        UnsupportedError: If a token belongs to a field and to what stands beside it.
    """
    filled, ends = "", []
    for i, part in enumerate(FIELD.split(template)):  # literals and names of fields by turns
        filled += part if i % 2 == 0 else word if part == GAP else SAMPLE
        ends.append((len(filled), part if i % 2 else None))
    encoded = tokenizer(filled, add_special_tokens=False, return_offsets_mapping=True)
    for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        inside = [c for c in range(first, last) if not filled[c].isspace()]
        owners = {next(owner for end, owner in ends if c < end) for c in inside}
        if len(owners) > 1:
            raise UnsupportedError(
                f"cloze: template {template!r} makes one token, {filled[first:last]!r}, of a field and what stands "
                "beside it; put a space between them."
            )
        yield token, next(iter(owners), None)


def _spaced(token: int, tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """Return the tokens that begin a text inside the template, by those that begin it alone, where they differ.

    Args:
        token: What the sample begins with inside the template.
        tokenizer: Byte-level ones spell a word behind a space as "Ġword". The few beginnings of words that have no such
            twin stay as they are.
    """
    inside = str(tokenizer.convert_ids_to_tokens(token))
    alone = str(tokenizer.convert_ids_to_tokens(tokenizer(SAMPLE, add_special_tokens=False)["input_ids"])[0])
    space = inside.removesuffix(alone)
    if inside == alone or not inside.endswith(alone):
        return {}
    known = tokenizer.get_vocab()
    return {i: known[space + name] for name, i in known.items() if space + name in known}


def _cut(lengths: list[int], room: int) -> list[int]:
    """Return how many tokens are kept of each text: of the longest one fewer, until all fit."""
    kept = list(lengths)
    while sum(kept) > room:
        longest = kept.index(max(kept))
        kept[longest] -= 1
    return kept
