"""Partial fine-tuning: some of the model's own weights learn, the rest stays frozen.

Which ones: the last (or first) blocks, the embeddings, the head, the biases alone (BitFit), or whatever matches regular
expressions. The last third of the blocks keeps most of full fine-tuning's accuracy at half its cost, since the
backward pass ends at the lowest block that learns; below it nothing is computed twice. The head alone is a linear
probe: the yardstick of what the pretrained features hold. Where texts are far from those of pretraining, lower
blocks have to learn too.

Lee et al. (2019), "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning",
https://arxiv.org/abs/1911.03090; biases: Ben Zaken et al. (2022), "BitFit", https://arxiv.org/abs/2106.10199.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import PreTrainedModel

    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem

Pattern = Annotated[str, StringConstraints(min_length=1)]


class Partial(Strategy):
    """The chosen weights learn; by default the last third of the blocks and the head."""

    last_blocks: int | None = Field(None, ge=0)
    """How many of the uppermost blocks learn; null: a third of them, or none where something else is chosen."""

    first_blocks: int = Field(0, ge=0)
    """How many of the lowest blocks learn."""

    embeddings: bool = False
    """Whether the embeddings learn."""

    head: bool = True
    """Whether the head learns, with the pooler before it. Without it a head drawn at random stays as drawn."""

    biases: bool = False
    """Whether the biases of all layers learn (BitFit); with the head and nothing else that is a thousandth of the
    weights. It wants ten times the rate of full fine-tuning."""

    patterns: tuple[Pattern, ...] = ()
    """Regular expressions: parameters with a name in which one is found learn too, such as 'layer\\.[45]\\.output'."""

    @model_validator(mode="after")
    def _patterns_are_regular(self) -> Self:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
        return self

    @property
    def names_weights(self) -> bool:
        """Whether there are patterns."""
        return bool(self.patterns)

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model that has not so many blocks."""
        if size.num_blocks is not None:
            self._check_blocks(size.num_blocks)
        return size

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze all but the chosen weights.

        Raises:
            UnsupportedError: If a pattern is found in no parameter's name, the model has not so many blocks, or
                nothing is chosen.
        """
        from ftlib.models.peft_models import open_weights

        chosen = self._chosen(open_weights(model))
        if not chosen:
            raise UnsupportedError(
                "partial: nothing learns; choose last_blocks, first_blocks, embeddings, head, biases or patterns."
            )
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in chosen)
        return model

    def _chosen(self, model: PreTrainedModel) -> set[int]:
        from ftlib.models.layers import layers

        parts = layers(model)
        last = self._last_blocks(len(parts.blocks))
        self._check_blocks(len(parts.blocks))
        chosen = [p for block in parts.blocks[: self.first_blocks] for p in block]
        chosen += [p for block in parts.blocks[len(parts.blocks) - last :] for p in block]
        chosen += parts.embeddings if self.embeddings else []
        chosen += [*parts.pooler, *parts.head] if self.head else []
        return {id(p) for p in chosen} | set(self._named(model))

    def _last_blocks(self, num_blocks: int) -> int:
        if self.last_blocks is not None:
            return self.last_blocks
        something_else = self.first_blocks or self.embeddings or self.biases or self.patterns
        return 0 if something_else else max(1, round(num_blocks / 3))

    def _check_blocks(self, num_blocks: int) -> None:
        wanted = max(self.last_blocks or 0, self.first_blocks)
        if wanted > num_blocks:
            raise UnsupportedError(
                f"partial: {wanted} blocks are to learn, but the model has {num_blocks}; choose fewer."
            )

    def _named(self, model: PreTrainedModel) -> Iterator[int]:
        """Yield the ids of parameters chosen by their names."""
        named = dict(model.named_parameters())
        for pattern in self.patterns:
            found = [p for name, p in named.items() if re.search(pattern, name)]
            if not found:
                near = ", ".join(_near(pattern, named))
                raise UnsupportedError(f"partial: pattern {pattern!r} is found in no parameter's name; near: {near}.")
            yield from map(id, found)
        if self.biases:
            yield from (id(p) for name, p in named.items() if name.endswith("bias"))


def _near(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the three names that a pattern is most like; of those equally like it, where the like parts are longer."""
    from difflib import SequenceMatcher

    plain = pattern.replace("\\", "")

    def likeness(name: str) -> tuple[float, int]:
        matcher = SequenceMatcher(None, plain, name, autojunk=False)
        return matcher.ratio(), sum(block.size**2 for block in matcher.get_matching_blocks())

    return sorted(names, key=likeness, reverse=True)[:3]
