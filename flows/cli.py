"""The `ftlib` command: every command's module is imported here, what it needs to work only when it runs."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer.main import get_command

from flows.commands import catalogue, comparing, machine, models, running, storage, tuning
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
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", metavar="", help="Show a failure's traceback; goes with any command.")
    ] = False,
) -> None:
    """Hold the options that go with every command."""


def _add(name: str, command: Callable[..., None], panel: str, *examples: str) -> None:
    """Register a command; its docstring is its help, with paragraphs that fit any width, and examples below."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
    shown = "\n\n".join(f"[dim]$[/] [bold cyan]{example}[/]" for example in examples)
    app.command(name, help="\n\n".join(lines), short_help=lines[0], epilog=shown, rich_help_panel=panel)(command)


TRAIN, USE, LOOK, HOUSE = "Train", "Use what was trained", "See what there is", "Servers and store"
MODEL = "models:/support-requests@champion"

_add(
    "run",
    running.run,
    TRAIN,
    "ftlib run params/quickstart.yaml",
    "ftlib run params/quickstart.yaml --set stages.prefix.strategy.num_virtual_tokens=32 --json summary.json",
)
_add("check", running.check, TRAIN, "ftlib check params/quickstart.yaml")
_add("plan", running.plan, TRAIN, "ftlib plan params/quickstart.yaml --set stages.full.training.learning_rate=1e-4")
_add("tune", tuning.tune, TRAIN, "ftlib tune params/samples/tuning.yaml --jobs 2")
_add("schedule", machine.schedule, TRAIN, 'ftlib schedule params/quickstart.yaml --cron "0 2 * * *"')
_add("predict", models.predict, USE, f"ftlib predict {MODEL} tickets.csv -o answers.csv --columns text=message")
_add("evaluate", models.evaluate, USE, f"ftlib evaluate {MODEL} labelled.csv --columns label=intent")
_add("explain", models.explain, USE, f"ftlib explain {MODEL} tickets.csv -o explained.html --columns text=message")
_add("compare", comparing.compare, USE, "ftlib compare quickstart sst2", "ftlib compare before.json after.json")
_add("list", catalogue.list_, LOOK, "ftlib list strategies", "ftlib list strategies --matrix")
_add("show", catalogue.show, LOOK, "ftlib show strategy lora", "ftlib show training")
_add("schema", catalogue.schema, LOOK, "ftlib schema > params/schema.json")
_add("doctor", machine.doctor, HOUSE, "ftlib doctor")
_add("up", machine.up, HOUSE, "ftlib up")
_add("down", machine.down, HOUSE, "ftlib down")
_add("ui", machine.ui, HOUSE, "ftlib ui")
app.add_typer(storage.app, name="store", rich_help_panel=HOUSE)


def _command() -> Any:
    """Return the command line, with no type shown behind its flags."""
    command = get_command(app)
    waiting: list[Any] = [command]
    while waiting:
        one = waiting.pop()
        waiting += getattr(one, "commands", {}).values()
        one.get_help_option = partial(_bare, one.get_help_option)
    return command


def _bare(help_option: Callable[[Any], Any], context: Any) -> Any:
    option = help_option(context)
    if option is not None:
        option.metavar = ""
    return option


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 (failed), 2 (bad params or data) or 130 (stopped)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = "--traceback" in given
    try:
        code = _command().main([a for a in given if a != "--traceback"], prog_name="ftlib", standalone_mode=False)
    except FtlibError as error:
        return _failed(error, str(error), error.exit_code, with_traceback)
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        return _quietly_closed()
    except Exception as error:
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
    message = error.format_message().replace("?.", "?")  # type: ignore[attr-defined]
    if message:
        _say(f"{message}{'' if message[-1] in '.?!' else '.'} `{command} --help` shows how.")
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
