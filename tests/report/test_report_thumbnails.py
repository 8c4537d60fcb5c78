"""Images in the report: small, inside the page, and never a reason to fail."""

from __future__ import annotations

import base64
import io
import re

from PIL import Image

from ftlib.report.thumbnails import thumbnail


def test_an_image_is_shown_small_inside_the_page():
    buffer = io.BytesIO()
    Image.new("RGB", (300, 150), (200, 10, 10)).save(buffer, "JPEG")
    shown = thumbnail(buffer.getvalue())
    assert 'width="64" height="32" alt="image, 300 × 150 pixels"' in shown
    [data] = re.findall(r"base64,([^\"]+)", shown)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 32)


def test_a_tiny_image_is_drawn_larger():
    buffer = io.BytesIO()
    Image.new("L", (16, 8)).save(buffer, "PNG")
    assert 'width="64" height="32"' in thumbnail(buffer.getvalue())


def test_what_is_no_image_is_told_in_words():
    assert thumbnail(b"<html>") == "6 bytes"
