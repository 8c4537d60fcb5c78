"""Serving: raw row in, answer out, by the same normalise, encode and decode as training.

    served = load(resolve("models:/support@champion"))
    served.predict(["I was charged twice."])

`load` opens what `ftlib.packing` wrote, or one stage's checkpoint alone. A row that cannot be answered gets an
empty prediction and a reason; it never stops the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ftlib.data.clean import Cleaning
from ftlib.data.contents import packed, read_contents
from ftlib.data.originals import with_given
from ftlib.errors import CheckpointError, DataError, ParamsError, unknown
from ftlib.files import read_json
from ftlib.problems.base import Problem
from ftlib.serving.finding import MODEL, SETTINGS, cleaning_of, no_model

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from ftlib.fusion.base import Combiner, Fusion
    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision

    Rows: TypeAlias = pd.DataFrame | pa.Table | Sequence[Mapping[str, Any]] | Sequence[str]

MISSING = ("nan", "<NA>", "NaT")
"""How values that stand for nothing are written; text that reads so is text."""


@dataclass(frozen=True)
class Member:
    """One model of a served model.

    Attributes:
        name: The stage's name.
        position: Its place among the members that the fusion was fitted on.
        checkpoint: The model and its tokenizer.
        tokenizer: Its tokenizer's digest; members with equal ones read the same encoding.
    """

    name: str
    position: int
    checkpoint: Checkpoint
    tokenizer: str


@dataclass(frozen=True)
class Served:
    """A model that is ready to answer.

    Attributes:
        name: The member or fusion that it is.
        problem: What it answers, with its labels.
        cleaning: How rows are repaired first.
        members: What runs.
        combiner: How their scores are fused; None for a single member.
        num_members: How many members the fusion was fitted on; those that it does not read are not here.
        ensemble: The same members as one model, where the fusion has them answer together.
    """

    name: str
    problem: Problem
    cleaning: Cleaning
    members: tuple[Member, ...]
    combiner: Combiner | None
    num_members: int
    ensemble: Ensemble | None = None

    def predict(self, rows: Rows, *, precision: Precision = "float32", name: str = "predict") -> pd.DataFrame:
        """Return one answer a row, in the rows' order and, for a DataFrame, with its index.

        Columns: prediction (label; list of labels; number), confidence (the probability of the answer; of several
        labels, of the least sure decision), score:<label> a label, and reason, which says why a row has no
        prediction. Numbers have no confidence and no labels.

        Args:
            rows: The problem's text columns; other columns are not read. A list of texts, where there is one column.
            precision: float32 gives the figures of the evaluation; auto may be faster.
            name: What progress is told under.

        Raises:
            DataError: If a column is missing; with the near names.
        """
        scored = self.score(rows, precision=precision, name=name)
        return _frame(self.problem, scored)

    def alone(self, name: str) -> Served:
        """Return one of the members as a model of its own.

        Raises:
            ParamsError: If there is no such member.
        """
        member = next((m for m in self.members if m.name == name), None)
        if member is None:
            raise ParamsError(unknown("member", name, [m.name for m in self.members]))
        return replace(self, name=name, members=(member,), combiner=None, num_members=1, ensemble=None)

    def score(self, rows: Rows, *, precision: Precision = "float32", name: str = "predict") -> Scored:
        """Return the fused scores of the rows that can be answered: see `predict`."""
        given, index = _table(rows, self.problem)
        repaired, reasons = self._repair(given)
        fine = reasons.is_null().to_numpy(zero_copy_only=False)
        scores, layout = self._scores(repaired.filter(fine).combine_chunks(), precision, name)
        return Scored(repaired, reasons, fine, scores, layout, index)

    def _repair(self, table: pa.Table) -> tuple[pa.Table, pa.Array]:
        """Return the rows repaired, and why some cannot be answered (null: they can)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from ftlib.data.normalize import normalize

        none = pa.scalar(None, pa.string())
        reasons = pa.nulls(len(table), pa.string())
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        for column in self.problem.text_columns:
            texts = normalize(table[column], self.cleaning)
            empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).fill_null(False)
            found = pc.if_else(empty, f"empty {column}", none)
            found = pc.if_else(pc.is_null(texts), f"missing {column}", found)
            reasons = pc.coalesce(reasons, found)
            columns[column] = texts
        for column in self.problem.file_columns:
            found = read_contents(columns[column], column, Path())
            columns[column], reasons = found.values, pc.coalesce(reasons, found.reasons)
        for column in self.problem.other_columns:
            reasons = pc.coalesce(reasons, pc.if_else(pc.is_null(columns[column]), f"missing {column}", none))
        repaired = self.problem.follow(with_given(pa.table(columns), table, self.problem.text_columns))
        fine = reasons.is_null()
        unusable = pc.replace_with_mask(reasons, fine, self.problem.check_inputs(repaired.filter(fine)))
        return repaired, unusable

    def _scores(self, rows: pa.Table, precision: Precision, name: str) -> tuple[np.ndarray, Layout | None]:
        """Return the fused scores, shape (num_units, num_outputs), and the rows' units."""
        import numpy as np

        from ftlib.prediction import predict_jointly

        problem = self.problem
        if not len(rows):
            return np.empty((0, problem.target.num_outputs)), None
        encoded: dict[str, pa.Table] = {}
        for member in self.members:
            if member.tokenizer not in encoded:
                encoded[member.tokenizer] = _encode(problem, rows, member.checkpoint.tokenizer)
        read = [encoded[member.tokenizer] for member in self.members]
        if self.ensemble:
            together = predict_jointly(self.ensemble, read, problem, precision=precision, name=name).table
            predictions = [together.sort_by("row_id")] * len(read)
        else:
            predictions = [
                _predictions(problem, member.checkpoint, table, precision, name)
                for member, table in zip(self.members, read, strict=True)
            ]
        values, layout = problem.align(predictions, rows)
        if self.combiner is None:
            return values[0], layout
        # A member at weight 0 is not here; valid scores hold its place, whatever the combiner does with them.
        places = {member.position: i for i, member in enumerate(self.members)}
        return self.combiner(values[[places.get(i, 0) for i in range(self.num_members)]], layout), layout


@dataclass(frozen=True, eq=False)
class Scored:
    """What a served model makes of rows.

    Attributes:
        rows: The problem's input columns, repaired, and texts as they came in `given:<column>`.
        reasons: Why a row cannot be answered (string; null: it is).
        is_answered: Which rows are, bool, shape (num_rows,).
        scores: Of these, shape (num_units, num_outputs).
        layout: Their units; None where each row is one.
        index: The rows' index, where they came with one.
    """

    rows: pa.Table
    reasons: pa.Array
    is_answered: np.ndarray
    scores: np.ndarray
    layout: Layout | None
    index: pd.Index | None


def load(folder: Path) -> Served:
    """Open a packed model, or one stage's checkpoint.

    Args:
        folder: As `ftlib.serving.finding.resolve` gives it.

    Raises:
        CheckpointError: If it holds neither, or what a newer ftlib packed.
    """
    folder = Path(folder)
    if (folder / MODEL).is_file():
        return _load_packed(folder)
    if (folder / SETTINGS).is_file():
        return _load_checkpoint(folder)
    raise CheckpointError(no_model(folder))


def _load_packed(folder: Path) -> Served:
    from ftlib.fusion.base import Fusion
    from ftlib.serving.packing import FORMAT

    about = read_json(folder / MODEL)
    if about["format"] > FORMAT:
        raise CheckpointError(f"{folder}: was packed by ftlib {about['ftlib']}; install that version or a newer one.")
    problem = Problem.model_validate(about["problem"])
    members = [open_member(folder / "members" / m["name"], m["name"], m["position"], problem) for m in about["members"]]
    combiner = ensemble = None
    if about["fusion"]:
        fusion = Fusion.model_validate(about["fusion"])
        combiner = type(fusion).load(folder / "combiner")
        ensemble = ensemble_of(members, fusion, about["num_members"])
    cleaning = Cleaning.model_validate(about["cleaning"])
    return Served(about["name"], problem, cleaning, tuple(members), combiner, about["num_members"], ensemble)


def _load_checkpoint(folder: Path) -> Served:
    settings = read_json(folder / SETTINGS)
    if "problem" not in settings:
        raise CheckpointError(f"{folder}: {SETTINGS} does not say what problem was learned; give a trained stage.")
    problem = Problem.model_validate(settings["problem"])
    return Served(
        folder.name[:12], problem, cleaning_of(folder), (open_member(folder, folder.name, 0, problem),), None, 1
    )


def open_member(folder: Path, name: str, position: int, problem: Problem) -> Member:
    """Open a checkpoint as the member of that name, at its place among those that a fusion was fitted on."""
    from ftlib.models import checkpoints

    checkpoint = checkpoints.load(folder, problem)
    return Member(name, position, checkpoint, _tokenizer_digest(checkpoint.tokenizer))


def ensemble_of(members: Sequence[Member], fusion: Fusion, num_members: int) -> Ensemble | None:
    """Return members as one model, where their fusion has them answer together; else None.

    Args:
        members: Those that the fusion reads.
        fusion: How they are fused.
        num_members: How many it was fitted on.
    """
    from ftlib.models.ensembles import Ensemble

    joint = fusion.joint(num_members)
    return Ensemble.of({member.name: member.checkpoint for member in members}, joint) if joint else None


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return str(id(tokenizer))
    images = getattr(tokenizer, "image_processor", None)
    settings: tuple[Any, ...] = (tokenizer.model_max_length, tokenizer.model_input_names, tokenizer.padding_side)
    settings = (*settings, images.to_json_string()) if images else settings
    return hashlib.sha256(f"{settings}{backend.to_str()}".encode()).hexdigest()


# -- rows in, answers out ------------------------------------------------------------------------------


def _table(rows: Rows, problem: Problem) -> tuple[pa.Table, pd.Index | None]:
    """Return the input columns of rows in any form, texts as text, and the index to keep."""
    import pandas as pd
    import pyarrow as pa

    columns = problem.input_columns

    def table(values: Callable[[str], Any]) -> pa.Table:
        return pa.table({c: _reader(c, problem)(values(c)) for c in columns})

    if isinstance(rows, pd.DataFrame):
        _check_columns(columns, [str(c) for c in rows.columns])
        return table(lambda c: rows[c].tolist()), rows.index
    if isinstance(rows, pa.Table):
        _check_columns(columns, rows.column_names)
        return table(lambda c: rows[c]), None
    given = list(rows)
    if all(isinstance(row, Mapping) for row in given) and given:
        _check_columns(columns, list(dict.fromkeys(str(key) for row in given for key in row)))
        return table(lambda c: [row.get(c) for row in given]), None
    if len(columns) != 1:
        raise DataError(f"rows need the columns {' and '.join(map(repr, columns))}; a list of texts has only one.")
    return table(lambda c: given), None


def _check_columns(needed: tuple[str, ...], given: list[str]) -> None:
    missing = [unknown("column", column, given, remedy=f"The model reads {', '.join(needed)}.")
               for column in needed if column not in given]  # fmt: skip
    missing += [f"column {column!r} is there twice." for column in needed if given.count(column) > 1]
    if missing:
        raise DataError("\n".join(line.replace("unknown", "missing", 1) for line in missing))


def _reader(column: str, problem: Problem) -> Callable[[Any], pa.Array]:
    if column in problem.file_columns:
        return packed
    return _texts if column in problem.text_columns else _values


def _texts(values: Any) -> pa.Array:
    """Return values as text, numbers as they are written; what is missing, or is no text at all, as null."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        array = values.combine_chunks()
        if not pa.types.is_nested(array.type) and not pa.types.is_binary(array.type):
            return array.cast(pa.string())
        values = array.to_pylist()
    return pa.array([_text(value) for value in values], pa.string())


def _values(values: Any) -> pa.Array:
    """Return values that are no plain text, such as lists of words, as they are; NaN, which stands for none, as null.

    Raises:
        DataError: If no single kind of column holds them all.
    """
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    try:
        return pa.array(
            [None if value is None or (isinstance(value, float) and value != value) else value for value in values]
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise DataError(
            "a column holds values of several kinds, such as lists of words and texts; give all of its rows alike."
        ) from None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value.encode("utf8", "replace").decode("utf8")  # half a surrogate pair is no text
    if value is None or isinstance(value, (list, tuple, dict, set, bytes)):
        return None
    text = str(value)
    return None if text in MISSING else text


def _encode(problem: Problem, rows: pa.Table, tokenizer: Any) -> pa.Table:
    import pyarrow as pa

    encoded = problem.encode(rows, tokenizer)
    if "row" in encoded.column_names:
        return encoded.rename_columns(["row_id" if name == "row" else name for name in encoded.column_names])
    return encoded.append_column("row_id", pa.array(range(len(encoded)), pa.int64()))


def _predictions(problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision, name: str) -> pa.Table:
    from ftlib.prediction import predict

    return predict(checkpoint, rows, problem, precision=precision, name=name).table.sort_by("row_id")


def _frame(problem: Problem, scored: Scored) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    fine = scored.is_answered
    told = problem.answers(scored.scores, scored.rows.filter(fine), scored.layout)
    columns = {name: _spread(values, fine) for name, values in told.items()}
    columns["reason"] = np.array(scored.reasons.to_pylist(), dtype=object)
    return pd.DataFrame({k: pd.Series(v, dtype=v.dtype) for k, v in columns.items()}).set_axis(
        scored.index if scored.index is not None else range(len(fine))
    )


def _spread(values: Sequence[Any], fine: np.ndarray) -> np.ndarray:
    """Return a column with the values of the rows that are answered in their places: NaN, or None, in the others."""
    import numpy as np

    numeric = all(isinstance(value, (float, np.floating)) for value in values)
    column = np.full(len(fine), np.nan if numeric else None, dtype=float if numeric else object)
    filled = np.empty(len(values), dtype=column.dtype)
    filled[:] = values
    column[fine] = filled
    return column
