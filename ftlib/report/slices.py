"""The section on slices: how good the best model is on parts of the test rows, the widest gaps first."""

from __future__ import annotations

from typing import Any

from ftlib.report import comparison, words
from ftlib.report.models import Model, chosen
from ftlib.report.story import Story

FEW = 20
"""Rows below which a slice is called small."""


def slices(story: Story, found: list[Model]) -> dict[str, Any] | None:
    """Return each slice with its place on one scale."""
    entries = [e for e in story.evaluation.get("slices") or () if e["metric"] is not None]
    best = chosen(found)
    overall = best.value("test", story.metric)
    if not entries or overall is None:
        return None
    large = [e for e in entries if e["rows"] >= FEW] or entries
    ends = [v for e in large for v in (e["metric"], *(e["interval"] or ()))]
    scale = comparison.whiskers([overall, *ends])
    return {
        "name": best.name,
        "metric": words.metric_name(story.metric),
        "coverage": story.coverage,
        "overall": overall,
        "line": scale.at(overall),
        "ticks": scale.ticks,
        "behind": [e for e in entries if e["is_named"] and e["gap"] < 0],
        "tested": any(e["p_value"] is not None for e in entries),
        "few": FEW,
        "rows": [_row(e, scale) for e in entries],
    }


def falls_behind(story: Story) -> list[dict[str, Any]]:
    """Return the slices on which the best model is worse than elsewhere, by more than luck."""
    return [e for e in story.evaluation.get("slices") or () if e.get("is_named") and (e.get("gap") or 0) < 0]


def _row(entry: dict[str, Any], scale: comparison.Whiskers) -> dict[str, Any]:
    bounds = entry["interval"]
    return {
        **entry,
        "column": entry["column"].replace("_", " "),
        "small": entry["rows"] < FEW,
        "at": _inside(scale.at(entry["metric"])),
        "bounds": [_inside(scale.at(end)) for end in bounds] if bounds else None,
    }


def _inside(place: float) -> float:
    return min(max(place, 0.0), 100.0)
