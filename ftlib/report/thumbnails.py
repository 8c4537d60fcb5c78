"""Images in the page: small, and inside it, so that the report stays one file."""

from __future__ import annotations

import base64
import io

from markupsafe import Markup

from ftlib.report import words

LARGEST = 64
"""Pixels of a thumbnail's longer side."""


def thumbnail(content: bytes) -> Markup | str:
    """Return an image as a thumbnail; what is none, in words."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            small = image.convert("RGB")
            small.thumbnail((LARGEST, LARGEST))
    except Exception:  # decoders raise whatever they meet, and a report is worth more than a picture in it
        return f"{words.count(len(content))} bytes"
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    shown = max(1, LARGEST // max(small.size))
    return Markup('<img src="data:image/png;base64,{}" width="{}" height="{}" alt="image, {} × {} pixels">').format(
        base64.b64encode(buffer.getvalue()).decode(), small.width * shown, small.height * shown, width, height
    )
