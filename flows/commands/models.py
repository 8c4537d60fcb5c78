"""`ftlib predict` and `evaluate`: use a model on rows of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.arguments import Columns

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.data.sources.base import Source

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A registered model ([cyan]models:/name@champion[/]), a run's model folder, or a stage's checkpoint.",
        show_default=False,
    ),
]
Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="Rows: a csv, tsv, jsonl, json or parquet file.", show_default=False)
]


def predict(
    model: Model,
    source: Input,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUTPUT", help="A csv, jsonl or parquet file; JSON lines to the terminal unless given.", show_default=False),
    ] = None,
    columns: Columns = None,
) -> None:
    """Predict every row of a file, with the same cleaning as in training.

    The output holds the input's columns and the model's answers beside them.
    """
    from flows.show import console
    from ftlib import serving, state
    from ftlib.tables import write_rows, writer_of

    if output is not None:
        writer_of(output)  # refuses an unknown ending before any work
    state.prepare_environment()
    served = serving.load(serving.resolve(model))
    rows = _read(source, served.problem.text_columns, columns)
    with console(stderr=True).status(f"predicting {rows.num_rows:,} rows"):
        answers = served.predict(rows.select(list(served.problem.text_columns)))
    write_rows(_beside(rows, answers), output)
    if output is not None:
        typer.echo(f"{rows.num_rows:,} rows predicted.\n{output}")


def _read(path: str, needed: Sequence[str], columns: Sequence[str] | None) -> pa.Table:
    """Read every column of a file, those that the model needs under the model's names."""
    source = _source(path)
    mapping = _mapping(columns, needed)
    own = source.columns()
    others = {name: name for name in own if name not in mapping.values() and name not in mapping}
    return source.read({**mapping, **others})


def _source(path: str) -> Source:
    from pydantic import TypeAdapter, ValidationError

    from ftlib.data.sources.base import Source
    from ftlib.errors import DataError

    try:
        return TypeAdapter(Source).validate_python(path)
    except ValidationError as error:
        raise DataError(error.errors()[0]["msg"]) from None


def _mapping(columns: Sequence[str] | None, needed: Sequence[str]) -> dict[str, str]:
    """Return the model's column -> the file's column."""
    from ftlib.errors import ParamsError, unknown

    mapping = {name: name for name in needed}
    for pair in columns or ():
        name, equals, given = pair.partition("=")
        if not equals or not given:
            raise ParamsError(f"--columns {pair}: expected COLUMN=SOURCE, such as --columns {needed[0]}=message.")
        if name not in mapping:
            raise ParamsError(f"--columns {pair}: {unknown('column of the model', name, needed)}")
        mapping[name] = given
    return mapping


def _beside(rows: pa.Table, answers: pa.Table) -> pa.Table:
    """Return the rows with the answers' columns; an input column of the same name gives way."""
    kept = rows.drop_columns([name for name in rows.column_names if name in answers.column_names])
    for name in answers.column_names:
        kept = kept.append_column(name, answers[name])
    return kept


def evaluate(
    model: Model,
    source: Input,
    columns: Columns = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the metrics to a JSON file.", show_default=False)
    ] = None,
) -> None:
    """Measure a model on labelled rows: every metric, with its bootstrap interval."""
    raise NotImplementedError


def _evaluated(measured: Mapping[str, Any]) -> None:
    raise NotImplementedError
