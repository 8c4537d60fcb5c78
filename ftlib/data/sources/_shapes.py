"""Drawings of coloured shapes, as PNG bytes: what `sample_shapes` hands out."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 139, 60),
    "blue": (38, 84, 200),
    "yellow": (240, 200, 30),
    "purple": (130, 50, 160),
}
SHAPES = ("circle", "square", "triangle", "cross")
PAPER = (244, 242, 236)


@dataclass(frozen=True)
class Drawing:
    """A shape on paper.

    Attributes:
        colour: A key of `COLOURS`.
        shape: One of `SHAPES`.
        x: Its middle, in pixels from the left.
        y: The same from the top.
        radius: From its middle to its corners, in pixels.
        angle: How far it is turned, in radians.
        size: Of the paper, width and height.
        tint: Added to the colour's red, green and blue.
        paper: What it is drawn on.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    size: int = 32
    tint: tuple[int, int, int] = (0, 0, 0)
    paper: tuple[int, int, int] = PAPER


def png(drawing: Drawing, specks: np.ndarray | None = None) -> bytes:
    """Return a drawing as a PNG file.

    Args:
        drawing: What to draw.
        specks: Noise to add, int, shape (size, size, 3).
    """
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (drawing.size, drawing.size), drawing.paper)
    _draw(ImageDraw.Draw(image), drawing)
    if specks is not None:
        image = Image.fromarray(np.clip(np.asarray(image, np.int64) + specks, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _draw(canvas: object, d: Drawing) -> None:
    ink = tuple(max(0, min(255, value + more)) for value, more in zip(COLOURS[d.colour], d.tint, strict=True))
    if d.shape == "circle":
        r = d.radius * 0.9
        canvas.ellipse((d.x - r, d.y - r, d.x + r, d.y + r), fill=ink)  # type: ignore[attr-defined]
        return
    canvas.polygon(_corners(d), fill=ink)  # type: ignore[attr-defined]


def _corners(d: Drawing) -> list[tuple[float, float]]:
    """Return the corners of a shape that has some: each as an angle and a share of the radius."""
    eighth = math.pi / 4
    outlines = {
        "square": [(eighth + i * 2 * eighth, 1.0) for i in range(4)],
        "triangle": [(-2 * eighth + i * math.tau / 3, 1.0) for i in range(3)],
        "cross": [
            corner
            for i in range(4)
            for corner in ((i * 2 * eighth - 0.32, 1.0), (i * 2 * eighth + 0.32, 1.0), ((2 * i + 1) * eighth, 0.44))
        ],
    }
    return [
        (d.x + d.radius * share * math.cos(at + d.angle), d.y + d.radius * share * math.sin(at + d.angle))
        for at, share in outlines[d.shape]
    ]
