"""Models of images and texts (CLIP and its like): embeddings of images, and of the prompts that stand for labels.

Radford et al. (2021), "Learning Transferable Visual Models From Natural Language Supervision",
https://arxiv.org/abs/2103.00020: section 3.1.4 for several templates a label, whose embeddings are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.errors import CheckpointError
from ftlib.models.layers import unwrapped
from ftlib.models.virtual_tokens import attached, inserted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEEDED = ("get_image_features", "get_text_features", "logit_scale", "text_model", "text_projection")
LEGACY_EOS = 2
"""What published CLIP configs call the last token, whatever it is: transformers then reads the highest id."""


@dataclass
class ImageText:
    """What `forward` needs beside a batch; `prepare` leaves it on the model as `image_text`.

    Attributes:
        prompts: input_ids and attention_mask of every prompt, shape (num_groups * num_templates, length).
        num_templates: Prompts a group; a group is a label, or what labels are weighed against.
        byte_values: What each value of a pixel's byte becomes, shape (num_channels, 256).
        image_size: Height and width that the model reads.
        has_trained: Whether a training step has passed through the model.
        is_reading: Whether rows are being read, so that weights stay as they are.
        memory: The groups' embeddings, and what they depend on.
    """

    prompts: dict[str, Tensor]
    num_templates: int
    byte_values: Tensor
    image_size: int
    has_trained: bool = False
    is_reading: bool = False
    memory: tuple[Any, Tensor] | None = None


def prepare(model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[str]]) -> None:
    """Leave on a model what its images and label prompts are read with.

    Args:
        model: As `checkpoints.load` opens it.
        tokenizer: With its image processor: see `ftlib.problems._images.with_images`.
        prompts: For each group as many texts.

    Raises:
        CheckpointError: If the model is not of the kind, or a prompt is longer than it reads.
    """
    from ftlib.problems._images import byte_values, image_shape

    inner: Any = unwrapped(model)
    _check(inner, image_shape(tokenizer.image_processor))
    _name_last_token(inner, tokenizer)
    for name in ("get_input_embeddings", "set_input_embeddings"):  # which transformers leaves out for CLIPModel
        setattr(inner, name, getattr(inner.text_model, name))
    flat = [text for group in prompts for text in group]
    read = tokenizer(flat, padding=True, return_attention_mask=True, return_tensors="pt")
    _check_lengths(flat, read["attention_mask"], inner.config.text_config.max_position_embeddings)
    inner.image_text = ImageText(
        {name: read[name] for name in ("input_ids", "attention_mask")},
        len(prompts[0]),
        torch.from_numpy(byte_values(tokenizer.image_processor)),
        inner.config.vision_config.image_size,
    )


def _check(model: Any, shape: tuple[int, ...]) -> None:
    name = type(model).__name__
    missing = [part for part in NEEDED if not hasattr(model, part)]
    if missing or hasattr(model, "logit_bias"):
        lacks = f"it has no {missing[0]}" if missing else "it scores each image and text on its own (logit_bias)"
        raise CheckpointError(f"{name} is not a model like CLIP: {lacks}; choose one, such as random:clip.")
    size = model.config.vision_config.image_size
    if shape[1:] != (size, size):
        raise CheckpointError(
            f"{name} reads images of {size} x {size}, but its preprocessor_config.json makes them "
            f"{shape[2]} x {shape[1]}; set size and crop_size there."
        )


def _name_last_token(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a text be read at its last token by that token's id: new tokens would have higher ones."""
    if model.text_model.eos_token_id == LEGACY_EOS and tokenizer.eos_token_id is not None:
        model.text_model.eos_token_id = model.config.text_config.eos_token_id = tokenizer.eos_token_id


def _check_lengths(texts: list[str], mask: Tensor, most: int) -> None:
    longest = int(mask.sum(1).argmax())
    length = int(mask[longest].sum())
    if length > most:
        raise CheckpointError(
            f"problem.templates: the prompt {texts[longest][:80]!r} has {length} tokens, but the model reads {most}; "
            "shorten the template, or word the label shorter in problem.wordings."
        )


# -- embeddings ----------------------------------------------------------------------------------------


def embed_images(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return embeddings of length 1 of images.

    Args:
        model: Prepared.
        pixels: Bytes as `ftlib.problems._images.pixels` gives them, uint8, shape (batch_size, channels * size * size).
    """
    inner: Any = unwrapped(model)
    values = _normalised(pixels, inner.image_text)
    return _unit(inner.get_image_features(pixel_values=values).pooler_output)


def _normalised(pixels: Tensor, about: ImageText) -> Tensor:
    """Return bytes as the image processor would have given them, to the last bit: looked up, not computed."""
    channels, size = len(about.byte_values), about.image_size
    planes = pixels.view(len(pixels), channels, -1)
    table = about.byte_values.to(pixels.device)
    looked = [table[c].index_select(0, planes[:, c].reshape(-1).int()) for c in range(channels)]
    return torch.stack([plane.view(len(pixels), size, size) for plane in looked], dim=1)


def embed_texts(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return embeddings of length 1 of texts, virtual tokens inserted where the model has any.

    Args:
        model: Prepared.
        inputs: input_ids and attention_mask, shape (num_texts, length).
    """
    virtual = attached(model)
    inner: Any = unwrapped(model)
    read = inserted(dict(inputs), virtual) if virtual else inputs
    return _unit(inner.get_text_features(**read).pooler_output)


def embed_prompts(model: nn.Module) -> Tensor:
    """Return an embedding of length 1 for each group of prompts, shape (num_groups, size).

    Made anew at every training step, since the text tower learns with the rest; remembered while rows are read.
    """
    about: ImageText = unwrapped(model).image_text  # type: ignore[assignment]
    if torch.is_grad_enabled():
        about.has_trained, about.memory = True, None
    if torch.is_grad_enabled() or (about.has_trained and not about.is_reading):
        return _groups(model, about)
    state = _state(model)
    if about.memory is None or about.memory[0] != state:
        about.memory = (state, _groups(model, about))
    return about.memory[1]


@contextmanager
def reading(model: nn.Module) -> Iterator[None]:
    """Remember the prompts' embeddings while the context is open: its weights do not change meanwhile.

    Those of a model that never trained are remembered for good. Weights do not tell that they have changed: fused
    AdamW leaves their version counters as they are.
    """
    about: ImageText = unwrapped(model).image_text  # type: ignore[assignment]
    about.memory = None if about.has_trained else about.memory
    about.is_reading = True
    try:
        yield
    finally:
        about.is_reading = False


def _state(model: nn.Module) -> Any:
    """Return what the prompts' embeddings depend on while weights stay: where they are, and how they are computed."""
    inner: Any = unwrapped(model)
    weights = [*inner.text_model.parameters(), *inner.text_projection.parameters()]
    kind = weights[0].device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return precision, torch.is_inference_mode_enabled(), attached(model), tuple(p.data_ptr() for p in weights)


def _groups(model: nn.Module, about: ImageText) -> Tensor:
    device = next(model.parameters()).device
    inputs = {name: ids.to(device) for name, ids in about.prompts.items()}
    texts = embed_texts(model, inputs)
    return _unit(texts.view(-1, about.num_templates, texts.shape[-1]).mean(1))


def scale(model: nn.Module) -> Tensor:
    """Return what cosines are multiplied by."""
    return unwrapped(model).logit_scale.exp()  # type: ignore[operator,union-attr]


def prompt_tokens(model: nn.Module) -> np.ndarray:
    """Return the token ids of the prompts."""
    about: ImageText = unwrapped(model).image_text  # type: ignore[assignment]
    return about.prompts["input_ids"].unique().numpy()


def longest_prompt(model: nn.Module) -> int:
    """Return the tokens of the longest prompt."""
    about: ImageText = unwrapped(model).image_text  # type: ignore[assignment]
    return about.prompts["input_ids"].shape[1]


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.pow(2).sum(-1, keepdim=True).pow(0.5)
