"""What strategies with virtual tokens share: real vocabulary entries in every input, whose embeddings alone learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem
    from ftlib.training.embeddings import RowEmbedding


def insert(model: PreTrainedModel, problem: Problem, number: int, strategy: str) -> RowEmbedding:
    """Freeze all but the head, and put virtual tokens into every input, with trainable rows of the word embeddings.

    They begin as random entries of the vocabulary (Lester et al. 2021, section 3.2), and come after those that the
    model has already.

    Args:
        model: Changed in place.
        problem: What is learned.
        number: How many virtual tokens.
        strategy: Its name, for errors.

    Returns:
        The word embeddings as they are now.

    Raises:
        UnsupportedError: If the model has no positions left for them.
    """
    import torch

    from ftlib.models.layers import head_parameters
    from ftlib.models.virtual_tokens import VirtualTokens, attach, attached
    from ftlib.training.embeddings import append_rows, learn_rows

    before = attached(model)
    old = before.ids if before else ()
    _check_room(model, problem, len(old) + number, strategy)
    num_leading, next_id = _layout(model)
    first = max((*(i + 1 for i in old), next_id))
    new = tuple(range(first, first + number))
    model.requires_grad_(False)
    size = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    append_rows(model, new[-1] + 1)
    with torch.no_grad():
        weight: Any = model.get_input_embeddings().weight
        weight[list(new)] = weight[torch.randperm(min(size, next_id))[: len(new)]]
    embedding = learn_rows(model, torch.tensor(new))
    for parameter in head_parameters(model):
        parameter.requires_grad_(True)
    attach(model, VirtualTokens((*old, *new), before.position if before else num_leading))
    return embedding


def _check_room(model: PreTrainedModel, problem: Problem, number: int, strategy: str) -> None:
    from ftlib.models.layers import unwrapped
    from ftlib.models.sizes import check_room, positions_of

    config = unwrapped(model).config
    positions = positions_of(getattr(config, "text_config", config).to_dict())
    if positions:
        check_room(problem.most_tokens(model), number, positions, strategy)


def _layout(model: PreTrainedModel) -> tuple[int, int]:
    layout: Any = getattr(model, "token_layout", None)
    if layout is None:  # a model that checkpoints.load did not open
        return 1, int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    return layout.num_leading, layout.next_id
