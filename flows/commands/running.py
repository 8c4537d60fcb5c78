"""`ftlib run`, `check` and `plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.arguments import Overrides, Params, write_json

if TYPE_CHECKING:
    from ftlib.params.experiment import Experiment
    from ftlib.planning import PlannedStep


def run(
    params: Params,
    overrides: Overrides = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the summary to a JSON file.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Record a flow run even where every step is done already.")
    ] = False,
) -> None:
    """Run an experiment: raw rows in, a fused and registered model out.

    Computes what no earlier run has computed, shows how far it is, and prints the leaderboard; the last line
    is the path of the report. Where everything is done already, it says so at once.
    """
    from ftlib import state

    state.prepare_environment()
    experiment = _checked(params, overrides)
    summary = None if force else _finished(experiment)
    if summary is None:
        summary = _run(experiment, params, overrides)
    if json_file is not None:
        write_json(json_file, summary)
    _show(summary)


def check(params: Params, overrides: Overrides = None) -> None:
    """Check a params file, its data files and its base model.

    All problems are told at once, each with its line and what to do.
    """
    from flows.show import console

    experiment = _checked(params, overrides)
    stages = ", ".join(f"{s.name} ({s.strategy.name})" for s in experiment.stages)
    fusions = ", ".join(f.name for f in experiment.fusions) or "none but the greedy baseline"
    out = console()
    out.print(f"[green]✓[/] {params}: experiment [bold]{experiment.name}[/] is fine.", soft_wrap=True)
    out.print(f"  {experiment.problem.name} on {experiment.base_model}", soft_wrap=True)
    if experiment.choice:
        for name, reason in experiment.choice.left_out(experiment.problem).items():
            out.print(f"  leaves out {name}: {reason}", soft_wrap=True)
    out.print(f"  stages: {stages}", soft_wrap=True)
    out.print(f"  fusions: {fusions}", soft_wrap=True)


def plan(params: Params, overrides: Overrides = None) -> None:
    """Show what is done, what a run would compute, and why."""
    from flows.show import console, plan_table

    experiment = _checked(params, overrides)
    planned = _planned(experiment)
    open_steps = [p for p in planned if p.state != "done"]
    out = console()
    out.print(plan_table(planned))
    if open_steps:
        out.print(
            f"\n{len(planned) - len(open_steps)} of {len(planned)} steps done; `ftlib run {params}` does the rest."
        )
    else:
        out.print(f"\nAll {len(planned)} steps are done; `ftlib run {params}` shows the leaderboard at once.")


def _checked(params: Path, overrides: Sequence[str] | None) -> Experiment:
    from ftlib.params.loading import check_inputs, load_experiment

    experiment = load_experiment(params, overrides or ())
    check_inputs(experiment)
    return experiment


def _planned(experiment: Experiment) -> list[PlannedStep]:
    from flows import graph
    from ftlib import planning, state

    return planning.plan(graph.steps(experiment), state.store(), scope=experiment.name)


def _finished(experiment: Experiment) -> dict[str, Any] | None:
    from flows import summary

    return summary.of_finished(experiment)


def _run(experiment: Experiment, params: Path, overrides: Sequence[str] | None) -> dict[str, Any]:
    from flows import graph
    from flows.live import Display

    batch_sizes = {f"train-{stage.name}": stage.training.batch_size for stage in experiment.stages}
    with Display([step.step_name for step in graph.steps(experiment)], batch_sizes) as display:
        from flows.running import run_experiment

        return run_experiment(experiment, source=params, overrides=overrides or (), listener=display)


def _show(summary: Mapping[str, Any]) -> None:
    from flows import show, show_tasks

    out = show.console()
    out.print()
    out.print(show.leaderboard(summary))
    out.print()
    transfer = summary.get("transfer")
    if transfer:
        out.print(show_tasks.scores(transfer))
        for note in show_tasks.notes(transfer):
            out.print(note, soft_wrap=True)
        out.print()
    for note in show.notes(summary):
        out.print(note, soft_wrap=True)
    out.print(show.rejected(summary), soft_wrap=True)
    typer.echo(summary["report"])
