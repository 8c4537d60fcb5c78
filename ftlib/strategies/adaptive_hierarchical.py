"""Adaptive hierarchical fine-tuning: the blocks learn in three levels, from words up to paragraphs.

The blocks are taken as a hierarchy: the bottom third reads words, the middle sentences, the top paragraphs. In three
phases first the word level learns, then words and sentences, then all; lower levels have higher rates, each phase its
own slanted triangular schedule. Rates adapt while training: a level whose gradients are small beside its weights gets
more, one that is shaken gets less, and all are cut when validation stalls. It suits texts whose words differ
from those of pretraining (a trade's jargon, another register), where the bottom has to move most; where they are the
same, `gradual_unfreezing` or `layerwise_decay`, which go the other way, forget less.

Blocks as a hierarchy of words, phrases and meaning: Jawahar et al. (2019), "What Does BERT Learn about the Structure
of Language?", https://aclanthology.org/P19-1356; schedule and rates per level: Howard and Ruder (2018),
https://arxiv.org/abs/1801.06146; the ratio of weight to gradient norm: You et al. (2017), "Large Batch Training of
Convolutional Networks" (LARS), https://arxiv.org/abs/1708.03888, equation 6.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel, TrainerCallback

    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem
    from ftlib.training.course import Course
    from ftlib.training.stage import Training

Share = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class AdaptiveHierarchical(Strategy):
    """Word level, then word and sentence levels, then all; adapted rates, high at the bottom, low at the top."""

    level_bounds: tuple[Count, Count] | None = None
    """How many of the lowest blocks are the word level, and how many are words and sentences; null: thirds."""

    level_rates: tuple[Share, Share, Share] = (1.0, 0.8, 0.6)
    """Rates of words, sentences and paragraphs as shares of `learning_rate`, none higher than the one before. The
    head has the whole rate, and learns in every phase. Steeper ones, adapted more (1, 0.5, 0.25, `trust_limit`
    2), cost MiniLM five points on SST-2."""

    phase_shares: tuple[Share, Share, Share] = (0.2, 0.3, 0.5)
    """Shares of the steps that the three phases take."""

    trust_limit: float = Field(1.2, ge=1)
    """How far a level's trust ratio (the norm of its weights over that of its gradients, against the other levels') may
    raise or lower its rate; 1: rates are not adapted."""

    stall_factor: float = Field(0.5, gt=0, le=1)
    """What all rates are multiplied by after a validation pass that is not the best so far; 1: nothing."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(low < high for low, high in pairwise(self.level_rates)):
            raise ValueError(
                f"level_rates {list(self.level_rates)} rise; expected rates of words, sentences and paragraphs, none "
                "higher than the one before"
            )
        if self.level_bounds is not None and self.level_bounds[0] >= self.level_bounds[1]:
            raise ValueError(
                f"level_bounds {list(self.level_bounds)} are out of order; expected two numbers of blocks, the first "
                "smaller"
            )
        return self

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model without a block for each level that `level_bounds` name."""
        if size.num_blocks is not None:
            self._bounds(size.num_blocks)
        return size

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return groups level by level, each with its share of the rate, and the head's."""
        from ftlib.training.groups import with_rates

        return with_rates(self._levels(model), [learning_rate * s for s in (*self.level_rates, 1.0)], weight_decay)

    def course(self, model: PreTrainedModel, settings: Training, max_steps: int, steps_per_epoch: int) -> Course:
        """Return three phases, each with a slanted triangular schedule of its own."""
        from ftlib.training.course import phased

        _, sentence, paragraph, _ = self._levels(model)
        return phased(
            self.phase_shares,
            [[*sentence, *paragraph], paragraph, []],
            max_steps=max_steps,
            schedule="slanted_triangular",
            warmup_ratio=settings.warmup_ratio,
            restarts=True,
        )

    def callbacks(self, model: PreTrainedModel) -> list[TrainerCallback]:
        """Return what adapts the rates."""
        from ftlib.training.adaptive_rates import AdaptiveRates

        return [AdaptiveRates(self.trust_limit, self.stall_factor)]

    def _levels(self, model: PreTrainedModel) -> list[list[Parameter]]:
        """Return what learns of words (embeddings among them), sentences, paragraphs, and the head.

        Raises:
            UnsupportedError: If the model has too few blocks for the levels.
        """
        from ftlib.models.layers import layers

        parts = layers(model)
        first, second = self._bounds(len(parts.blocks))
        top = [] if parts.head else parts.pooler
        stacked = [
            [*parts.embeddings, *(p for block in parts.blocks[:first] for p in block)],
            [p for block in parts.blocks[first:second] for p in block],
            [*(p for block in parts.blocks[second:] for p in block), *top],
            [*parts.pooler, *parts.head] if parts.head else [],
        ]
        return [[p for p in level if p.requires_grad] for level in stacked]

    def _bounds(self, num_blocks: int) -> tuple[int, int]:
        if self.level_bounds is None:
            thirds = max(1, round(num_blocks / 3)), round(2 * num_blocks / 3)
            bounds = thirds[0], max(thirds[0] + 1, thirds[1]) if num_blocks > 1 else 1
        else:
            bounds = self.level_bounds
            if bounds[1] >= num_blocks:
                raise UnsupportedError(
                    f"adaptive_hierarchical: level_bounds {list(bounds)} leave no block for paragraphs: the model has "
                    f"{num_blocks} blocks; lower them or leave them out."
                )
        return bounds
