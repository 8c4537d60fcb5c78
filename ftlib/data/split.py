"""Splitting: stratified, grouped or as given, with exact leakage across splits found and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.data.collect import UNLABELLED
from ftlib.errors import DataError
from ftlib.plugins import Section

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.data._allocate import Allocation
    from ftlib.problems.base import Problem

ORDER = ("train", "validation", "fusion", "test", UNLABELLED)


class Splitting(Section):
    """How rows that have no split yet are divided. Splits that came with the data stay as they are.

    Missing splits are taken from train (or from all rows, where the data came as one file).
    """

    validation_ratio: float = Field(0.1, gt=0, lt=1)
    """Share taken for validation (early stopping and choice) where none is given."""

    test_ratio: float = Field(0.15, gt=0, lt=1)
    """Share taken for test where none is given."""

    fusion_ratio: float = Field(0.0, ge=0, lt=1)
    """Share held out to fit fusions on; 0 cross-fits them on validation instead."""

    stratify: bool = True
    """Keep the label shares alike in every split (by quantile bins for regression)."""

    group_column: str | None = None
    """A column of the source whose equal values never land in different splits (author, document...). A row
    without a value is a group of its own."""

    def ratios(self) -> dict[str, float]:
        """Return the share of each split that is taken out of train where it is not given."""
        return {"test": self.test_ratio, "validation": self.validation_ratio, "fusion": self.fusion_ratio}


@dataclass(frozen=True)
class Splits:
    """What splitting gave.

    Attributes:
        tables: Split -> its rows in the order of row_id, without the column `split`.
        rejected: Rows taken out because their input or their group is in a stricter split too, with `reason`.
        problem: The problem with its label names filled in.
        summary: {"rows": {split: count}, "labels": {split: {label: count}}, "leaks": {"train in test": count},
            "stratified": whether rows were divided by label, "only_in_train": {label: rows of it, where a carved
            split has none}}; for numbers also "values": {split: {"min", "mean", "max"}}.
    """

    tables: dict[str, pa.Table]
    rejected: pa.Table
    problem: Problem
    summary: dict[str, Any]


def split(table: pa.Table, problem: Problem, splitting: Splitting, *, seed: int) -> Splits:
    """Divide cleaned rows into train, validation, test and perhaps fusion.

    Given splits stay. A row of train whose input, or group, is in a given validation or test split is taken out
    (one of validation, where test has it too). What is missing is then carved out of train, equal inputs and
    groups staying whole.

    Args:
        table: What cleaning kept: row_id, split ("all" or the given ones), texts, label, perhaps group.
        problem: Its labels, where it names any, are kept in their order.
        splitting: Shares, stratification and groups.
        seed: Rows are drawn by it.

    Raises:
        DataError: If rows, labels or groups do not suffice, or a label is in test that train lacks.
    """
    import numpy as np

    from ftlib.data._leaks import Leaks

    table = table.sort_by("row_id")
    names = np.asarray(table["split"].to_numpy(zero_copy_only=False), dtype=object)
    names[names == "all"] = "train"
    _check_groups(table, splitting)
    grouped = splitting.group_column is not None
    shares = _shares(names, splitting)
    leaks = Leaks(table, problem)
    leaks.find(names)
    _check_left(names, leaks.fine, grouped=grouped)
    rows = np.flatnonzero(leaks.fine & (names == "train"))
    carved = _carve(table.take(rows), problem, splitting, shares, seed)
    names[rows] = carved.names
    leaks.find(names)  # groups may share an input
    _check_carved(names, carved.carved, splitting)
    _check_left(names, leaks.fine, grouped=grouped)
    tables = {n: table.filter(leaks.fine & (names == n)).drop_columns(["split"]) for n in ORDER if n in names}
    problem = _bind(problem, tables, carved)
    return Splits(tables, leaks.rejected(names), problem, _summary(tables, problem, leaks.counts, carved))


def _shares(names: np.ndarray, splitting: Splitting) -> dict[str, float]:
    """Return the splits to carve out of train, with their shares."""
    shares = {name: ratio for name, ratio in splitting.ratios().items() if ratio > 0 and name not in names}
    if sum(shares.values()) >= 1:
        listed = ", ".join(f"{name}_ratio {ratio:g}" for name, ratio in shares.items())
        raise DataError(f"splitting: {listed} leave nothing to train on; their sum must be below 1.")
    return shares


def _carve(table: pa.Table, problem: Problem, splitting: Splitting, shares: dict[str, float], seed: int) -> Allocation:
    from ftlib.data._allocate import allocate
    from ftlib.data._rows import group_codes, input_codes
    from ftlib.data._strata import Strata

    column = splitting.group_column
    units = group_codes(table) if column else input_codes(table, problem.input_columns)
    num_units = int(units.max(initial=-1)) + 1
    needed = ["train", *shares]
    if num_units < len(needed):
        what = f"different values in splitting.group_column {column!r}" if column else "different inputs"
        raise DataError(
            f"too few {what} to be divided into {', '.join(needed)}: {num_units:,} in {len(table):,} rows; "
            "give more rows, or each split as a file of its own."
        )
    smallest = min(shares.values(), default=1.0)
    by = problem.target.strata_column(table[problem.label_column]) if splitting.stratify else None
    strata = None if by is None else Strata.of(by, smallest)
    return allocate(units, strata, shares, grouped=column is not None, seed=seed)


def _check_groups(table: pa.Table, splitting: Splitting) -> None:
    if not splitting.group_column:
        return
    if "group" not in table.column_names:
        raise DataError(f"splitting.group_column {splitting.group_column!r}: the rows were collected without it.")
    if table["group"].null_count == len(table):
        raise DataError(f"splitting.group_column {splitting.group_column!r} is empty in every row; name another.")


def _check_carved(names: np.ndarray, carved: tuple[str, ...], splitting: Splitting) -> None:
    """Refuse rows of which a split that was to be carved got none."""
    empty = [name for name in carved if not (names == name).any()]
    if not empty:
        return
    name, files = empty[0], f"data.sources.{empty[0]}"
    if splitting.group_column:
        raise DataError(
            f"split {name!r} would be empty: the groups are too large to take its share out of train; use a finer "
            f"splitting.group_column, or give {files}."
        )
    divided = sum(int((names == split).sum()) for split in ("train", *carved))
    stays = ", where one row of every label stays" if splitting.stratify else ""
    raise DataError(
        f"split {name!r} would be empty: {divided:,} rows are too few to take its share out of train{stays}; "
        f"give more rows, or {files}."
    )


def _check_left(names: np.ndarray, fine: np.ndarray, *, grouped: bool) -> None:
    for name in ORDER:
        there = names == name
        if there.any() and not (there & fine).any():
            what = "an input or a group" if grouped else "an input"
            raise DataError(
                f"split {name!r} is empty: each of its {there.sum():,} rows has {what} that another split has too. "
                f"Is data.sources.{name} the same file as another?"
            )
    if not (names == "train").any():
        raise DataError("split 'train' is empty; give data.sources.train or data.sources.all.")


def _bind(problem: Problem, tables: dict[str, pa.Table], carved: Allocation) -> Problem:
    """Return the problem with the labels of train, after checking that no other split has more."""
    target, column = problem.target, problem.label_column
    if target.kind == "value":
        _check_values(tables["train"][column], column)
    if not target.has_labels:
        return problem
    learned = target.learn(tables["train"][column])
    if len(learned) < (2 if target.kind == "single_label" else 1):
        found = f"has only the label {learned[0]!r}" if learned else "has no label at all"
        raise DataError(f"train {found}: there is nothing to learn. Check data.columns.{column} and the file.")
    for name, table in _labelled(tables).items():
        unseen = [label for label in target.learn(table[column]) if label not in learned]
        if unseen:
            raise DataError(
                f"{name} has {'a label' if len(unseen) == 1 else 'labels'} that no row of train has: "
                f"{', '.join(map(repr, unseen[:6]))}{', ...' if len(unseen) > 6 else ''}. "
                f"{_unseen_remedy(name, carved)}"
            )
    return problem.bind(learned)


def _labelled(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: table for name, table in tables.items() if name != UNLABELLED}


def _unseen_remedy(name: str, carved: Allocation) -> str:
    if name in carved.carved and not carved.stratified:
        return "Rows were drawn without a look at labels; set splitting.stratify: true, or give more rows of them."
    return "Add such rows to train, or remove them."


def _check_values(values: pa.ChunkedArray, column: str) -> None:
    import pyarrow.compute as pc

    ends = pc.min_max(values).as_py()
    if ends["min"] == ends["max"]:
        raise DataError(f"every row of train has the value {ends['min']:g}: there is nothing to learn. "
                        f"Check data.columns.{column}.")  # fmt: skip


def _summary(
    tables: dict[str, pa.Table], problem: Problem, leaks: dict[str, int], carved: Allocation
) -> dict[str, Any]:
    column = problem.label_column
    summary = {"rows": {name: len(table) for name, table in tables.items()}, "leaks": leaks}
    tables = _labelled(tables)
    if problem.target.kind == "value":
        values = {name: _ends(table[column]) for name, table in tables.items()}
        return {**summary, "labels": {}, "values": values, "stratified": carved.stratified, "only_in_train": {}}
    if not problem.target.has_labels:
        return {**summary, "labels": {}, "stratified": carved.stratified, "only_in_train": {}}
    labels = {name: _label_counts(table[column], problem.target.labels) for name, table in tables.items()}
    rare = {
        label: count
        for label, count in labels["train"].items()
        if carved.stratified and count and any(not labels[name][label] for name in carved.carved)
    }
    return {**summary, "labels": labels, "stratified": carved.stratified, "only_in_train": rare}


def _label_counts(column: pa.ChunkedArray, labels: tuple[str, ...]) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    found = {item["values"]: item["counts"] for item in values.value_counts().to_pylist()}
    return {label: found.get(label, 0) for label in labels}


def _ends(values: pa.ChunkedArray) -> dict[str, float]:
    import pyarrow.compute as pc

    return {"min": pc.min(values).as_py(), "mean": pc.mean(values).as_py(), "max": pc.max(values).as_py()}
