"""Progress of long steps: the library tells, whoever listens shows it (terminal, Prefect, MLflow)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

_listeners: list[Callable[[Progress], None]] = []


@dataclass(frozen=True)
class Progress:
    """How far a step is.

    Attributes:
        step: The step's name, such as "train-full".
        done: Units done, `total` at the end.
        total: Units in all.
        unit: What is counted: "steps", "rows".
        metrics: The newest figures, such as loss or validation_accuracy.
    """

    step: str
    done: float
    total: float
    unit: str
    metrics: Mapping[str, float] = field(default_factory=dict)


def emit(event: Progress) -> None:
    """Tell every listener."""
    for listener in tuple(_listeners):
        listener(event)


@contextmanager
def listen(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Let `listener` hear every event while the context is open."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
