"""The section on several tasks: every stage on every task that it answers, and what learning one did to another."""

from __future__ import annotations

from typing import Any

from ftlib.report import words
from ftlib.report.story import Story


def tasks(story: Story) -> dict[str, Any] | None:
    """Return the scores, stage by task, with the best of each task marked, and the lines of stages with their gains."""
    found = story.transfer
    if not found:
        return None
    names = [task["name"] for task in found["tasks"]]
    entries = {(entry["stage"], entry["task"]): entry for entry in found["scores"]}
    best = {task["name"]: _best(task, found["scores"]) for task in found["tasks"]}
    stages = dict.fromkeys(entry["stage"] for entry in found["scores"])
    return {
        "tasks": [{**task, "metric": words.metric_name(task["metric"])} for task in found["tasks"]],
        "rows": [(stage, [_cell(entries.get((stage, name)), best[name]) for name in names]) for stage in stages],
        "lines": [_line(line) for line in found["lines"] if line["kept"]],
        "coverage": story.coverage,
    }


def _best(task: dict[str, Any], scores: list[dict[str, Any]]) -> float:
    values = [entry["value"] for entry in scores if entry["task"] == task["name"]]
    return max(values) if task["higher_is_better"] else min(values)


def _cell(entry: dict[str, Any] | None, best: float) -> tuple[dict[str, Any] | None, bool]:
    """Return a stage's figures on a task, if it answers it, and whether they are the best ones."""
    return entry, entry is not None and entry["value"] == best


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of stages with what stood in each one's place in its table."""
    steps = zip(line["stages"], line["learns"], line["table"], strict=True)
    return {**line, "steps": [{"stage": stage, "learns": task, "values": values} for stage, task, values in steps]}
