"""A search on the terminal: a line for each trial that has ended, the running ones below, with how far they are."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows.live import Drawn, figures
from flows.show import figure, seconds, table
from ftlib.progress import Progress
from ftlib.tuning.naming import STATES, short_names, shown

MARKS = {"complete": ("✓ ", "green"), "pruned": ("↓ ", "yellow"), "failed": ("✗ ", "red")}


class Display(Drawn):
    """Shows a search.

    Args:
        paths: The parameters that are searched.
        num_trials: How many trials there are in all.
    """

    def __init__(self, paths: Sequence[str], num_trials: int) -> None:
        super().__init__(signal.SIGTERM)
        self.names = short_names(paths)
        self.num_trials = num_trials
        self.num_done = 0
        self.best: float | None = None
        self.running: dict[int, Text] = {}

    def resumed(self, num_done: int, killed: Sequence[int], best: float | None) -> None:
        """Say where an earlier process left off."""
        self.num_done, self.best = num_done, best
        line = f"Going on after {num_done} of {self.num_trials} trials"
        again = f"; {_numbered(killed)} broken off and {'is' if len(killed) == 1 else 'are'} tried again"
        self._print(Text(f"{line}{again if killed else ''}.", style="dim"))

    def began(self, number: int, values: Mapping[str, Any]) -> None:
        """A trial begins."""
        self.stopping.check()
        self.running[number] = Text(f"  trial {number}  {self._values(values)}")

    def progress(self, number: int, event: Progress) -> None:
        """A step of a trial has come further."""
        self.stopping.check()
        told = f"{event.step}  {event.done:,.0f}/{event.total:,.0f} {event.unit}  {figures(event.metrics)}"
        self.running[number] = Text(f"  trial {number}  {told}")

    def ended(self, entry: Mapping[str, Any], best: float | None) -> None:
        """A trial has come to an end.

        Args:
            entry: What the summary says of it.
            best: The best score so far.
        """
        self.running.pop(entry["number"], None)
        self.num_done, self.best = self.num_done + 1, best
        told = entry["reason"] or f"computed {entry['computed']}, cached {entry['cached']}"
        word = STATES[entry["state"]]
        self._print(
            Text.assemble(
                MARKS[entry["state"]],
                f"trial {entry['number']:<3} ",
                f"{figure(entry['score']):<7} ",
                self._values(entry["values"]),
                (f"  {seconds(entry['seconds'])}, {f'{word}, ' if word else ''}{told}", "dim"),
            )
        )

    def _values(self, values: Mapping[str, Any]) -> str:
        return "  ".join(f"{self.names.get(path, path)} {shown(value)}" for path, value in values.items())

    def _print(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True)

    def __rich__(self) -> Any:
        told = f"  {self.num_done} of {self.num_trials} trials, {seconds(time.monotonic() - self.started)}"
        return Group(*self.running.values(), Text(f"{told}; best {figure(self.best) or 'none yet'}", style="dim"))


def _numbered(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]} was"
    return f"trials {', '.join(map(str, numbers))} were"


def leaderboard(summary: Mapping[str, Any]) -> Table:
    """Return the trials, best first.

    Args:
        summary: What ``ftlib tune --json`` writes.
    """
    names = list(short_names(summary["space"]).values())
    numbers = ("trial", "validation", *names, "took", "computed", "cached")
    board = table("", "trial", "validation", *names, "chosen", "took", "computed", "cached", "", numbers=numbers)
    metric = summary["metric"].replace("_", " ")
    board.title = Text.assemble((summary["name"], "bold"), (f"  {metric} on validation", "dim"))
    for entry in summary["trials"]:
        best = entry["number"] == summary["best"]["number"]
        board.add_row("★" if best else "", *_cells(entry, summary["space"]), style="bold green" if best else None)
    return board


def _cells(entry: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    return [
        str(entry["number"]),
        figure(entry["score"]),
        *(shown(entry["values"][path]) if path in entry["values"] else "" for path in paths),
        entry["chosen"] or "",
        seconds(entry["seconds"]),
        str(entry["computed"]),
        str(entry["cached"]),
        entry["reason"] or STATES[entry["state"]],
    ]


def notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sentences below the leaderboard."""
    yield from summary["sentences"]
    if summary["importances"]:
        names = short_names(summary["space"])
        shares = ", ".join(f"{names[path]} {share:.0%}" for path, share in summary["importances"].items())
        yield f"Importance: {shares} of the differences between complete trials."
    computed, cached = (sum(entry[state] for entry in summary["trials"]) for state in ("computed", "cached"))
    yield f"{computed + cached} steps in all trials: {computed} computed, {cached} taken from the store."
    yield f"Page  {summary['page']}"
    yield f"`ftlib run {summary['params']}` makes the best one and measures it on test."
