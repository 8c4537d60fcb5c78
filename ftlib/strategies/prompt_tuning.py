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

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem


class PromptTuning(Strategy):
    """Learned virtual tokens in the input; only they and the head learn."""

    num_virtual_tokens: int = Field(20, ge=1)
    """Tokens added to every input; attention to them is what is learned."""

    head_learning_rate_ratio: float = Field(0.1, gt=0)
    """The head's rate as a share of the virtual tokens', which is `learning_rate`."""

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze all but the head, and append trainable rows to the word embeddings.

        Raises:
            UnsupportedError: If the model has no positions left for the virtual tokens.
        """
        import torch

        from ftlib.models.layers import head_parameters
        from ftlib.models.virtual_tokens import VirtualTokens, attach, attached
        from ftlib.training.embeddings import append_rows, learn_rows

        before = attached(model)
        old = before.ids if before else ()
        self._check_room(model, problem, len(old))
        num_leading, next_id = _layout(model)
        first = max((*(i + 1 for i in old), next_id))
        new = tuple(range(first, first + self.num_virtual_tokens))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        table: Any = model.get_input_embeddings()
        size = table.num_embeddings
        append_rows(model, new[-1] + 1)
        with torch.no_grad():
            table = model.get_input_embeddings()
            weight = table.weight
            weight[list(new)] = weight[torch.randperm(min(size, next_id))[: len(new)]]
        learn_rows(model, torch.tensor(new))
        for parameter in head_parameters(model):
            parameter.requires_grad_(True)
        attach(model, VirtualTokens((*old, *new), before.position if before else num_leading))
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

    def _check_room(self, model: PreTrainedModel, problem: Problem, before: int) -> None:
        from ftlib.models.layers import unwrapped

        config = unwrapped(model).config
        positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", 1 << 30)
        longest = problem.most_tokens(model)
        needed = longest + before + self.num_virtual_tokens
        if needed > positions:
            raise UnsupportedError(
                f"prompt_tuning: max_length {longest} + {before + self.num_virtual_tokens} virtual tokens "
                f"= {needed} tokens, but the model has {positions} positions; lower one of them."
            )


def _layout(model: PreTrainedModel) -> tuple[int, int]:
    layout: Any = getattr(model, "token_layout", None)
    if layout is None:  # a model that checkpoints.load did not open
        return 1, int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    return layout.num_leading, layout.next_id
