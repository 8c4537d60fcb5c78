"""Splitting: stratified, grouped or as given, with exact leakage across splits found and removed."""

from __future__ import annotations

from pydantic import Field

from ftlib.plugins import Section


class Splitting(Section):
    """How rows that have no split yet are divided. Splits that came with the data stay as they are.

    Missing splits are taken from train (or from all rows, where the data came as one file).
    """

    validation_ratio: float = Field(0.1, gt=0, lt=1)
    """Share taken for validation (early stopping and choice) where none is given."""

    test_ratio: float = Field(0.15, gt=0, lt=1)
    """Share taken for test where none is given."""

    fusion_ratio: float = Field(0.0, ge=0, lt=1)
    """Share held out to fit fusions on; 0 cross-fits them on validation instead."""

    stratify: bool = True
    """Keep the label shares alike in every split (by quantile bins for regression)."""

    group_column: str | None = None
    """A column of the source whose equal values never land in different splits (author, document...)."""
