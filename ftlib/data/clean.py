"""Cleaning: repair what can be repaired, reject the rest with its reason; nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ftlib.plugins import Section

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.problems.base import Problem

DUPLICATE = "duplicate"
CONFLICT = "conflicting labels"


class Cleaning(Section):
    """What cleaning repairs and rejects. Served models repair their input with the same settings."""

    fix_unicode: bool = True
    """Repair mojibake and normalise to NFC (ftfy)."""

    strip_html: bool = True
    """Remove tags (blocks and line breaks leave a space) and decode entities."""

    collapse_whitespace: bool = True
    """Remove control characters; trim, and make each run of white space one space."""

    drop_duplicates: bool = True
    """Of rows with equal inputs and equal label within a split, keep the first."""

    conflicting_labels: Literal["reject", "majority", "keep"] = "reject"
    """Equal inputs with different labels in a split: reject all, keep the strict majority's first row, or keep all."""

    min_characters: int = Field(1, ge=1)
    """Reject rows with a shorter text."""

    max_rejected_ratio: float = Field(0.5, ge=0, le=1)
    """Stop where a larger share of the rows is rejected: then the mapping or the file is wrong."""


@dataclass(frozen=True)
class Cleaned:
    """What cleaning gave; ``len(table) + len(rejected)`` is the number of rows read.

    Attributes:
        table: The rows kept: texts repaired, labels canonical (names, lists of names, or float64).
        rejected: The other rows as they came, the label as text, with a column `reason`.
        summary: {"read", "kept", "repaired": {"unicode", "html", "whitespace"}, "rejected": {kind of reason:
            count}, "by_split": {split: {"read", "kept"}}}. Repairs count rows, each once a kind.
    """

    table: pa.Table
    rejected: pa.Table
    summary: dict[str, Any]


def clean(table: pa.Table, problem: Problem, cleaning: Cleaning) -> Cleaned:
    """Repair rows and reject those that cannot be used.

    In this order, the first reason counting: unreadable, empty or short text, label, exact duplicate, conflicting
    labels. Duplicates and conflicts are looked for within each split, among rows that are fine otherwise, and
    after the repair. Numbers do not conflict: equal inputs with different values are all kept.

    Args:
        table: row_id, split, the problem's columns as the source has them, perhaps group and unreadable.
        problem: Says which columns hold texts and how labels are read.
        cleaning: What to repair and reject.

    Raises:
        DataError: If more than `max_rejected_ratio` of the rows is rejected, or no row of a split is left.
    """
    from ftlib.data._rejections import Rejections, check_rejected, label_as_text, unreadable
    from ftlib.data.originals import with_given
    from ftlib.data.sources.base import UNREADABLE

    repaired, counts = _repair(table, problem.repaired_columns, cleaning)
    repaired = problem.follow(with_given(repaired, table, problem.text_columns))
    labels, complaints = _read_labels(repaired, problem)
    rejections = Rejections(len(table))
    rejections.add(unreadable(table))
    for column in problem.text_columns:
        rejections.add(_text_reasons(repaired[column], column, cleaning.min_characters))
    for column in problem.other_columns:
        rejections.add(_missing(repaired[column], column))
    rejections.add(problem.check_inputs(repaired.select(list(problem.input_columns))))
    rejections.add(complaints)
    repaired = _replace(repaired, problem.label_column, labels)
    _reject_equal_rows(repaired, problem, cleaning, rejections)

    reasons = rejections.reasons()
    plain = [name for name in table.column_names if name != UNREADABLE]
    kept = repaired.select(plain).filter(reasons.is_null())
    came = label_as_text(table, problem.label_column).append_column("reason", reasons)
    rejected = came.filter(reasons.is_valid()).select([*plain, "reason"])
    summary = {
        "read": len(table),
        "kept": len(kept),
        "repaired": counts,
        "rejected": rejections.counts(),
        "by_split": _by_split(table, kept),
    }
    check_rejected(summary, rejected, cleaning.max_rejected_ratio)
    return Cleaned(kept, rejected, summary)


def _read_labels(table: pa.Table, problem: Problem) -> tuple[pa.Array, pa.Array]:
    """Return canonical labels and complaints; rows that are to have no label have none, and no complaint."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ftlib.data.collect import UNLABELLED

    labels, complaints = problem.read_labels(table)
    without = pc.equal(table["split"], UNLABELLED).combine_chunks()
    if not pc.any(without).as_py():
        return labels, complaints
    return labels, pc.if_else(without, pa.scalar(None, pa.string()), complaints)


def _repair(table: pa.Table, columns: tuple[str, ...], cleaning: Cleaning) -> tuple[pa.Table, dict[str, int]]:
    """Return the table with its texts repaired, and how many rows each kind of repair changed."""
    import numpy as np
    import pyarrow as pa

    from ftlib.data.normalize import REPAIRS, repair

    changed = {kind: np.zeros(len(table), bool) for kind in REPAIRS}
    for name in columns:
        parts = [repair(chunk, cleaning, name) for chunk in table[name].chunks]
        table = _replace(table, name, pa.chunked_array([part.texts for part in parts], pa.string()))
        for kind in REPAIRS:
            masks = [np.asarray(part.changed[kind]) for part in parts]
            changed[kind] |= np.concatenate(masks) if masks else False
    return table, {kind: int(rows.sum()) for kind, rows in changed.items()}


def _replace(table: pa.Table, name: str, column: pa.ChunkedArray | pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _text_reasons(texts: pa.ChunkedArray, column: str, min_characters: int) -> pa.ChunkedArray:
    """Return why a text cannot be used, null where it can: missing, nothing but white space, or short."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ftlib.targets.reading import reason

    length = pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    short = reason(pc.less(length, min_characters), f"short {column}: fewer than {min_characters} characters")
    return pc.if_else(pc.equal(length, 0), pa.scalar(f"empty {column}"), short)


def _missing(values: pa.ChunkedArray, column: str) -> pa.Array:
    import pyarrow.compute as pc

    from ftlib.targets.reading import reason

    return reason(pc.is_null(values).combine_chunks(), f"empty {column}")


def _reject_equal_rows(table: pa.Table, problem: Problem, cleaning: Cleaning, rejections: Any) -> None:
    """Find duplicates and conflicts among the rows not rejected so far."""
    import numpy as np

    from ftlib.data._rows import codes, combined, first_of_each

    rows = np.flatnonzero(rejections.open())
    if not len(rows):
        return
    fine = table.take(rows)
    inputs = combined([codes(fine["split"]), *(codes(fine[name]) for name in problem.input_columns)])
    answers = combined([inputs, codes(fine[problem.label_column])])
    conflicting = np.zeros(len(rows), bool)
    if problem.target.contradicts and cleaning.conflicting_labels != "keep":
        conflicting = _conflicting(inputs, answers, majority=cleaning.conflicting_labels == "majority")
    first = first_of_each(answers)
    if cleaning.drop_duplicates:
        repeated = first != np.arange(len(rows))
        rejections.add_rows(rows[repeated], _duplicate_of(fine, first[repeated]))
        conflicting &= ~repeated
    rejections.add_rows(rows[conflicting], _conflict_reasons(fine, inputs, conflicting, problem.label_column))


def _conflicting(inputs: np.ndarray, answers: np.ndarray, *, majority: bool) -> np.ndarray:
    """Return which rows to reject because rows with equal inputs have other labels.

    Args:
        inputs: A number for each row's inputs, shape (num_rows,).
        answers: A number for each row's inputs and label together.
        majority: Whether the label that more than half of an input's rows have is kept.
    """
    import numpy as np

    num_rows, num_same = np.bincount(inputs)[inputs], np.bincount(answers)[answers]
    return (num_same < num_rows) & ~(majority & (2 * num_same > num_rows))


def _duplicate_of(table: pa.Table, first: np.ndarray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pc.cast(table["row_id"].take(pa.array(first)), pa.string())
    return pc.binary_join_element_wise(f"{DUPLICATE} of row ", ids, "")


def _conflict_reasons(table: pa.Table, inputs: np.ndarray, conflicting: np.ndarray, label_column: str) -> pa.Array:
    """Return a reason for each conflicting row, naming the labels that its input has."""
    import numpy as np
    import pyarrow as pa

    involved = np.isin(inputs, inputs[conflicting])
    names: dict[int, set[str]] = {}
    shown = table[label_column].filter(pa.array(involved)).to_pylist()
    for key, label in zip(inputs[involved].tolist(), shown, strict=True):
        names.setdefault(key, set()).add("+".join(label) or "none" if isinstance(label, list) else str(label))
    texts = {key: f"{CONFLICT} {', '.join(map(repr, sorted(found)[:6]))}" for key, found in names.items()}
    return pa.array([texts[key] for key in inputs[conflicting].tolist()], pa.string())


def _by_split(read: pa.Table, kept: pa.Table) -> dict[str, dict[str, int]]:
    counts = {item["values"]: item["counts"] for item in kept["split"].value_counts().to_pylist()}
    return {
        item["values"]: {"read": item["counts"], "kept": counts.get(item["values"], 0)}
        for item in read["split"].value_counts().to_pylist()
    }
