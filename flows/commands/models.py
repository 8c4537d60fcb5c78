"""`ftlib predict`, `evaluate` and `explain`: use a model on rows of a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.arguments import Columns, write_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
        typer.Option(
            "-o",
            "--output",
            metavar="OUTPUT",
            help="A csv, jsonl or parquet file; JSON lines to the terminal unless given.",
            show_default=False,
        ),
    ] = None,
    columns: Columns = None,
) -> None:
    """Predict every row of a file.

    Rows are cleaned as in training. The output holds the input's columns and the model's answers beside them.
    """
    from flows.show import console
    from ftlib import state
    from ftlib.serving import answering
    from ftlib.serving.finding import resolve
    from ftlib.serving.reading import mapping_of, open_source, read_rows
    from ftlib.tables import write_rows, writer_of

    if output is not None:
        writer_of(output)  # refuses an unknown ending before any work
    given = open_source(source)
    state.prepare_environment()
    served = answering.load(resolve(model))
    mapping = mapping_of(columns or (), served.problem.input_columns)
    rows = read_rows(given, mapping, served.problem.file_columns)
    with console(stderr=True).status(f"predicting {rows.own.num_rows:,} rows"):
        answers = served.predict(rows.needed)
        answers["reason"] = [
            why or reason for why, reason in zip(rows.unreadable.to_pylist(), answers["reason"], strict=True)
        ]
    write_rows(_beside(rows.own, answers), output)
    if output is not None:
        typer.echo(_predicted(answers))
        typer.echo(str(output))


def _predicted(answers: pd.DataFrame) -> str:
    """Return how many rows have an answer, and why the others have none."""
    without = answers["reason"].dropna().value_counts()
    line = f"{len(answers) - int(without.sum()):,} rows predicted."
    if without.empty:
        return line
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in without.items())
    return f"{line} {int(without.sum()):,} without a prediction: {reasons}; column `reason` says so."


def _beside(rows: pa.Table, answers: pd.DataFrame) -> pa.Table:
    """Return the rows with the answers' columns; an input column of the same name gives way."""
    import pyarrow as pa

    told = answers if answers["reason"].notna().any() else answers.drop(columns="reason")
    kept = rows.drop_columns([name for name in rows.column_names if name in told.columns])
    for name in told.columns:
        kept = kept.append_column(name, pa.Array.from_pandas(told[name]))
    return kept


def evaluate(
    model: Model,
    source: Input,
    columns: Columns = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the metrics to a JSON file.", show_default=False),
    ] = None,
) -> None:
    """Measure a model on labelled rows, with intervals."""
    from flows import show
    from ftlib import state
    from ftlib.evaluation.measuring import measure_model
    from ftlib.serving import answering
    from ftlib.serving.finding import resolve
    from ftlib.serving.reading import mapping_of, open_source, read_rows

    given = open_source(source)
    state.prepare_environment()
    served = answering.load(resolve(model))
    problem = served.problem
    mapping = mapping_of(columns or (), (*problem.input_columns, problem.label_column))
    rows = read_rows(given, mapping, problem.file_columns)
    with show.console(stderr=True).status(f"measuring on {rows.own.num_rows:,} rows"):
        measured = measure_model(served, rows)
    out = show.console()
    out.print(show.metrics(measured.metrics, measured.intervals))
    out.print(f"\n{served.name} on {measured.num_rows:,} rows of {source}; 95 % bootstrap intervals.", soft_wrap=True)
    if measured.rejected:
        out.print(show.rejected({"rejected": measured.rejected}), soft_wrap=True)
    if json_file is not None:
        write_json(json_file, {"model": model, "input": source, **asdict(measured)})


def explain(
    model: Model,
    source: Input,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUTPUT",
            help="An html or jsonl file; coloured words in the terminal unless given.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, help="Explain the first N rows.")] = 20,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="NAME", help="Explain this label's score instead of the answer's.", show_default=False
        ),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", help="Explain one member of a fusion.", show_default=False),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="integrated_gradients, or input_x_gradient: quick.")
    ] = "integrated_gradients",
    columns: Columns = None,
) -> None:
    """Show which words of a text an answer rests on."""
    from flows import explained
    from flows.show import console
    from ftlib import state
    from ftlib.errors import ParamsError, unknown
    from ftlib.explaining.attribution import METHODS
    from ftlib.explaining.explain import explain as explain_rows
    from ftlib.serving import answering
    from ftlib.serving.finding import resolve
    from ftlib.serving.reading import mapping_of, open_source, read_rows

    explained.check_output(output)
    if method not in METHODS:
        raise ParamsError(f"--method: {unknown('method', method, METHODS)}")
    given = open_source(source)
    state.prepare_environment()
    served = answering.load(resolve(model))
    if member is not None:
        served = served.alone(member)
    mapping = mapping_of(columns or (), served.problem.input_columns)
    read = read_rows(given, mapping, served.problem.file_columns)
    with console(stderr=True).status(f"explaining {min(rows, read.own.num_rows):,} rows"):
        found = explain_rows(served, read.needed.slice(0, rows), method=method, label=label)
    if output is not None:
        explained.write(output, served.name, found)
    else:
        for one in found:
            for line in explained.shown(one):
                console().print(line, soft_wrap=True)
    typer.echo(_explained(len({one.row for one in found}), read.own.num_rows))
    if output is not None:
        typer.echo(str(output))


def _explained(number: int, num_rows: int) -> str:
    """Return how many rows were explained, of how many."""
    return f"{number:,} of {num_rows:,} rows explained." + (" --rows N asks for more." if number < num_rows else "")
