"""`ftlib doctor`, `up`, `down`, `ui` and `schedule`: this machine and its servers."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.arguments import Overrides, Params


def doctor() -> None:
    """Show what this machine has, what is missing, and the remedy.

    Exit code 1 if something must be mended.
    """
    from flows import checkup
    from flows.show import checkup_table, console

    out = console()
    with console(stderr=True).status("looking around"):
        findings = checkup.findings()
    out.print(checkup_table(findings))
    broken = [f for f in findings if f.state == "broken"]
    if broken:
        out.print(f"\n{len(broken)} of {len(findings)} must be mended: {', '.join(f.what for f in broken)}.")
        raise typer.Exit(1)
    out.print("\nReady.")


def up() -> None:
    """Start Prefect, MLflow and a worker in the background.

    Every later command uses them.
    """
    from flows import servers
    from flows.show import console

    with console(stderr=True).status("starting the servers; the first time takes up to a minute"):
        started = servers.up()
    for server in started:
        typer.echo(f"{server.name:<8} {server.url or 'runs what is scheduled'}")
    typer.echo("`ftlib ui` opens them, `ftlib down` stops them.")


def down() -> None:
    """Stop what `ftlib up` started.

    What the servers recorded is kept. A scheduled run that is going is stopped, too, and Prefect told so; its
    finished steps are kept.
    """
    from flows import servers

    jobs = servers.num_jobs()
    stopped = servers.down()
    typer.echo(f"Stopped {', '.join(s.name for s in stopped)}." if stopped else "Nothing was running.")
    if jobs:
        runs, its = ("1 scheduled run was", "Its") if jobs == 1 else (f"{jobs} scheduled runs were", "Their")
        typer.echo(f"{runs} stopped on the way. {its} finished steps are kept: the next run goes on from there.")


def ui() -> None:
    """Open the Prefect and MLflow pages in the browser.

    Starts the servers if they are not up.
    """
    import webbrowser

    from flows import servers

    running = {s.name: s.url for s in servers.status() if s.state == "running" and s.url}
    if not {"prefect", "mlflow"} <= running.keys():
        up()
        running = {s.name: s.url for s in servers.status() if s.url}
    for name, url in running.items():
        typer.echo(f"{name:<8} {url}")
        if _has_desktop():
            webbrowser.open_new_tab(url)


def schedule(
    params: Params,
    cron: Annotated[
        str,
        typer.Option(
            "--cron",
            metavar="CRON",
            help='When it runs: minute, hour, day, month, weekday: [cyan]"0 2 * * *"[/].',
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="What the deployment is called; the experiment's name unless given.", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run an experiment on a schedule.

    Makes a deployment on a work pool; its parameters can be edited in the Prefect UI. Needs `ftlib up`, whose
    worker does the runs.
    """
    from flows import schedule as schedules
    from ftlib.params.loading import check_inputs, load_experiment

    check_inputs(load_experiment(params, overrides or ()))
    with _status("making the deployment"):
        made = schedules.schedule(params, cron, name=name, overrides=tuple(overrides or ()))
    typer.echo(str(made))


def _status(words: str):  # type: ignore[no-untyped-def]
    from flows.show import console

    return console(stderr=True).status(words)


def _has_desktop() -> bool:
    """Return whether a browser would open a window, rather than take over the terminal."""
    import os
    import sys

    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
