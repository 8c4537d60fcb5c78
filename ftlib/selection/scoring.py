"""Scores: how fit a candidate is for a problem before training, and what short runs are compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ftlib.errors import CheckpointError, DataError
from ftlib.selection.features import POOLED, WORDS

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem

Method = Literal["logme", "linear_probe"]

LOSS = "loss_per_row"
"""The loss of a row's answer as a whole: what models of several vocabularies can be compared by, unlike that of a
token."""

LOWER_IS_BETTER = frozenset({LOSS})


@dataclass(frozen=True)
class Score:
    """What is known of a candidate before training.

    Attributes:
        family: How it reads and answers (`ftlib.models.families`); None where that is not known.
        num_parameters: How large it is, with the problem's head; None where it was not opened.
        value: The score; None where there is none.
        unfit: Why the problem cannot be learned with it; "" where it can.
        note: Why it has no score; "" where it has one.
    """

    family: str | None
    num_parameters: int | None = None
    value: float | None = None
    unfit: str = ""
    note: str = ""

    def summary(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def measure_of(problem: Problem, method: Method) -> str | None:
    """Return what a problem's candidates are scored by before training; None where only training can tell.

    Args:
        problem: What is learned.
        method: How frozen features are scored, where there are labels that a linear head can learn from them.
    """
    if problem.answers_untrained:
        return LOSS
    return method if problem.target.kind in POOLED | WORDS else None


def higher_is_better(measure: str | None) -> bool:
    """Return whether a larger score is a better one."""
    return measure not in LOWER_IS_BETTER


def score(folder: Path, rows: pa.Table, problem: Problem, *, method: Method, num_rows: int, seed: int) -> Score:
    """Return how fit a candidate is.

    Args:
        folder: What `checkpoints.fetch` wrote.
        rows: Training rows with canonical labels; a sample of them is read.
        problem: What is learned, its labels filled in.
        method: How frozen features are scored.
        num_rows: Rows of the sample.
        seed: Draws it, the same for every candidate.
    """
    from ftlib.models import checkpoints, families
    from ftlib.models.layers import count
    from ftlib.training.stage import set_seed

    family = families.of_folder(folder)
    unfit = reason_against(folder, problem)
    if unfit:
        return Score(family, unfit=unfit)
    set_seed(seed)  # the head, which is drawn at random, is not looked at, but what is drawn should not differ
    checkpoint = checkpoints.load(folder, problem)
    size = count(checkpoint.model).parameters
    encoded = encoded_sample(rows, problem, checkpoint.tokenizer, num_rows, seed)
    try:
        value = _value(checkpoint, encoded, problem, method, seed)
    except DataError as error:
        return Score(family, size, note=str(error))
    note = "" if value is not None else _why_none(problem, method)
    return Score(family, size, value, note=note)


def reason_against(folder: Path, problem: Problem) -> str:
    """Return why a problem cannot be learned with a model, in words; "" where it can."""
    from ftlib.models import families

    unfit = families.reason_against(folder, problem)
    if unfit:
        return unfit
    try:
        problem.check_tokenizer(problem.load_tokenizer(folder))
    except CheckpointError as error:
        return str(error)
    return ""


def encoded_sample(rows: pa.Table, problem: Problem, tokenizer: Any, num_rows: int, seed: int) -> pa.Table:
    """Return some rows, drawn at random, in their order, as a model reads them."""
    import numpy as np
    import pyarrow as pa

    from ftlib.data.encode import encode

    drawn = np.random.default_rng(seed).permutation(len(rows))[:num_rows]
    return encode(rows.take(pa.array(np.sort(drawn))), problem, tokenizer)[0]


def _value(checkpoint: Checkpoint, rows: pa.Table, problem: Problem, method: Method, seed: int) -> float | None:
    measure = measure_of(problem, method)
    if measure is None:
        return None
    if measure == LOSS:
        return measured(checkpoint, rows, problem, "auto")[LOSS]
    from ftlib.selection.features import samples
    from ftlib.selection.logme import logme
    from ftlib.selection.probe import probe

    found = samples(checkpoint, rows, problem)
    if measure == "logme":
        return logme(found.features, found.columns())
    return probe(found.features, found.labels, found.target, seed=seed)


def _why_none(problem: Problem, method: Method) -> str:
    if measure_of(problem, method) is None:
        return f"frozen features say nothing of {problem.name}: it has no labels that a linear head could learn."
    return "the sample's labels do not vary."


# -- models as they are ----------------------------------------------------------------------------------------


def yardstick(problem: Problem) -> tuple[str, bool]:
    """Return what short runs are compared by, and whether a larger value is a better one.

    It is what a stage's best weights are chosen by; the loss of tokens, which models of several vocabularies count
    each in their own way, is taken a row.
    """
    metric = problem.validation_metric
    if metric in ("loss", "perplexity"):
        return LOSS, False
    return metric, problem.target.higher_is_better(metric)


def measured(checkpoint: Checkpoint, rows: pa.Table, problem: Problem, precision: Any) -> dict[str, float | None]:
    """Return the loss and the metrics of encoded rows, None for those that are not finite, with the loss a row."""
    found = problem.measure(checkpoint, rows, precision=precision)
    return with_loss_a_row(found, rows)


def with_loss_a_row(found: dict[str, float], rows: pa.Table) -> dict[str, float | None]:
    """Return what `Problem.measure` gave of encoded rows with the loss of a row's answer as a whole beside it."""
    every = {**found, LOSS: found["loss"] * _places(rows)}
    return {name: float(value) if math.isfinite(value) else None for name, value in every.items()}


def _places(rows: pa.Table) -> float:
    """Return how many tokens a row's answer has in the mean; 1 where it is no list of tokens."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ftlib.targets.losses import IGNORED

    labels = rows["labels"]
    if not pa.types.is_list(labels.type):
        return 1.0
    tokens = pc.sum(pc.not_equal(pc.list_flatten(labels), IGNORED)).as_py() or 0
    return float(tokens) / max(1, len(pc.unique(rows["row_id"])))


def order(values: Sequence[float | None], *, higher: bool) -> list[int]:
    """Return positions, the best value first; equal ones as they come, those without a value last."""
    signed = [math.inf if value is None else -value if higher else value for value in values]
    return sorted(range(len(values)), key=lambda i: signed[i])
