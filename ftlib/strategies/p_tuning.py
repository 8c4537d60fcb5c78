"""P-tuning: virtual tokens made by a small network, which is trained in their place; the model itself stays frozen.

What the network makes becomes vocabulary entries at the end, so that a plain model is saved, as by `prompt_tuning`, and
serving costs the virtual tokens alone. One network makes all of them, so they learn together and not each by itself,
which is meant to steady what prompt tuning learns. With the model frozen, expect it to stay behind LoRA and full
fine-tuning on small models. It wants a rate of 1e-3 to 1e-2, the same for the head, and more epochs than full
fine-tuning.

Liu et al. (2021), "GPT Understands, Too", https://arxiv.org/abs/2103.10385, section 2.2: the network is an LSTM or a
multilayer perceptron, whichever is better on the task. There virtual tokens are placed by hand around a cloze
question; here they follow the leading special token, in all problems alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem


class PTuning(Strategy):
    """Virtual tokens made by a network; it, what it reads and the head learn."""

    num_virtual_tokens: int = Field(20, ge=1)
    """Tokens added to every input; attention to them is what is learned."""

    network: Literal["mlp", "lstm"] = "mlp"
    """What makes them: each by itself, or in view of one another, which is slower."""

    network_size: int | None = Field(None, ge=1)
    """Width of the network's inner layers; null: that of the model's embeddings."""

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a model without positions for the virtual tokens."""
        return size.with_virtual_tokens(self.num_virtual_tokens, problem.most_tokens(), self.name)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze all but the head, and append rows to the word embeddings that a network makes.

        Raises:
            UnsupportedError: If the model has no positions left for the virtual tokens.
        """
        from ftlib.strategies._virtual_tokens import insert
        from ftlib.training.prompt_encoders import make_rows

        make_rows(insert(model, problem, self.num_virtual_tokens, self.name), self.network, self.network_size)
        return model

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Write what the network makes into plain word embeddings."""
        from ftlib.training.embeddings import restore

        restore(model)
        return model
