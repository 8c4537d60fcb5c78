"""Cleaning: repair what can be repaired, reject the rest with its reason; nothing is dropped in silence."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.plugins import Section


class Cleaning(Section):
    """What cleaning repairs and rejects. Served models repair their input with the same settings."""

    fix_unicode: bool = True
    """Repair mojibake and normalise to NFC (ftfy)."""

    strip_html: bool = True
    """Replace tags by a space and decode entities."""

    collapse_whitespace: bool = True
    """Remove control characters; trim, and make each run of white space one space."""

    drop_duplicates: bool = True
    """Of rows with equal inputs and equal label within a split, keep the first."""

    conflicting_labels: Literal["reject", "majority", "keep"] = "reject"
    """Equal inputs with different labels in a split: reject all, keep the strict majority's first row, or keep all."""

    min_characters: int = Field(1, ge=1)
    """Reject rows with a shorter text."""

    max_rejected_ratio: float = Field(0.5, ge=0, le=1)
    """Stop where a larger share of the rows is rejected: then the mapping or the file is wrong."""
