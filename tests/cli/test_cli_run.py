"""`ftlib run` around the flow: what is asked first, what is printed last, and the servers' commands."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftlib.errors import DataError


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any]) -> SimpleNamespace:
    """A flow that runs nothing, and remembers how it was called."""
    calls = SimpleNamespace(runs=[], finished=None)

    def run_experiment(experiment: Any, **given: Any) -> dict[str, Any]:
        calls.runs.append((experiment, given))
        given["listener"].begin("collect")
        given["listener"].done("collect", cached=False, took=0.1)
        return summary

    monkeypatch.setattr("flows.running.run_experiment", run_experiment)
    monkeypatch.setattr("flows.summary.of_finished", lambda _: calls.finished)
    return calls


def test_the_last_line_is_the_reports_path(ftlib, params: Path, flow: SimpleNamespace):
    result = ftlib("run", str(params))
    assert result.code == 0
    assert result.out.splitlines()[-1] == "/state/reports/tickets.html"
    assert "★  averaging" in result.out
    assert "Rejected 15 rows" in result.out


def test_progress_goes_to_stderr_and_results_to_stdout(ftlib, params: Path, flow: SimpleNamespace):
    result = ftlib("run", str(params))
    assert result.err.split() == ["✓", "collect", "computed", "in", "0.1", "s"]
    assert "✓" not in result.out


def test_the_flow_gets_the_file_and_the_overrides(ftlib, params: Path, flow: SimpleNamespace):
    ftlib("run", str(params), "--set", "stages.lora.strategy.r=16")
    [(experiment, given)] = flow.runs
    assert experiment.stages[1].strategy.r == 16
    assert given["source"] == params
    assert list(given["overrides"]) == ["stages.lora.strategy.r=16"]


def test_where_everything_is_done_nothing_is_run(ftlib, params: Path, flow: SimpleNamespace, summary: dict[str, Any]):
    flow.finished = summary
    result = ftlib("run", str(params))
    assert flow.runs == []
    assert result.out.splitlines()[-1] == "/state/reports/tickets.html"


def test_force_runs_all_the_same(ftlib, params: Path, flow: SimpleNamespace, summary: dict[str, Any]):
    flow.finished = summary
    ftlib("run", str(params), "--force")
    assert len(flow.runs) == 1


def test_json_holds_the_summary(ftlib, params: Path, flow: SimpleNamespace, summary: dict[str, Any]):
    assert ftlib("run", str(params), "--json", "out/summary.json").code == 0
    assert json.loads(Path("out/summary.json").read_text()) == summary


def test_bad_params_are_told_before_any_work(ftlib, params: Path, flow: SimpleNamespace):
    params.write_text(params.read_text().replace("strategy: full", "strategy: ful"))
    result = ftlib("run", str(params))
    assert (result.code, flow.runs) == (2, [])
    assert result.err.startswith("p.yaml:9: stages.0.strategy: unknown strategy 'ful'. Did you mean 'full'?")


def test_a_failing_step_is_one_line_after_the_steps(ftlib, params: Path, flow, monkeypatch: pytest.MonkeyPatch):
    def fail(experiment: Any, **given: Any) -> None:
        given["listener"].begin("clean")
        given["listener"].failed("clean")
        raise DataError("rows.csv: 2 of 2 rows rejected.")

    monkeypatch.setattr("flows.running.run_experiment", fail)
    result = ftlib("run", str(params))
    assert result.code == 2
    assert [line.split() for line in result.err.splitlines()] == [
        ["✗", "clean", "failed"],
        ["rows.csv:", "2", "of", "2", "rows", "rejected."],
    ]


# -- servers and schedules ---------------------------------------------------------------------------


def test_up_tells_where_the_servers_are(ftlib, monkeypatch: pytest.MonkeyPatch):
    started = [SimpleNamespace(name="prefect", url="http://127.0.0.1:4200"), SimpleNamespace(name="worker", url="")]
    monkeypatch.setattr("flows.servers.up", lambda: started)
    lines = ftlib("up").out.splitlines()
    assert lines[0].split() == ["prefect", "http://127.0.0.1:4200"]
    assert lines[1].split() == ["worker", "runs", "what", "is", "scheduled"]


def test_down_tells_what_was_stopped(ftlib, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.servers.down", lambda: [SimpleNamespace(name="prefect"), SimpleNamespace(name="mlflow")])
    assert ftlib("down").out == "Stopped prefect, mlflow.\n"
    monkeypatch.setattr("flows.servers.down", lambda: ())
    assert ftlib("down").out == "Nothing was running.\n"


def test_ui_names_the_pages_and_starts_what_is_not_up(ftlib, monkeypatch: pytest.MonkeyPatch):
    running: list[SimpleNamespace] = []

    def up() -> list[SimpleNamespace]:
        for name in ("prefect", "mlflow"):
            running.append(SimpleNamespace(name=name, url=f"http://{name}", state="running"))
        return running

    monkeypatch.setattr("flows.servers.up", up)
    monkeypatch.setattr("flows.servers.status", lambda: running)
    monkeypatch.setattr("flows.commands.machine._has_desktop", lambda: False)
    assert "mlflow   http://mlflow" in ftlib("ui").out


def test_schedule_checks_the_experiment_and_hands_it_on(ftlib, params: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []

    def schedule(*given: Any, **named: Any) -> str:
        made.append((given, named))
        return "hybrid_finetune/tickets runs next at two."

    monkeypatch.setattr("flows.schedule.schedule", schedule)
    result = ftlib("schedule", str(params), "--cron", "0 2 * * *", "--set", "seed=8")
    assert result.out == "hybrid_finetune/tickets runs next at two.\n"
    assert made == [((params, "0 2 * * *"), {"name": None, "overrides": ("seed=8",)})]
    assert ftlib("schedule", str(params), "--cron", "0 2 * * *", "--set", "sed=8").code == 2
    assert len(made) == 1


# -- doctor ------------------------------------------------------------------------------------------


def test_doctor_tells_what_is_missing_and_the_remedy(ftlib, monkeypatch: pytest.MonkeyPatch):
    from flows.checkup import Finding

    found = [Finding("cores", "fine", "2"), Finding("libraries", "broken", "fastapi 1 is installed", "pip install it.")]
    monkeypatch.setattr("flows.checkup.findings", lambda: found)
    result = ftlib("doctor")
    assert result.code == 1
    assert "pip install it." in result.out
    assert "1 of 2 must be mended: libraries." in result.out
    monkeypatch.setattr("flows.checkup.findings", lambda: found[:1])
    assert ftlib("doctor").code == 0


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch):
    from flows import checkup

    def fails() -> Any:
        yield checkup.Finding("first", "fine", "")
        raise OSError("no such device")

    monkeypatch.setattr(checkup, "_CHECKS", (fails, checkup._python))
    found = checkup.findings()
    assert [f.state for f in found] == ["fine", "broken", "fine"]
    assert found[1].found == "OSError: no such device"


@pytest.mark.parametrize(
    ("requirement", "wrong"),
    [
        ("pytest>=1", None),
        ("pytest<1", "is installed, <1 is needed"),
        ("no-such-package-anywhere", "no-such-package-anywhere is missing"),
        ("pytest<1; python_version < '3'", None),
    ],
)
def test_doctor_compares_versions(requirement: str, wrong: str | None):
    from flows.checkup import _wrong

    found = _wrong(requirement)
    assert (found is None) if wrong is None else (wrong in (found or ""))


def test_doctor_sees_a_state_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from flows.checkup import _state_folder

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "file" / "inside"))
    [finding] = _state_folder()
    assert finding.state == "broken"
    assert "FTLIB_HOME" in finding.remedy
