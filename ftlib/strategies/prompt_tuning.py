"""Prompt tuning: learned virtual tokens at the start of every input; the model itself stays frozen.

The fewest weights of all strategies. On small models it stays well behind full fine-tuning, and reaches it only in
very large ones (Lester et al., figure 1), so expect a weak but different member: started from a stage that is trained
already, it refines it. It wants a high rate, 1e-3 to 1e-1, and many epochs.

The tokens become real vocabulary entries: what is saved is a plain model whose tokenizer inserts them, after the
leading special token, so that a pooler reads [CLS] as ever. That is also why this does not go through peft, whose
version puts them first, where BERT's pooler would read a virtual token, and shifts every position.

Lester et al. (2021), "The Power of Scale for Parameter-Efficient Prompt Tuning",
https://arxiv.org/abs/2104.08691; initialised from vocabulary, section 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem


class PromptTuning(Strategy):
    """Learned virtual tokens in the input; only they and the head learn."""

    num_virtual_tokens: int = Field(20, ge=1)
    """Tokens added to every input; attention to them is what is learned."""

    head_learning_rate_ratio: float = Field(0.1, gt=0)
    """The head's rate as a share of the virtual tokens', which is `learning_rate`."""

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model without positions for the virtual tokens."""
        return size.with_virtual_tokens(self.num_virtual_tokens, problem.most_tokens(), self.name)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze all but the head, and append trainable rows to the word embeddings.

        Raises:
            UnsupportedError: If the model has no positions left for the virtual tokens.
        """
        from ftlib.strategies._virtual_tokens import insert

        insert(model, problem, self.num_virtual_tokens, self.name)
        return model

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Give the virtual tokens the whole rate and no decay, the head its share."""
        rows = model.get_input_embeddings().rows
        head = super().parameter_groups(model, learning_rate * self.head_learning_rate_ratio, weight_decay)
        for group in head:
            group["params"] = [p for p in group["params"] if p is not rows]
        return [{"params": [rows], "lr": learning_rate, "weight_decay": 0.0}, *(g for g in head if g["params"])]

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Write the learned rows into plain word embeddings."""
        from ftlib.training.embeddings import restore

        restore(model)
        return model
