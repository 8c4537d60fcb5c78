"""What is explained of an image: what its patches add to the score of a label, and the words of the text beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftlib.problems._questions import Posed, Question, of_output
from ftlib.problems._reading import Listening, Place, Reading

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.image_text_classification import ImageTextClassification

CELL = "\u3000"
"""What stands for a patch where an image is drawn in characters: a space as wide as it is high, here and in HTML."""


def pose(
    problem: ImageTextClassification, checkpoint: Checkpoint, rows: pa.Table, asked: Sequence[Question]
) -> list[Posed]:
    """Return images, and the texts beside them where these are read."""
    listening: Any = Listening(checkpoint.tokenizer)
    encoded = problem.encode(rows, listening)
    blank = {"pixel_values": _mean_colour(checkpoint.tokenizer)}
    kind = problem.target.kind
    found = []
    for i, question in enumerate(asked):
        words = Reading({}, [])
        if problem.use_text:
            words = listening.reading(encoded["input_ids"][i].as_py(), ("text",), (rows["text"][i].as_py() or "",))
        found.append(Posed(encoded.slice(i, 1), _with_image(words, checkpoint), of_output(kind, question.unit), blank))
    return found


def _mean_colour(tokenizer: Any) -> Tensor:
    """Return an image whose values are as near to 0 as bytes come: the mean of what the model was trained on."""
    import numpy as np
    import torch

    from ftlib.problems._images import byte_values, image_shape

    shape = image_shape(tokenizer.image_processor)
    nearest = abs(byte_values(tokenizer.image_processor)).argmin(1).astype(np.uint8)
    return torch.from_numpy(np.repeat(nearest, shape[1] * shape[2])[None])


def _with_image(words: Reading, checkpoint: Checkpoint) -> Reading:
    """Return where tokens and patches are: the patches in a drawing of the image, a sign each."""
    from ftlib.models.layers import unwrapped

    vision = unwrapped(checkpoint.model).config.vision_config
    size, number = vision.image_size // vision.patch_size, len(words.texts)
    line = len(CELL) * size + 1
    parts: list[tuple[int, int, str]] = []
    for row in range(size):
        starts = (row * line + column * len(CELL) for column in range(size))
        parts += [(at, at + len(CELL), f"row {row + 1} column {n}") for n, at in enumerate(starts, 1)]
    places: list[Place | None] = [(number, start, end) for start, end, _ in parts]
    drawing = "\n".join([CELL * size] * size)
    return Reading({**words.texts, "image": drawing}, [*words.places, *places], {"image": parts})
