"""`ftlib tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.arguments import Overrides, Params, write_json


def tune(
    params: Params,
    overrides: Overrides = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", min=1, help="How many trials in all; else tuning.num_trials."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Trials side by side, a process each.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where the best params go; else below .ftlib/tuning.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all trials to a JSON file.", show_default=False),
    ] = None,
) -> None:
    """Search the values that a params file's tuning section names, by their scores on validation.

    Shows each trial, computes steps that trials share once, and writes the best as a new params file, whose path is
    the last line. Stopped or killed, the same command goes on where it was.
    """
    from ftlib import state
    from ftlib.params.loading import check_inputs, read_params, validated

    state.prepare_environment()
    document = read_params(params, overrides or ())
    experiment = validated(document)
    check_inputs(experiment)
    _check_output(output, params)

    from flows.tuning import display, search

    plan = search.Plan(document, experiment, trials)
    with display.Display([d.path for d in plan.search.space], plan.search.num_trials) as shown:
        summary = search.run(
            plan,
            shown,
            source=params,
            overrides=overrides or (),
            output=output or plan.folder / "best.yaml",
            num_jobs=jobs,
        )
    if json_file is not None:
        write_json(json_file, summary)
    _show(summary)


def _show(summary: dict[str, Any]) -> None:
    from flows.show import console
    from flows.tuning import display

    out = console()
    out.print()
    out.print(display.leaderboard(summary))
    out.print()
    for note in display.notes(summary):
        out.print(note, soft_wrap=True)
    typer.echo(summary["params"])


def _check_output(output: Path | None, params: Path) -> None:
    """Refuse, before any work, a place where the best params cannot go."""
    from ftlib.errors import ParamsError

    if output is None:
        return
    if output.exists() and output.samefile(params):
        raise ParamsError(f"--output {output}: is the params file that is searched; choose another name.")
    folder = next((parent for parent in output.absolute().parents if parent.exists()), None)
    if output.is_dir() or folder is None or not os.access(folder, os.W_OK):
        raise ParamsError(f"--output {output}: cannot be written there; give a file's path in a folder of yours.")
