"""What every command has in common: help with examples, one-line errors, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import cli
from ftlib.errors import FtlibError

COMMANDS = sorted(c.name for c in cli.app.registered_commands if c.name)


def test_help_lists_every_command_in_groups(ftlib):
    result = ftlib("--help")
    assert result.code == 0
    for command in [*COMMANDS, "store"]:
        assert f" {command} " in result.out
    for group in ("Train", "Use what was trained", "See what there is", "Servers and store"):
        assert f" {group} " in result.out


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), ["store", "ls"], ["store", "verify"], ["store", "gc"]]
)
def test_the_help_of_each_command_shows_a_runnable_example(ftlib, command: list[str]):
    result = ftlib(*command, "--help")
    assert result.code == 0
    assert f"$ ftlib {' '.join(command)}" in " ".join(result.out.split())
    assert "<bool>" not in result.out


def test_examples_name_options_that_exist(ftlib):
    for command in cli.app.registered_commands:
        words = (command.epilog or "").replace("[/]", " ").split()
        known = ftlib(command.name, "--help").out
        for option in (word for word in words if word.startswith("-") and not word.startswith("[")):
            assert option in known, f"{command.name}: {option}"


def test_no_command_shows_the_help(ftlib):
    assert "Usage: ftlib" in ftlib().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plna"], "No such command 'plna'. Did you mean 'plan'? `ftlib --help` shows how."),
        (["run"], "Missing argument 'PARAMS'. `ftlib run --help` shows how."),
        (["check", "nowhere.yaml"], "nowhere.yaml: there is no such file. Give the path of a params file."),
        (["list", "strategeis"], "unknown kind 'strategeis'. Did you mean 'strategies'?"),
        (
            ["show", "strategy", "lorra"],
            "unknown strategy 'lorra'. Did you mean 'lora'? `ftlib list strategies` names all.",
        ),
        (["show", "lorra"], "unknown name 'lorra'. Did you mean 'lora'? `ftlib list` names all."),
        (["compare", "one"], "compare one: expected two runs or more. `ftlib compare RUN RUN` compares them."),
        (["predict", "model", "rows.csv", "-o", "out.xls"], "out.xls: unknown ending 'xls'."),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(ftlib, arguments: list[str], line: str):
    result = ftlib(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


def test_an_error_of_the_library_has_its_own_exit_code(ftlib, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise FtlibError("the store is on fire; put it out.")

    monkeypatch.setattr("ftlib.params.loading.load_experiment", fail)
    result = ftlib("check", "p.yaml")
    assert (result.code, result.err) == (1, "the store is on fire; put it out.\n")


def test_an_unexpected_error_is_one_line_and_a_log(ftlib, monkeypatch: pytest.MonkeyPatch, home: Path):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr("ftlib.params.loading.load_experiment", fail)
    result = ftlib("check", "p.yaml")
    [log] = (home / "logs").glob("error-*.log")
    assert result.code == 1
    assert result.err == f"ZeroDivisionError: division by zero. The log is {log}. Run with --traceback to see where.\n"
    assert "Traceback" in log.read_text()
    assert "ftlib check p.yaml" in log.read_text()


def test_a_traceback_is_shown_only_where_asked_for(ftlib, params: Path):
    params.write_text("name: [\n")
    assert "Traceback" not in ftlib("check", "p.yaml").err
    result = ftlib("check", "p.yaml", "--traceback")
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("p.yaml:2:1: ends inside a list or mapping; a ] or } is missing.")


def test_control_c_is_one_line_and_exit_code_130(ftlib, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ftlib.params.loading.load_experiment", stop)
    result = ftlib("run", "p.yaml")
    assert result.code == 130
    assert result.err == "Stopped. Every finished step is kept; the same command goes on from here.\n"


def test_version_is_printed(ftlib):
    result = ftlib("--version")
    assert result.code == 0
    assert result.out.startswith("ftlib")


def test_check_says_what_it_found(ftlib, params: Path):
    result = ftlib("check", str(params))
    assert result.code == 0
    assert result.out.splitlines()[0] == "✓ p.yaml: experiment tickets is fine."
    assert "full (full), lora (lora)" in result.out


def test_check_takes_overrides(ftlib, params: Path):
    assert ftlib("check", str(params), "--set", "stages.lora.strategy.r=8").code == 0
    result = ftlib("check", str(params), "--set", "stages.lora.strategy.r=x")
    assert result.code == 2
    assert result.err.startswith(
        "--set stages.lora.strategy.r=x: stages.1.strategy.r: 'x' is text; expected an integer"
    )


def test_check_tells_missing_files_before_any_work(ftlib, params: Path):
    Path("rows.csv").rename("rowz.csv")
    result = ftlib("check", str(params))
    assert result.code == 2
    assert "rows.csv" in result.err
    assert "rowz.csv" in result.err


def test_plan_lists_every_step_with_its_reason(ftlib, params: Path):
    result = ftlib("plan", str(params))
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[1].split() == ["collect", "to", "do", "never", "computed"]
    assert any(line.startswith("train-lora") for line in lines)
    assert lines[-1].startswith("0 of ")


@pytest.mark.parametrize("family", ["strategies", "strategy", "problems", "fusions", "sources"])
def test_list_names_every_plugin_with_a_line(ftlib, family: str):
    result = ftlib("list", family)
    assert result.code == 0
    rows = [line for line in result.out.splitlines()[1:] if line.strip() and not line.startswith("`")]
    assert rows
    assert all(len(row.split()) > 3 for row in rows)


def test_list_shows_every_family(ftlib):
    out = ftlib("list").out
    for word in ("fusions", "problems", "sources", "strategies", "lora", "averaging", "csv", "text_classification"):
        assert word in out


@pytest.mark.parametrize("arguments", [["strategy", "lora"], ["strategies", "lora"], ["lora"]])
def test_show_tells_card_types_defaults_and_descriptions(ftlib, arguments: list[str]):
    result = ftlib("show", *arguments)
    assert result.code == 0
    assert result.out.startswith("strategy lora")
    assert "arxiv.org" in result.out
    assert "An integer, at least 1." in result.out


def test_show_tells_sections_of_params_files(ftlib):
    out = ftlib("show", "training").out
    assert "learning_rate" in out
    assert "5e-05" in out
    assert "batch_size" in ftlib("show", "training").out
    assert "see `ftlib show cleaning`" in ftlib("show", "experiment").out


def test_schema_is_json(ftlib):
    import json

    schema = json.loads(ftlib("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "stages" in schema["properties"]
