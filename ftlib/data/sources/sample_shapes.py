"""Sample images that the project draws itself: coloured shapes with a caption, in a seeded mess.

For trying image problems with no file at hand. Up to five colours and four shapes; place, size, turn, tint and paper
vary, and specks are strewn over. It is as untidy as a real collection: some files are cut off, some are no image, some
rows are copies, some carry another label. What is learned from it says nothing about photographs.

`without` leaves combinations out: a model that never saw a "purple cross" but knows purple things and crosses can be
asked for one, which is what zero-shot means.

Columns: image (PNG bytes), label ("red circle"), colour, shape, parts (["red", "circle"], for multi_label), caption.

    {"image": b"\\x89PNG...", "label": "red circle", "colour": "red", "caption": "a small circle, turned left"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.data.sources import _samples, _shapes
from ftlib.data.sources._shapes import COLOURS, SHAPES, Drawing, png
from ftlib.data.sources.base import Source
from ftlib.errors import DataError, unknown

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Row = tuple[Any, ...]
COLUMNS = ("image", "label", "colour", "shape", "parts", "caption")
SIZES = ((0.32, "small"), (0.37, "middling"), (0.5, "large"))
"""Up to which radius, as a share of the paper, a shape is called what."""


class SampleShapes(Source):
    """Drawings of coloured shapes."""

    num_rows: int = Field(1000, ge=10, le=1_000_000)
    """How many rows, noise included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    image_size: int = Field(32, ge=16, le=512)
    """Width and height in pixels."""

    num_colours: int = Field(4, ge=1, le=len(COLOURS))
    """How many colours, in the order red, green, blue, yellow, purple."""

    num_shapes: int = Field(3, ge=1, le=len(SHAPES))
    """How many shapes, in the order circle, square, triangle, cross."""

    only: tuple[str, ...] = ()
    """The combinations to draw, such as "red circle"; all of these colours and shapes unless given."""

    without: tuple[str, ...] = ()
    """Combinations to leave out."""

    wrong_label_ratio: float = Field(0.03, ge=0, le=1)
    """Share of rows that carry another label."""

    duplicate_ratio: float = Field(0.03, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    damaged_ratio: float = Field(0.02, ge=0, le=1)
    """Share of rows whose file is cut off, or no image at all."""

    missing_ratio: float = Field(0.01, ge=0, le=1)
    """Share of rows without an image or without a label."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that draws."""
        return _samples.fingerprint(self, _shapes)

    def columns(self) -> list[str]:
        """Return image, label, colour, shape, parts and caption."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Draw the rows."""
        import pyarrow as pa

        types = {"image": pa.large_binary(), "parts": pa.list_(pa.string())}
        return _samples.table(self, columns, self._rows(), types)

    def combinations(self) -> list[tuple[str, str]]:
        """Return the colours and shapes that are drawn.

        Raises:
            DataError: If `only` or `without` names one that there is not, or none is left.
        """
        colours, shapes = list(COLOURS)[: self.num_colours], SHAPES[: self.num_shapes]
        every = {f"{colour} {shape}": (colour, shape) for colour in colours for shape in shapes}
        for given in (*self.only, *self.without):
            if given not in every:
                raise DataError(f"sample_shapes: {unknown('combination', given, every)}")
        left = [pair for name, pair in every.items() if name in (self.only or every) and name not in self.without]
        if not left:
            raise DataError("sample_shapes: `only` and `without` leave nothing to draw.")
        return left

    def _rows(self) -> Iterator[Row]:
        import numpy as np

        random = np.random.default_rng(self.seed)
        pairs = self.combinations()

        def write(written: list[Row]) -> Row:
            if written and random.random() < self.duplicate_ratio:
                return written[random.integers(len(written))]
            return self._new(random, pairs)

        return _samples.in_turn(self.num_rows, write)

    def _new(self, random: np.random.Generator, pairs: list[tuple[str, str]]) -> Row:
        colour, shape = pairs[random.integers(len(pairs))]
        drawing = _drawing(random, colour, shape, self.image_size)
        specks = random.integers(-14, 15, (self.image_size, self.image_size, 3))
        row: dict[str, Any] = {"image": png(drawing, specks), "caption": _caption(drawing)}
        if random.random() < self.wrong_label_ratio:
            colour, shape = pairs[random.integers(len(pairs))]
        row |= {"label": f"{colour} {shape}", "colour": colour, "shape": shape, "parts": [colour, shape]}
        if random.random() < self.damaged_ratio:
            row["image"] = _damaged(random, row["image"])
        if random.random() < self.missing_ratio:
            names = ("image",) if random.random() < 0.5 else ("label", "colour", "shape", "parts")
            row |= dict.fromkeys(names)
        return tuple(row[name] for name in COLUMNS)


def _drawing(random: np.random.Generator, colour: str, shape: str, size: int) -> Drawing:
    radius = random.uniform(0.28, 0.42) * size
    x, y = size / 2 + random.uniform(-0.08, 0.08, 2) * size
    tint = tuple(int(v) for v in random.integers(-24, 25, 3))
    paper = tuple(int(v) for v in random.integers(206, 256, 3))
    return Drawing(colour, shape, x, y, radius, random.uniform(-0.35, 0.35), size, tint, paper)  # type: ignore[arg-type]


def _caption(d: Drawing) -> str:
    how = next((word for limit, word in SIZES if d.radius <= limit * d.size), SIZES[-1][1])
    return f"a {how} {d.shape}, {'turned left' if d.angle < 0 else 'turned right'}"


def _damaged(random: np.random.Generator, content: bytes) -> bytes:
    """Return a file as a broken download leaves it: cut off, or a page that says so."""
    if random.random() < 0.5:
        return content[: len(content) // 2]
    return b"<html><body><h1>404 Not Found</h1></body></html>"
