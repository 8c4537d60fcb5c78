"""Zero-shot: the checkpoint answers as it is; nothing is trained.

For problems whose answers are put into words, such as labels by prompts (CLIP): what the base model knows already is
the yardstick for every stage that trains, and a member that has seen no training row may help a fusion. It takes no
time and no rows. Where the labels' words say little of the images, or the base model is untrained, it guesses. Other
problems are refused: their models begin with a head drawn at random.

Radford et al. (2021), "Learning Transferable Visual Models From Natural Language Supervision",
https://arxiv.org/abs/2103.00020, section 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem


class ZeroShot(Strategy):
    """The checkpoint as it is; nothing is trained, and settings of training have no effect."""

    @property
    def trains(self) -> bool:
        """No."""
        return False

    def check(self, problem: Problem) -> None:
        """Refuse a problem whose model begins with a head drawn at random.

        Raises:
            UnsupportedError: If the base model cannot answer it.
        """
        super().check(problem)
        if not problem.answers_untrained:
            raise UnsupportedError(
                f"zero_shot cannot answer {problem.name}: its model begins with a head drawn at random, which has to "
                "be trained; choose full or lora."
            )

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze every weight."""
        return model.requires_grad_(False)
