"""What `ftlib` prints of several tasks: every stage on every task that it answers, and what was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from flows.show import between, figure, p, table


def scores(transfer: Mapping[str, Any]) -> Table:
    """Return a line a stage, a column a task: the score on the task's test rows.

    Args:
        transfer: transfer.json.
    """
    tasks = transfer["tasks"]
    headings = [f"{task['name']} ({task['metric'].replace('_', ' ')})" for task in tasks]
    made = table("stage", *headings, numbers=headings, title="On the test rows of each task")
    found = {(entry["stage"], entry["task"]): entry["value"] for entry in transfer["scores"]}
    for stage in dict.fromkeys(entry["stage"] for entry in transfer["scores"]):
        made.add_row(stage, *(figure(found.get((stage, task["name"]))) for task in tasks))
    return made


def notes(transfer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence a line of stages: what it kept of what it had learned."""
    for line in transfer["lines"]:
        if not line["kept"]:
            continue
        parts = [
            f"{kept['task']} {kept['gain']:+.4f} ({between(kept['interval'])}, p {p(kept['p_value'])})"
            for kept in line["kept"]
        ]
        transferred = f"{line['backward_transfer']:+.4f}"
        yield f"{' → '.join(line['stages'])}: kept {', '.join(parts)}; backward transfer {transferred}."
