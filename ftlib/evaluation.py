"""Evaluation: metrics with intervals, paired tests, the choice of the best, and error analysis."""

from __future__ import annotations

from pydantic import Field

from ftlib.plugins import Section


class Evaluation(Section):
    """How results are measured and the best one chosen."""

    metric: str | None = None
    """What the choice goes by, on validation; the problem's own main metric unless given."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the bootstrap intervals."""

    bootstrap_samples: int = Field(1000, ge=100)
    """Resamples of the intervals and paired tests."""
