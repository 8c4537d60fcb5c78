"""Error analysis: what is taken for what, how far confidence can be trusted, where members differ, the worst errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target

MOST_ERRORS = 200
"""Rows in the table of errors."""

MOST_POINTS = 1000
"""Rows of a scatter of gold against predicted values."""


def confusion(scores: np.ndarray, references: np.ndarray, target: Target) -> Any:
    """Return what is taken for what: of one label a row, a matrix of counts, a row for each gold label.

    Of several labels a row, label -> [[neither, given wrongly], [missed, found]], counts of rows.
    """
    import numpy as np

    predicted = scores.argmax(-1) if target.unit_kind == "single_label" else target.predicted(scores)
    if target.unit_kind == "single_label":
        size = target.num_outputs
        return np.bincount(references * size + predicted, minlength=size * size).reshape(size, size).tolist()
    given, gold = predicted > 0, references > 0
    found, wrongly, missed = (given & gold).sum(0), (given & ~gold).sum(0), (~given & gold).sum(0)
    neither = len(gold) - found - wrongly - missed
    cells = np.stack([neither, wrongly, missed, found], axis=1).reshape(-1, 2, 2).tolist()
    return dict(zip(target.labels, cells, strict=True))


def reliability(scores: np.ndarray, references: np.ndarray, target: Target) -> list[dict[str, float]]:
    """Return how often answers given with a confidence are right: the bins that hold any, lowest first.

    Of one label a unit, the confidence is that in the answer; of several, every label's own probability. Where an
    answer is chosen among candidates, it is the row's; [] where there is none.
    """
    from ftlib.targets.metrics import bins

    if target.unit_kind == "single_label":
        found = bins(scores.max(1), scores.argmax(-1) == references)
    elif target.unit_kind == "multi_label":
        found = bins(scores.ravel(), references.ravel() > 0)
    else:
        sure = target.confidence(scores)
        found = [] if sure is None else bins(sure, target.row_right(scores, references))
    return [{"confidence": c, "accuracy": hit, "count": n} for c, hit, n in found]


def scatter(scores: np.ndarray, references: np.ndarray) -> list[list[float]]:
    """Return [gold, predicted] of up to a thousand rows, evenly spaced."""
    import numpy as np

    chosen = np.unique(np.linspace(0, len(references) - 1, min(MOST_POINTS, len(references))).astype(np.int64))
    return np.stack([references[chosen].astype(np.float64), scores[chosen, 0]], axis=1).round(6).tolist()


def disagreement(scores: Mapping[str, np.ndarray], references: np.ndarray, target: Target) -> dict[str, Any]:
    """Return how often members decide differently, and what a perfect choice among them would get right.

    Two values are the same decision where they are closer than half the gold values' standard deviation; a set of
    labels is, where it is wholly the same.

    Returns:
        names; matrix, the share of rows on which two members differ; all_agree, all_agree_and_right and some_right,
        shares of rows.
    """
    import numpy as np

    pairs = [[target.same(one, other, references) for other in scores.values()] for one in scores.values()]
    correct = np.stack([target.row_right(one, references) for one in scores.values()])
    agree = np.stack([row for line in pairs for row in line]).all(0)
    return {
        "names": list(scores),
        "matrix": [[float(1 - row.mean()) for row in line] for line in pairs],
        "all_agree": float(agree.mean()),
        "all_agree_and_right": float((agree & correct.all(0)).mean()),
        "some_right": float(correct.any(0).mean()),
    }


def worst_errors(
    rows: pa.Table,
    best: np.ndarray,
    members: Mapping[str, np.ndarray],
    references: np.ndarray,
    problem: Problem,
    target: Target,
) -> pa.Table:
    """Return the best model's worst errors, worst first: what it said, how sure it was, what each member said and
    whether that was right.

    Worst is where the loss is highest: sure of the wrong answer, or furthest off.

    Args:
        rows: The split's rows: row_id, inputs and label.
        best: The best model's scores, in the order of `rows`.
        members: Member -> scores.
        references: Gold answers as `Target.encode` gives them.
        problem: With its labels filled in.
        target: Its target, over the layout of the rows.
    """
    import numpy as np
    import pyarrow as pa

    losses = target.row_losses(best, references)
    wrong = losses > 0 if target.kind == "value" else ~target.row_right(best, references)
    worst = np.flatnonzero(wrong)[np.argsort(-losses[wrong], kind="stable")][:MOST_ERRORS]
    units, told = target.positions(worst), target.take(worst)
    taken = rows.select(["row_id", *problem.input_columns]).take(pa.array(worst))
    gold = problem.gold(rows.take(pa.array(worst)))
    taken = taken.append_column("gold", told.gold(gold))
    taken = taken.append_column("predicted", pa.array(told.decode(best[units]), told.answer_type()))
    taken = taken.append_column("confidence", _confidence(best[units], references[units], told))
    for name, scores in members.items():
        taken = taken.append_column(f"member:{name}", pa.array(told.decode(scores[units]), told.answer_type()))
        taken = taken.append_column(f"right:{name}", pa.array(target.row_right(scores, references)[worst]))
    return taken


def _confidence(scores: np.ndarray, references: np.ndarray, target: Target) -> pa.Array:
    """Return the probability given to the wrong answer: the surest wrong one of several labels; null where none is."""
    import numpy as np
    import pyarrow as pa

    if target.kind == "multi_label":
        predicted = target.predicted(scores)
        sure = np.where(predicted > 0, scores, 1 - scores)
        return pa.array(np.where(predicted != references, sure, 0).max(1), pa.float64())
    probability = target.confidence(scores)
    nothing = pa.nulls(target.num_rows(scores), pa.float64())
    return nothing if probability is None else pa.array(probability, pa.float64())
