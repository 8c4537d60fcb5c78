"""Ensembling: reading members' predictions row by row alike, and fitting a fusion so that its scores are honest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.crossfitting import stratified_folds
from ftlib.errors import ArtifactError, DataError
from ftlib.files import read_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.fusion.base import Combiner, Fusion
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target

PREDICTIONS = "predictions.parquet"
VALIDATION = "validation.parquet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """The members' scores of the same rows.

    Attributes:
        row_ids: Shape (num_rows,), int64.
        values: Shape (num_members, num_rows, num_outputs), float64.
    """

    row_ids: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class References:
    """Gold answers.

    Attributes:
        row_ids: Shape (num_rows,), int64.
        values: As `Target.encode` gives them.
    """

    row_ids: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A fitted fusion.

    Attributes:
        combiner: Fitted on all rows.
        validation: row_id and scores (fixed_size_list<float64>), each row's fused without it.
    """

    combiner: Combiner
    validation: pa.Table


# -- reading -------------------------------------------------------------------------------------------


def read_scores(folders: Sequence[Path], problem: Problem) -> Scores:
    """Return the scores of several members on one split, in the first one's order of rows.

    Args:
        folders: One predictions artifact a member.
        problem: With its labels filled in.

    Raises:
        ArtifactError: If a folder has no predictions, or they are not of the same rows or outputs.
    """
    import numpy as np

    read = [_read_predictions(folder, problem.target) for folder in folders]
    if not read:
        raise ArtifactError("no member's predictions were given; expected at least one.")
    row_ids = read[0][0]
    values = [v[rows_at(row_ids, ids, f"{folder}")] for (ids, v), folder in zip(read, folders, strict=True)]
    return Scores(row_ids, np.stack(values))


def read_references(path: Path, problem: Problem) -> References:
    """Return the gold answers of one split.

    Args:
        path: The split's Parquet file in the split artifact.
        problem: With its labels filled in.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected the split's rows there.")
    table = read_table(path, columns=["row_id", problem.label_column])
    if table.num_rows == 0:
        raise DataError(f"split {path.stem!r} has no rows; fusion and evaluation need some. Enlarge it in splitting.")
    return References(table["row_id"].to_numpy(), problem.target.encode(table[problem.label_column]))


def scores_table(row_ids: np.ndarray, scores: np.ndarray) -> pa.Table:
    """Return scores as a table: row_id and scores (fixed_size_list<float64>)."""
    import numpy as np
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(scores, dtype=np.float64).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, scores.shape[1])
    return pa.table({"row_id": pa.array(row_ids, pa.int64()), "scores": column})


def read_scores_table(path: Path) -> Scores:
    """Return what `scores_table` wrote, as the scores of one member."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected a fusion's scores there.")
    table = read_table(path, columns=["row_id", "scores"])
    return Scores(table["row_id"].to_numpy(), _matrix(table["scores"])[None])


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


def _read_predictions(folder: Path, target: Target) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    path = Path(folder) / PREDICTIONS
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected a member's predictions there.")
    table = read_table(path, columns=["row_id", "logits"])
    logits = _matrix(table["logits"])
    if logits.shape[1] != target.num_outputs:
        raise ArtifactError(f"{path} holds {logits.shape[1]} logits a row; expected {target.num_outputs}.")
    if broken := int((~np.isfinite(logits).all(1)).sum()):
        raise ArtifactError(
            f"{path}: {broken:,} of {len(logits):,} rows have logits that are not finite: the member's training "
            "diverged. Lower its learning_rate."
        )
    return table["row_id"].to_numpy(), target.scores(logits)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    import numpy as np

    return column.combine_chunks().flatten().to_numpy().astype(np.float64).reshape(len(column), -1)


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
        references: The fitting rows' gold answers.
        validation: The members' scores of the validation rows; None where those are the fitting rows.
        target: What is predicted.
        seed: For every random choice.
        folds: How many folds; fewer where there are fewer rows.

    Raises:
        DataError: If there are too few rows, or the fusion cannot be fitted on them.
        UnsupportedError: If the fusion cannot combine this target.
    """
    fusion.check(target)
    gold = references.values[rows_at(scores.row_ids, references.row_ids, "gold answers")]
    if len(gold) < 2:
        raise DataError(f"fusion {fusion.name!r} has {len(gold)} row to fit on; expected at least 2.")
    combiner = fusion.fit(scores.values, gold, target, seed=seed)
    if validation is not None:
        return Fitted(combiner, scores_table(validation.row_ids, combiner(validation.values)))
    fused = _cross_fitted(fusion, scores.values, gold, target, seed=seed, folds=min(folds, len(gold)))
    return Fitted(combiner, scores_table(scores.row_ids, fused))


def _cross_fitted(
    fusion: Fusion, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int, folds: int
) -> np.ndarray:
    import numpy as np

    fold_of = stratified_folds(references, folds, seed=seed)
    fused = np.empty(scores.shape[1:])
    for fold in range(folds):
        held_out = fold_of == fold
        try:
            combiner = fusion.fit(scores[:, ~held_out], references[~held_out], target, seed=seed)
        except DataError as error:  # a label with too few rows to be in every fold's rest
            logger.warning("%s: fold %d is scored by the members' mean instead: %s", fusion.name, fold + 1, error)
            fused[held_out] = scores[:, held_out].mean(0)
        else:
            fused[held_out] = combiner(scores[:, held_out])
    return fused
