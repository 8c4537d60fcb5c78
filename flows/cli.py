"""The `ftlib` command: every command's module is imported here, what it needs to work only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from flows.commands import catalogue, comparing, machine, models, running, storage
from ftlib.errors import FtlibError

STOPPED = 130
"""The exit code after Ctrl-C, as shells expect it."""

app = typer.Typer(
    name="ftlib",
    help="Fine-tune one model in several ways, fuse the results, and know what the figures are worth.\n\n"
    "One YAML file holds one experiment; what did not change is never computed twice.",
    epilog="Begin with   [bold cyan]ftlib run params/quickstart.yaml[/]",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        try:
            typer.echo(f"ftlib {importlib.metadata.version('ftlib')}")
        except importlib.metadata.PackageNotFoundError:
            typer.echo("ftlib, not installed as a package")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show a failure's traceback; goes with any command.")] = False,
) -> None:
    """Hold the options that go with every command."""


def _example(*lines: str) -> str:
    return "\n\n".join(f"[dim]$[/] [bold cyan]{line}[/]" for line in lines)


TRAIN, USE, LOOK, HOUSE = "Train", "Use what was trained", "See what there is", "Servers and store"

app.command(
    epilog=_example("ftlib run params/sst2.yaml", "ftlib run params/sst2.yaml --set stages.lora.strategy.r=16 --json out.json"),
    rich_help_panel=TRAIN,
)(running.run)
app.command(epilog=_example("ftlib check params/sst2.yaml"), rich_help_panel=TRAIN)(running.check)
app.command(
    epilog=_example("ftlib plan params/sst2.yaml --set stages.full.training.learning_rate=1e-4"), rich_help_panel=TRAIN
)(running.plan)
app.command(epilog=_example('ftlib schedule params/sst2.yaml --cron "0 2 * * *"'), rich_help_panel=TRAIN)(machine.schedule)

app.command(
    epilog=_example("ftlib predict models:/quickstart@champion tickets.csv -o answers.csv --columns text=message"),
    rich_help_panel=USE,
)(models.predict)
app.command(
    epilog=_example("ftlib evaluate models:/quickstart@champion labelled.csv --columns text=message --columns label=intent"),
    rich_help_panel=USE,
)(models.evaluate)
app.command(epilog=_example("ftlib compare quickstart sst2", "ftlib compare a.json b.json"), rich_help_panel=USE)(
    comparing.compare
)

app.command("list", epilog=_example("ftlib list strategies"), rich_help_panel=LOOK)(catalogue.list_)
app.command(epilog=_example("ftlib show strategy lora", "ftlib show training"), rich_help_panel=LOOK)(catalogue.show)
app.command(epilog=_example("ftlib schema > params/schema.json"), rich_help_panel=LOOK)(catalogue.schema)

app.add_typer(storage.app, name="store", rich_help_panel=HOUSE)
app.command(epilog=_example("ftlib doctor"), rich_help_panel=HOUSE)(machine.doctor)
app.command(epilog=_example("ftlib up"), rich_help_panel=HOUSE)(machine.up)
app.command(epilog=_example("ftlib down"), rich_help_panel=HOUSE)(machine.down)
app.command(epilog=_example("ftlib ui"), rich_help_panel=HOUSE)(machine.ui)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 (failed), 2 (bad params or data) or 130 (stopped)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = "--traceback" in given
    try:
        code = get_command(app).main(
            [a for a in given if a != "--traceback"], prog_name="ftlib", standalone_mode=False
        )
    except FtlibError as error:
        return _failed(error, str(error), error.exit_code, with_traceback)
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        return _quietly_closed()
    except Exception as error:  # noqa: BLE001  the last resort: a line and a log, whatever it is
        return _usage(error) if hasattr(error, "format_message") else _unexpected(error, given, with_traceback)
    if code == STOPPED:
        _say("Stopped. Every finished step is kept; the same command goes on from here.")
    return code if isinstance(code, int) else 0


def _failed(error: BaseException, line: str, code: int, with_traceback: bool) -> int:
    if with_traceback:
        import traceback

        traceback.print_exception(error)
    _say(line)
    return code


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "ftlib"
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    if message:
        _say(f"{message}. `{command} --help` shows how.")
    return 2


def _unexpected(error: Exception, given: list[str], with_traceback: bool) -> int:
    """Tell an error that nobody foresaw in one line, and keep its traceback in a file."""
    said = str(error).strip().partition("\n")[0][:300]
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return _failed(error, f"{line}. {_kept(error, given)}Run with --traceback to see where.", 1, with_traceback)


def _kept(error: Exception, given: list[str]) -> str:
    import traceback
    from datetime import datetime

    from ftlib import state

    log = state.home() / "logs" / f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log.write_text(f"ftlib {' '.join(given)}\n\n{''.join(traceback.format_exception(error))}", encoding="utf8")
    except OSError:
        return ""
    return f"The log is {log}. "


def _quietly_closed() -> int:
    """End as programs do whose reader (`| head`) has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _say(line: str) -> None:
    typer.echo(line, err=True)
