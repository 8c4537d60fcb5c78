"""Layer-wise decay of the learning rate: every weight learns, the lower the block, the slower.

What the lower blocks know of words and syntax is kept, what the upper ones make of it is changed most. It steadies full
fine-tuning where rows are few and usually wins a little (BERT, ELECTRA and their kin are often tuned so). With
many rows, or where the texts are far from those of pretraining, the lower blocks have to move too: a decay
near 1, or `full`.

Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification",
https://arxiv.org/abs/1801.06146, section 3.2 (discriminative fine-tuning); as a factor for each block:
Clark et al. (2020), "ELECTRA", https://arxiv.org/abs/2003.10555, appendix B; on why: Zhang et al. (2021), "Revisiting
Few-sample BERT Fine-tuning", https://arxiv.org/abs/2006.05987.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerwiseDecay(Strategy):
    """Every weight learns; each level has its own rate, falling from the head down to the embeddings."""

    decay: float = Field(0.8, gt=0, le=1)
    """What a level's rate is multiplied by for the level below. The head has `learning_rate`."""

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return groups level by level: learning_rate x decay ^ (levels above)."""
        from ftlib.training.groups import falling

        return falling(model, learning_rate, self.decay, weight_decay)
