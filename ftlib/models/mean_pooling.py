"""Mean pooling inside a plain encoder: one more block on top, whose every token holds the mean of all.

Sentence encoders are trained so that the mean of a text's token vectors says what it is about; a plain
``AutoModelForSequenceClassification`` reads the first token alone, which they were not trained for. A block whose
queries are nothing attends to all tokens alike, padding aside. With values that are the states themselves, an output so
strong that what it is added to does not matter, and a feed-forward part that gives nothing, its layer norm leaves the
mean, at length 1 (cosine similarities are those of plain mean pooling but for the mean over coordinates, which the
norm takes away). The dense layer in front of the head hands it on. So any tool that opens the checkpoint pools so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem

LABELLED = frozenset({"single_label", "multi_label"})
"""Kinds of target whose answer is a label, or several."""

NOTHING = 1e-6
"""What weights that are to give nothing are multiplied by; not 0: strategies that divide by a weight's norm follow."""

STRENGTH = 1e3
"""Of the mean over what it is added to."""

OFFSETS = (0.0, 4.0)
"""Biases of the dense layer with which an activation hands on numbers below 1: tanh with 0, ReLU and GELU with 4."""

TOLERANCE = 0.05
"""How far what the head reads may be from the mean, or from what tanh makes of it, over its length."""


def labels_whole_texts(problem: Problem) -> bool:
    """Return whether a problem's labels are those of whole texts, read by a linear head."""
    return problem.target.kind in LABELLED and problem.auto_class == "AutoModelForSequenceClassification"


def without_head(model: PreTrainedModel, num_outputs: int, *, pooling: str = "mean") -> PreTrainedModel:
    """Take the head's last layer off, all weights open; with `pooling` mean, put mean pooling in front of it, frozen.

    `ftlib.models.linear_heads.put_back` ends it.

    Raises:
        UnsupportedError: If the model has no linear head, or is none that can pool the mean.
    """
    from ftlib.models.linear_heads import take_off
    from ftlib.models.peft_models import keep_hooks, open_weights

    reading = take_off(model, num_outputs)
    open_weights(model)
    if pooling != "mean":
        return model

    def pooled(inner: Any) -> Any:
        frozen, offset = add(inner, lambda batch: inner(**batch).logits)
        for module in frozen:
            module.requires_grad_(False)
        reading.origin.fill_(offset)
        return inner

    return keep_hooks(model, pooled)


def add(model: PreTrainedModel, read: Callable[[dict[str, Tensor]], Tensor]) -> tuple[list[nn.Module], float]:
    """Put mean pooling on top of an encoder, in place.

    Args:
        model: An encoder with a head for whole texts; one that pools so already stays as it is.
        read: Runs the model and returns what its head's last layer reads, shape (batch_size, hidden_size).

    Returns:
        The modules that do it, which are not to learn, and what is added to each number of the mean.

    Raises:
        UnsupportedError: If the model is not built so that this can be done.
    """
    import torch

    from ftlib.models.layers import append_block, block_list, is_encoder_decoder

    if is_encoder_decoder(model):
        raise _unsuitable(type(model).__name__)
    with torch.no_grad():
        if not _pools(block_list(model)[-1]):
            _make_mean(append_block(model), type(model).__name__)
        dense = _dense(model)
        for offset in OFFSETS if dense is not None else OFFSETS[:1]:
            if dense is not None:
                torch.nn.init.eye_(dense.weight)
                torch.nn.init.constant_(dense.bias, offset)
            if _error(model, read, offset) < TOLERANCE:
                return [block_list(model)[-1], *([] if dense is None else [dense])], offset
    raise _unsuitable(type(model).__name__)


def _unsuitable(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} cannot pool the mean of its tokens: that takes an encoder like BERT, RoBERTa or DistilBERT, with "
        "a layer norm after each part of a block. Choose pooling: head, or such a base model."
    )


def _pools(block: nn.Module) -> bool:
    """Return whether a block is one that `add` has put there."""
    import torch

    queries, values = _linear(block, "query"), _linear(block, "value")
    if len(queries) != 1 or len(values) != 1 or values[0].weight.shape[0] != values[0].weight.shape[1]:
        return False
    same = torch.equal(values[0].weight, torch.eye(len(values[0].weight)))
    return same and float(queries[0].weight.abs().max()) < NOTHING * 100


def _linear(block: nn.Module, role: str) -> list[Any]:
    from ftlib.models.attention import roles

    return [block.get_submodule(name) for name, found in roles(block).items() if found == role]


def _make_mean(block: nn.Module, name: str) -> None:
    from torch import nn

    parts = [_linear(block, role) for role in ("query", "value", "other", "narrowing")]
    norms = [module for module in block.modules() if isinstance(module, nn.LayerNorm)]
    if any(len(part) != 1 or not isinstance(part[0], nn.Linear) for part in parts) or len(norms) != 2:
        raise _unsuitable(name)
    query, value, output, feedforward = (part[0] for part in parts)
    if value.in_features != value.out_features or output.in_features != output.out_features:
        raise _unsuitable(name)
    for layer in (query, feedforward):
        layer.weight.mul_(NOTHING)
        nn.init.zeros_(layer.bias)
    for layer, strength in ((value, 1.0), (output, STRENGTH)):
        nn.init.eye_(layer.weight).mul_(strength)
        nn.init.zeros_(layer.bias)
    for norm, scale in zip(norms, (1.0, value.in_features**-0.5), strict=True):
        nn.init.constant_(norm.weight, scale)
        nn.init.zeros_(norm.bias)


def _dense(model: PreTrainedModel) -> Any:
    """Return the square layer between the blocks and the head's last one; None where there is none."""
    from torch import nn

    from ftlib.models.layers import layers

    parts = layers(model)
    after = {id(p) for p in (*parts.pooler, *parts.head)}
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m.weight) in after]
    square = [m for m in found if m.in_features == m.out_features]
    return square[0] if square and square[0].bias is not None else None


def _error(model: PreTrainedModel, read: Callable[[dict[str, Tensor]], Tensor], offset: float) -> float:
    """Return how far what the head reads is from the normed mean, bent by tanh or not, at two texts, one padded."""
    import torch

    from ftlib.models.layers import block_list

    seen: list[Any] = []
    handle = block_list(model)[-1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    ids = torch.arange(24).reshape(2, 12) % (model.get_input_embeddings().num_embeddings - 6) + 5  # type: ignore
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    try:
        found = read({"input_ids": ids, "attention_mask": mask})
    finally:
        handle.remove()
    states, weight = seen[0], mask.unsqueeze(-1).float()
    mean = (states * weight).sum(1) / weight.sum(1)
    if found.shape != mean.shape:
        return float("inf")
    expected = torch.nn.functional.layer_norm(mean, mean.shape[-1:]) / mean.shape[-1] ** 0.5
    return min(float((found - offset - one).norm() / one.norm()) for one in (expected, expected.tanh()))
