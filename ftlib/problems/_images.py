"""What problems on images share: opening images, why one cannot be read, and pixels as a model's processor makes them.

Images become bytes of the size that the model reads, before they are scaled and normalised: a quarter of float32,
and nothing is lost, since the processor resizes and crops bytes. The model's forward pass looks the rest up.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from PIL.Image import Image

    from ftlib.data.contents import Column

PROCESSOR = "preprocessor_config.json"
NEWER_PROCESSOR = "processor_config.json"
"""Where newer checkpoints have it, among what the tokenizer needs."""


def open_image(content: bytes) -> Image:
    """Return an image in RGB, upright: as its EXIF data says that it was taken.

    Raises:
        ValueError: With a short reason, if the bytes are no image, or a damaged one.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("no known image format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError("too many pixels") from None
    except Exception as error:  # decoders raise whatever they meet: OSError, SyntaxError, struct.error, KeyError...
        raise ValueError(f"damaged ({str(error)[:80] or type(error).__name__})") from None


def unreadable(column: Column, name: str) -> pa.Array:
    """Return why images cannot be read (string; null where they can, or are missing)."""
    import pyarrow as pa

    return pa.array([_reason(value.as_py(), name) for value in column], pa.string())


def _reason(content: bytes | None, name: str) -> str | None:
    if content is None:
        return None
    try:
        open_image(content)
    except ValueError as error:
        return f"unreadable {name}: {error}"
    return None


def with_images(tokenizer: Any, folder: Path) -> Any:
    """Return the tokenizer with the checkpoint's image processor as `image_processor`: one object encodes a row.

    Raises:
        CheckpointError: If the checkpoint has no image processor that can be opened.
    """
    from transformers import AutoImageProcessor

    from ftlib.models.checkpoints import quiet

    if not any((folder / name).is_file() for name in (PROCESSOR, NEWER_PROCESSOR)):
        raise CheckpointError(f"{folder}: holds no {PROCESSOR}; give a model of images and texts, such as CLIP.")
    try:
        with quiet():
            processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        line = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(f"{folder}: no image processor can be opened ({line}).") from None
    tokenizer.image_processor = processor
    return tokenizer


def pixels(column: Column, processor: Any) -> pa.Array:
    """Return images as bytes of the model's size, channel after channel (fixed_size_binary).

    Args:
        column: Encoded images (PNG, JPEG...), all readable.
        processor: A transformers image processor; with_images gives it.

    Raises:
        DataError: If one cannot be read after all.
    """
    import numpy as np
    import pyarrow as pa

    size = int(np.prod(image_shape(processor)))
    made = np.empty((len(column), size), np.uint8)
    for i, value in enumerate(column):
        try:
            image = open_image(value.as_py())
        except (ValueError, TypeError) as error:
            raise DataError(f"image {i}: cannot be read ({error}); clean these rows first.") from None
        made[i] = _made(image, processor).reshape(-1)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(made), [None, pa.py_buffer(made)])


def image_shape(processor: Any) -> tuple[int, ...]:
    """Return what the processor makes of an image: channels, height, width.

    Raises:
        CheckpointError: If images keep a size of their own, or bytes do not stay bytes.
    """
    from PIL import Image

    wide, high = (_made(Image.new("RGB", size), processor) for size in ((97, 61), (61, 97)))
    if wide.shape != high.shape or wide.dtype != "uint8":
        raise CheckpointError(
            f"{type(processor).__name__}: makes images of {wide.shape} and {high.shape}, expected one size; set "
            f"do_resize, do_center_crop and their sizes in {PROCESSOR}."
        )
    return wide.shape


def byte_values(processor: Any) -> np.ndarray:
    """Return what the processor makes of each byte's value, float32, shape (num_channels, 256)."""
    import numpy as np
    from PIL import Image

    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    found = processor(Image.fromarray(ramp), do_resize=False, do_center_crop=False, do_pad=False, return_tensors="np")
    return found["pixel_values"][0].reshape(3, 256).astype(np.float32)


def _made(image: Image, processor: Any) -> np.ndarray:
    made: np.ndarray = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return made
