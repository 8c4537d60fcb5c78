"""The section on the base model: the candidates, their scores and short runs, and why one was chosen."""

from __future__ import annotations

from typing import Any

from ftlib.report import words
from ftlib.report.story import Story

MEASURES = {"logme": "LogME", "linear_probe": "linear probe", "loss_per_row": "loss a row"}
"""What scores and yardsticks are called that are no metrics of a problem."""

FAMILIES = {"encoder_decoder": "encoder-decoder", "image_text": "image-text"}


def base_model(story: Story) -> dict[str, Any] | None:
    """Return the candidates, the chosen one first, the best figure of each column marked."""
    found = story.base_model
    if not found:
        return None
    lines = found["candidates"]
    best = _best([line["score"] for line in lines], higher=found["higher_is_better"])
    bests = [
        _best([line["rounds"][i] for line in lines], higher=found["metric_higher_is_better"])
        for i in range(len(found["rounds"]))
    ]
    return {
        "chosen": found["chosen"],
        "measure": _called(found["measure"]),
        "measure_lower": not found["higher_is_better"],
        "metric": _called(found["metric"]),
        "metric_lower": not found["metric_higher_is_better"],
        "rounds": found["rounds"],
        "left_out": [(line["name"], line["reason"]) for line in lines if line["state"] == "left_out"],
        "rows": [_row(line, best, bests) for line in lines],
    }


def _row(line: dict[str, Any], best: float | None, bests: list[float | None]) -> dict[str, Any]:
    family = line["family"] or ""
    return {
        "name": line["name"],
        "is_chosen": line["state"] == "chosen",
        "family": FAMILIES.get(family, family),
        "size": line["num_parameters"],
        "score": _marked(line["score"], best),
        "rounds": [_marked(value, top) for value, top in zip(line["rounds"], bests, strict=True)],
        "reason": "cannot do the problem" if line["state"] == "left_out" else line["reason"],
    }


def _marked(value: float | None, best: float | None) -> tuple[float | None, bool]:
    """Return a figure, and whether it is the best of its column."""
    return value, value is not None and value == best


def _best(values: list[float | None], *, higher: bool) -> float | None:
    known = [value for value in values if value is not None]
    return (max(known) if higher else min(known)) if known else None


def _called(measure: str | None) -> str:
    return MEASURES.get(measure or "", words.metric_name(measure or ""))
