"""Tasks: what is learned, and from which rows. An experiment has one of its own, and may have others beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ftlib.data.clean import Cleaning
from ftlib.data.sources.base import Source
from ftlib.data.split import Splitting
from ftlib.errors import unknown
from ftlib.evaluation.slices import COLUMN
from ftlib.plugins import Section
from ftlib.problems.base import Problem

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Split = Literal["train", "validation", "fusion", "test", "all", "unlabelled"]


class Data(Section):
    """Where the rows come from."""

    sources: dict[Split, Source]
    """A source for each split that is given, or one under "all", to be split; under "unlabelled" rows whose labels,
    if there are any, are not read: for stages that learn from a teacher."""

    columns: dict[str, str | int | Annotated[list[str | int], Field(min_length=1)]] = {}
    """The problem's column -> the source's column, by name, or by position (from 0) in files without header; a list
    of them where several columns make one of lists, as choices are."""

    folder: str | None = None
    """Where paths to files in the rows (images) start; each source's own folder unless given."""


class Task(Section):
    """Something else that stages learn, beside the experiment's own problem: other rows, other answers."""

    name: Name
    """What stages call it."""

    problem: Problem
    """What is learned."""

    data: Data
    """Where its rows come from."""

    cleaning: Cleaning = Cleaning()
    """What is repaired and rejected."""

    splitting: Splitting = Splitting()
    """How rows are divided."""

    def source_columns(self, slices: Sequence[str] = ()) -> dict[str, str | tuple[str, ...]]:
        """Return the column to read for each of the problem's columns, for slices, and for the group."""
        names = [*self.problem.input_columns, self.problem.label_column]
        given = {name: self.data.columns.get(name, name) for name in names}
        columns = {n: tuple(map(str, c)) if isinstance(c, (list, tuple)) else str(c) for n, c in given.items()}
        columns |= {f"{COLUMN}{name}": name for name in slices}
        group = self.splitting.group_column
        return {**columns, "group": group} if group else columns

    def unlabelled_columns(self) -> tuple[str, ...]:
        """Return the columns that rows without labels have."""
        group = ("group",) if self.splitting.group_column else ()
        return (*self.problem.input_columns, *group)

    def has_fusion_split(self) -> bool:
        """Return whether there are rows that no member is trained or chosen on, for fusions to learn from."""
        return self.splitting.fusion_ratio > 0 or "fusion" in self.data.sources

    # -- what no single section can check ----------------------------------------------------------

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong between its sections: where, and what to do."""
        given = set(self.data.sources)
        if "all" in given and len(given - {"unlabelled"}) > 1:
            yield "data.sources", "'all' is one source to be split; give it alone, or one source a split."
        if not given & {"all", "train"}:
            yield "data.sources", "needs 'train' (validation and test are taken from it where missing), or 'all'."
        for split, source in self.data.sources.items():
            if source.example_path and not source.path:
                written = f"{{name: {source.name}, path: {source.example_path}}}"
                yield f"data.sources.{split}", f"{source.name} needs a path; write {written}."
        yield from self._label_among_texts()
        yield from self._too_large_shares(given)
        known = list(dict.fromkeys((*self.problem.input_columns, self.problem.label_column)))
        for column in self.data.columns:
            if column not in known:
                remedy = f"{self.problem.name} reads {', '.join(known)}."
                yield f"data.columns.{column}", unknown("column", column, known, remedy=remedy)

    def _too_large_shares(self, given: set[Split]) -> Iterator[tuple[str, str]]:
        ratios = self.splitting.ratios()
        shares = {name: ratio for name, ratio in ratios.items() if name not in given}
        if sum(shares.values()) >= 1:
            listed = ", ".join(f"{name}_ratio {ratio:g}" for name, ratio in shares.items() if ratio)
            yield "splitting", f"{listed} leave nothing to train on; their sum must be below 1."

    def _label_among_texts(self) -> Iterator[tuple[str, str]]:
        label = self.data.columns.get(self.problem.label_column, self.problem.label_column)
        for name in self.problem.text_columns:
            if name != self.problem.label_column and self.data.columns.get(name, name) == label:
                line = f"{label!r} is read as the {name} too; the answer would stand in the input. Name another column."
                yield f"data.columns.{self.problem.label_column}", line
