"""Ensembling: reading members' predictions row by row alike, and fitting a fusion so that its scores are honest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.crossfitting import deal_folds
from ftlib.errors import ArtifactError, DataError
from ftlib.files import read_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.fusion.base import Combiner, Fusion
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

PREDICTIONS = "predictions.parquet"
VALIDATION = "validation.parquet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Scores:
    """The members' scores of the same rows.

    Attributes:
        row_ids: Shape (num_rows,), int64.
        values: Shape (num_members, num_units, num_outputs), float64.
        layout: Which units each row has; None where each row is one unit.
        own_metrics: What each member's predictions say beyond its scores: see `Problem.own_metrics`.
    """

    row_ids: np.ndarray
    values: np.ndarray
    layout: Layout | None = None
    own_metrics: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class References:
    """Gold answers.

    Attributes:
        row_ids: Shape (num_rows,), int64.
        values: As `Target.encode` gives them, one line a unit.
    """

    row_ids: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A fitted fusion.

    Attributes:
        combiner: Fitted on all rows.
        validation: row_id and scores (list<float64>, a row's units one after the other), fused without it.
    """

    combiner: Combiner
    validation: pa.Table


# -- reading -------------------------------------------------------------------------------------------


def read_scores(folders: Sequence[Path], rows: pa.Table, problem: Problem, *, where: str = "") -> Scores:
    """Return the scores of several members on one split, in the order of its rows.

    Args:
        folders: One predictions artifact a member.
        rows: The split: row_id and the problem's input columns.
        problem: With its labels filled in.
        where: What the predictions are, for messages; the folder unless given.

    Raises:
        ArtifactError: If a folder has no predictions, or they are not of the same rows or outputs.
    """
    if not folders:
        raise ArtifactError("no member's predictions were given; expected at least one.")
    row_ids = rows["row_id"].to_numpy()
    tables = [
        _read_predictions(Path(folder), row_ids, f"{where} ({folder})" if where else str(folder)) for folder in folders
    ]
    return Scores(row_ids, *problem.align(tables, rows), tuple(problem.own_metrics(table) for table in tables))


def read_rows(path: Path) -> pa.Table:
    """Return the rows of one split.

    Args:
        path: The split's Parquet file in the split artifact.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected the split's rows there.")
    table = read_table(path)
    if table.num_rows == 0:
        raise DataError(f"split {path.stem!r} has no rows; fusion and evaluation need some. Enlarge it in splitting.")
    return table


def scores_table(row_ids: np.ndarray, scores: np.ndarray, layout: Layout | None) -> pa.Table:
    """Return one model's scores as a table: row_id and scores (list<float64>, a row's units one after the other)."""
    import numpy as np
    import pyarrow as pa

    counts = layout.counts if layout else np.ones(len(row_ids), np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts * scores.shape[1])]).astype(np.int64)
    flat = pa.array(np.ascontiguousarray(scores, dtype=np.float64).ravel())
    column = pa.LargeListArray.from_arrays(pa.array(offsets), flat)
    return pa.table({"row_id": pa.array(row_ids, pa.int64()), "scores": column})


def read_scores_table(path: Path, like: Scores, *, where: str = "") -> np.ndarray:
    """Return what `scores_table` wrote, shape (num_units, num_outputs), in the order of other scores of the rows.

    Args:
        path: The file.
        like: Scores of the same rows and units.
        where: What the file holds, for messages; its path unless given.

    Raises:
        ArtifactError: If the rows, or their units, are not the same.
    """
    import pyarrow as pa

    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected a fusion's scores there.")
    table = read_table(path, columns=["row_id", "scores"])
    order = rows_at(like.row_ids, table["row_id"].to_numpy(), where or str(path))
    flat = table["scores"].take(pa.array(order)).combine_chunks().flatten().to_numpy()
    if len(flat) != like.values[0].size:
        raise ArtifactError(f"{path} holds {len(flat):,} scores; expected {like.values[0].size:,}. Run again.")
    return flat.reshape(like.values.shape[1:])


def rows_at(wanted: np.ndarray, row_ids: np.ndarray, where: str) -> np.ndarray:
    """Return the positions at which `row_ids` holds the wanted rows, one each.

    Args:
        wanted: Row ids in the order that is wanted.
        row_ids: Row ids as they were found.
        where: What they were found in, for the message.

    Raises:
        ArtifactError: If the two are not the same rows, each once.
    """
    import numpy as np

    order = np.argsort(row_ids, kind="stable")
    ordered = row_ids[order]
    if len(ordered) > 1 and (repeated := ordered[1:][ordered[1:] == ordered[:-1]]).size:
        raise ArtifactError(f"{where}: row_id {repeated[0]} is there more than once; expected each row once.")
    missing, extra = np.setdiff1d(wanted, row_ids), np.setdiff1d(row_ids, wanted)
    if missing.size or extra.size:
        example = f"row_id {missing[0]} is missing" if missing.size else f"row_id {extra[0]} is not expected"
        raise ArtifactError(
            f"{where}: its rows are not those it is fused or measured with ({missing.size:,} missing, "
            f"{extra.size:,} too many; {example}). Compute the predictions again from the same splits."
        )
    return order[np.searchsorted(ordered, wanted)]


def _read_predictions(folder: Path, row_ids: np.ndarray, where: str) -> pa.Table:
    """Return a member's predictions in the order of `row_ids`."""
    import pyarrow as pa

    path = folder / PREDICTIONS
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected a member's predictions there.")
    table = read_table(path)
    return table.take(pa.array(rows_at(row_ids, table["row_id"].to_numpy(), where)))


def finite_logits(predictions: pa.Table, num_outputs: int) -> np.ndarray:
    """Return the column `logits`, float64, shape (num_rows, num_outputs).

    Raises:
        ArtifactError: If there are more or fewer outputs, or some are not finite.
    """
    import numpy as np

    logits = predictions["logits"].combine_chunks().flatten().to_numpy().astype(np.float64)
    logits = logits.reshape(len(predictions), -1)
    if len(logits) and logits.shape[1] != num_outputs:
        raise ArtifactError(f"predictions hold {logits.shape[1]} logits a row; expected {num_outputs}.")
    if broken := int((~np.isfinite(logits).all(1)).sum()):
        raise ArtifactError(
            f"predictions: {broken:,} of {len(logits):,} rows have logits that are not finite: the member's training "
            "diverged. Lower its learning_rate."
        )
    return logits


def fused_predictions(combiner: Combiner, scores: Scores, target: Target) -> pa.Table:
    """Return what a fusion makes of members' scores of rows with one answer each, as a member's predictions.

    Args:
        combiner: Fitted.
        scores: The members'.
        target: What is predicted.
    """
    import pyarrow as pa

    from ftlib.problems._learning import vectors

    logits = target.logits(combiner(scores.values, scores.layout)).astype("float32")
    return pa.table({"row_id": pa.array(scores.row_ids, pa.int64()), "logits": vectors(logits)})


# -- fitting -------------------------------------------------------------------------------------------


def fit(
    fusion: Fusion,
    scores: Scores,
    references: References,
    *,
    validation: Scores | None,
    target: Target,
    seed: int,
    folds: int = 5,
) -> Fitted:
    """Fit a fusion and score the validation rows without having fitted on them.

    With a split of its own to fit on, the validation rows are simply scored. Without, the validation rows are what is
    fitted on, and their scores are cross-fitted: each fold is scored by a combiner fitted on the other folds
    (Wolpert 1992, "Stacked Generalization", https://doi.org/10.1016/S0893-6080(05)80023-1), and the combiner that is
    kept is then fitted on all of them.

    Args:
        fusion: How to combine.
        scores: The members' scores of the fitting rows.
        references: The same rows' gold answers, in their order.
        validation: The members' scores of the validation rows; None where those are the fitting rows.
        target: What is predicted.
        seed: For every random choice.
        folds: How many folds; fewer where there are fewer rows.

    Raises:
        DataError: If there are too few rows, or the fusion cannot be fitted on them.
        UnsupportedError: If the fusion cannot combine this target.
    """
    fusion.check(target)
    target = target.over(scores.layout)
    rows_at(scores.row_ids, references.row_ids, "gold answers")
    if (scores.row_ids != references.row_ids).any():
        raise ArtifactError("gold answers are in another order than the scores; read both by the split's rows.")
    gold = references.values
    num_rows = target.num_rows(gold)
    if num_rows < 2:
        raise DataError(f"fusion {fusion.name!r} has {num_rows} row to fit on; expected at least 2.")
    combiner = fusion.fit(scores.values, gold, target, seed=seed)
    if validation is not None:
        fused = combiner(validation.values, validation.layout)
        return Fitted(combiner, scores_table(validation.row_ids, fused, validation.layout))
    fused = _cross_fitted(fusion, scores.values, gold, target, seed=seed, folds=min(folds, num_rows))
    return Fitted(combiner, scores_table(scores.row_ids, fused, scores.layout))


def _cross_fitted(
    fusion: Fusion, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int, folds: int
) -> np.ndarray:
    import numpy as np

    fold_of = deal_folds(target.strata(references, folds), folds, seed=seed)
    fused = np.empty(scores.shape[1:])
    for fold in range(folds):
        rest, held_out = target.positions(fold_of != fold), target.positions(fold_of == fold)
        layout = target.layout.take(fold_of == fold) if target.layout else None
        try:
            combiner = fusion.fit(scores[:, rest], references[rest], target.take(fold_of != fold), seed=seed)
        except DataError as error:  # a label with too few rows to be in every fold's rest
            logger.warning("%s: fold %d is scored by the members' mean instead: %s", fusion.name, fold + 1, error)
            fused[held_out] = scores[:, held_out].mean(0)
        else:
            fused[held_out] = combiner(scores[:, held_out], layout)
    return fused
