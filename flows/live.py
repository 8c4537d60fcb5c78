"""The running job on the terminal: finished steps as lines, the running one with its bar, the rest in a line.

On a terminal the lines at the bottom change in place; elsewhere (a log, a pipe) each finished step is one
plain line. All of it goes to stderr: stdout holds results only.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flows.show import console, seconds
from ftlib.progress import Progress

NAME_WIDTH = 28
BAR_WIDTH = 20


@dataclass
class _Running:
    """A step at work: when it began, and its newest event."""

    name: str
    started: float = field(default_factory=time.monotonic)
    event: Progress | None = None
    first: tuple[float, float] | None = None  # time and units done at the first event: warm-up is not speed

    def hear(self, event: Progress) -> None:
        if self.first is None or event.done < self.first[1]:
            self.first = (time.monotonic(), event.done)
        self.event = event

    def rate(self) -> float | None:
        """Return units a second."""
        if self.event is None or self.first is None:
            return None
        passed, done = time.monotonic() - self.first[0], self.event.done - self.first[1]
        return done / passed if passed > 0.5 and done > 0 else None

    def remaining(self) -> float | None:
        """Return the seconds that are left at this speed."""
        rate = self.rate()
        return (self.event.total - self.event.done) / rate if rate and self.event else None


class Stopping:
    """Turns Ctrl-C into KeyboardInterrupt while it is open, also where Python loses it.

    Args:
        signals: What else does the same, such as SIGTERM.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.stopped = False
        self._signals = (signal.SIGINT, *signals)

    def __enter__(self) -> Self:
        self._before = ([signal.signal(number, self._stop) for number in self._signals], sys.unraisablehook)
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self._signals, self._before[0], strict=True):
            signal.signal(number, handler)
        sys.unraisablehook = self._before[1]

    def check(self) -> None:
        """Stop now, where that was asked for inside a finalizer: call it at every sign of progress."""
        if self.stopped:
            raise KeyboardInterrupt

    def _stop(self, *_: object) -> None:
        self.stopped = True
        raise KeyboardInterrupt

    def _unraisable(self, failure: Any) -> None:
        """Keep still when Ctrl-C came inside a finalizer, where Python loses it: the next progress stops the run."""
        if not issubclass(failure.exc_type, KeyboardInterrupt):
            self._before[1](failure)


class Drawn:
    """What is drawn anew below the lines of a terminal while its context is open: `__rich__` says what.

    Args:
        signals: What stops the work beside Ctrl-C.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.console = console(stderr=True)
        self.started = time.monotonic()
        self.stopping = Stopping(*signals)
        terminal = self.console.is_terminal
        self.live = Live(self, console=self.console, refresh_per_second=8, transient=True) if terminal else None

    def __enter__(self) -> Self:
        self.stopping.__enter__()
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
        self.stopping.__exit__()

    def __rich__(self) -> Any:
        raise NotImplementedError


class Display(Drawn):
    """Shows a run. Hears what `run_experiment` tells: a step begins, is done, or has come further.

    Args:
        steps: The names of all steps, in order.
        batch_sizes: Step -> rows that one unit of its progress stands for, where it counts batches.
    """

    def __init__(self, steps: Sequence[str], batch_sizes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.batch_sizes = batch_sizes or {}
        self.waiting = list(steps)
        self.num_steps = len(self.waiting)
        self.num_done = 0
        self.running: dict[str, _Running] = {}
        self.spinner = Spinner("dots", style="cyan")

    # -- what the run tells --------------------------------------------------------------------------

    def begin(self, step: str) -> None:
        """A step begins."""
        self.stopping.check()
        if step in self.waiting:
            self.waiting.remove(step)
        self.running[step] = _Running(step)

    def progress(self, event: Progress) -> None:
        """A step has come further."""
        self.stopping.check()
        only = next(iter(self.running.values())) if len(self.running) == 1 else None
        held = self.running.get(event.step, only)
        if held is not None:
            held.hear(event)

    def done(self, step: str, *, cached: bool, took: float | None = None) -> None:
        """A step is done: computed, or found computed."""
        held = self.running.pop(step, None)
        if step in self.waiting:
            self.waiting.remove(step)
        self.num_done += 1
        if took is None and held is not None:
            took = time.monotonic() - held.started
        self._print(_finished(step, cached=cached, took=took, event=held.event if held else None))

    def failed(self, step: str) -> None:
        """A step has failed; the error itself is told by the command line."""
        self.running.pop(step, None)
        word = "stopped" if self.stopping.stopped else "failed"
        self._print(Text.assemble(("✗ ", "red"), f"{step:<{NAME_WIDTH}} ", (word, "red")))

    def _print(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True)

    # -- what is shown -------------------------------------------------------------------------------

    def __rich__(self) -> Any:
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(min_width=1)
        rows.add_column(min_width=NAME_WIDTH, no_wrap=True)
        rows.add_column(min_width=BAR_WIDTH)
        rows.add_column(no_wrap=True, ratio=1)
        for step in tuple(self.running.values()):
            rows.add_row(
                self.spinner, Text(step.name, style="bold"), _bar(step), _details(step, self.batch_sizes.get(step.name))
            )
        return Group(rows, self._footer())

    def _footer(self) -> Text:
        following = ", ".join(self.waiting[:3]) + (
            f" and {len(self.waiting) - 3} more" if len(self.waiting) > 3 else ""
        )
        passed = seconds(time.monotonic() - self.started)
        line = Text(f"  {self.num_done} of {self.num_steps} steps, {passed}", style="dim")
        return line.append(f"; waiting: {following}" if following else "", style="dim")


def _finished(step: str, *, cached: bool, took: float | None, event: Progress | None) -> Text:
    if cached:
        return Text.assemble(("○ ", "dim"), (f"{step:<{NAME_WIDTH}} ", "dim"), ("cached", "dim"))
    told = figures(event.metrics) if event else ""
    return Text.assemble(
        ("✓ ", "green"),
        f"{step:<{NAME_WIDTH}} ",
        f"computed in {seconds(took)}",
        (f"  {told}" if told else "", "dim"),
    )


def _bar(step: _Running) -> Any:
    if step.event is None or step.event.total <= 0:
        return ProgressBar(total=None, width=BAR_WIDTH, pulse=True)
    return ProgressBar(total=step.event.total, completed=step.event.done, width=BAR_WIDTH)


def _details(step: _Running, batch_size: int | None) -> Text:
    """Return how far, how well, how fast and how long still."""
    event = step.event
    if event is None:
        return Text(seconds(time.monotonic() - step.started), style="dim")
    remaining, rate = step.remaining(), step.rate()
    parts = [f"{event.done:,.0f}/{event.total:,.0f} {event.unit}"]
    parts += [f"{seconds(remaining)} left"] if remaining is not None and event.done < event.total else []
    parts.append(figures(event.metrics))
    if rate is not None:
        speed, unit = (rate * batch_size, "rows") if batch_size else (rate, event.unit)
        parts.append(f"{speed:,.1f} {unit}/s" if speed < 10 else f"{speed:,.0f} {unit}/s")
    return Text("  ".join(part for part in parts if part))


def figures(metrics: Any) -> str:
    """Return the loss and the newest validation figures: "loss 0.312  validation accuracy 0.874"."""
    shown = [f"loss {metrics['loss']:.4f}"] if "loss" in metrics else []
    validated = {n: v for n, v in metrics.items() if n.startswith("validation_") and n != "validation_loss"}
    shown += [f"{name.replace('_', ' ')} {value:.4f}" for name, value in validated.items()][:1]
    return "  ".join(shown)
