"""Successive halving: every candidate learns a little, the better half goes on and learns twice as long.

A round costs about what the one before it cost, since half as many candidates read twice as many rows. So most of the
time goes to those that are hard to tell apart. A model that learns slowly at first may be dropped early: more epochs in
the first round, or fewer rounds, are the remedy. On a few hundred rows a run of some dozen steps says less than a
linear probe of frozen features: there let the score decide.

Jamieson & Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
https://arxiv.org/abs/1502.07943, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import DataError, UnsupportedError
from ftlib.selection.scoring import LOSS, encoded_sample, order, with_loss_a_row, yardstick

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.problems.base import Problem
    from ftlib.strategies.base import Strategy
    from ftlib.training.stage import Training

MEASURES = "validation_"
"""What the names of a history's validation figures begin with."""


@dataclass(frozen=True)
class Budget:
    """What a short run may take.

    Attributes:
        epochs: Passes over the training rows; below 1 that share of them is read once.
        learning_rate: Peak learning rate.
        batch_size: Rows an optimizer step.
    """

    epochs: float
    learning_rate: float
    batch_size: int


@dataclass(frozen=True)
class Trial:
    """What a short run came to.

    Attributes:
        value: The yardstick's value on the validation rows; None where it is not finite: the run diverged.
        loss: The loss on them, a row, which decides between equal values.
        rows: Training rows that were read.
        note: Why it could not run; "" where it could.
    """

    value: float | None
    loss: float | None
    rows: int
    note: str = ""

    def summary(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def epochs_of(first: float, number: int) -> float:
    """Return the epochs of a round, from 1: each has twice those of the round before."""
    return first * 2 ** (number - 1)


def trial(
    folder: Path,
    splits: Mapping[str, pa.Table],
    *,
    problem: Problem,
    strategy: Strategy,
    budget: Budget,
    seed: int,
    scratch: Path,
    name: str,
) -> tuple[Trial, dict[str, float]]:
    """Train a candidate for a short while, and measure it on all validation rows.

    Args:
        folder: What `checkpoints.fetch` wrote.
        splits: "train" and "validation": rows with canonical labels.
        problem: What is learned, its labels filled in.
        strategy: How.
        budget: How long.
        seed: Draws rows and weights, the same for every candidate.
        scratch: Where checkpoints of the unfinished run are kept.
        name: The step's name, for progress.

    Returns:
        What it came to, and the figures of the training.

    Raises:
        DataError: If there are no validation rows.
    """
    from ftlib.training import stage

    if not len(splits["validation"]):
        raise DataError("there are no validation rows to compare short runs on; set halving: null, or add some.")
    stage.set_seed(seed)
    number = math.ceil(len(splits["train"]) * min(budget.epochs, 1.0))
    try:
        checkpoint = strategy.open(folder, problem)
        rows, validation = (
            encoded_sample(splits[split], problem, checkpoint.tokenizer, size, seed)
            for split, size in (("train", number), ("validation", len(splits["validation"])))
        )
        result = stage.train(
            checkpoint,
            rows,
            validation,
            problem=problem,
            strategy=strategy,
            settings=_settings(budget),
            seed=seed,
            scratch=scratch,
            name=name,
        )
    except UnsupportedError as error:
        return Trial(None, None, 0, str(error)), {}
    return _told(result.history, validation, problem, number), result.figures


def _settings(budget: Budget) -> Training:
    from ftlib.training.stage import Training

    return Training(
        learning_rate=budget.learning_rate, batch_size=budget.batch_size, num_train_epochs=max(budget.epochs, 1.0)
    )


def _told(history: Sequence[Mapping[str, float]], validation: pa.Table, problem: Problem, rows: int) -> Trial:
    """Return the best of a run's validation passes, whose weights it keeps."""
    passes = [
        {name.removeprefix(MEASURES): value for name, value in row.items() if name.startswith(MEASURES)}
        for row in history
    ]
    measured = [with_loss_a_row(found, validation) for found in passes if found]
    metric, higher = yardstick(problem)
    best = measured[order([found.get(metric) for found in measured], higher=higher)[0]]
    return Trial(best.get(metric), best[LOSS], rows)


def survivors(trials: Mapping[int, Mapping[str, Any]], *, higher: bool) -> list[int]:
    """Return the places of the better half of those that ran, rounded up, the best first.

    Args:
        trials: Place of a candidate -> `Trial.summary` of its run.
        higher: Whether a larger value is a better one.
    """
    places = best_first(trials, higher=higher)
    return places[: -(-len(places) // 2)]


def best_first(trials: Mapping[int, Mapping[str, Any]], *, higher: bool) -> list[int]:
    """Return the places of those that ran, the best first; of equal values the lower loss is better."""
    places = list(trials)
    by_loss = [places[i] for i in order([trials[place]["loss"] for place in places], higher=False)]
    return [by_loss[i] for i in order([trials[place]["value"] for place in by_loss], higher=higher)]
