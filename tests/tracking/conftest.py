"""An MLflow store of its own for each test, copied from one that is made once: a cold one takes seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib import state, tracking
from ftlib.tracking.journal import journals
from ftlib.tracking.store import connected


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mlflow-template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLIB_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.initialise()
    return home / "mlflow" / "mlflow.db"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the state folder of this test; nothing is in it."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    for name in ("FTLIB_STORE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def mlflow_store(home: Path, made_database: Path) -> Path:
    """Return the database of an MLflow store that is ready."""
    target = home / "mlflow" / "mlflow.db"
    target.parent.mkdir(parents=True)
    shutil.copyfile(made_database, target)
    return target


@pytest.fixture
def client(mlflow_store: Path):
    """Return a client of the test's store."""
    assert state.tracking_uri() == f"sqlite:///{mlflow_store}"
    with connected() as (_, found):
        pass
    return found


@pytest.fixture
def run_python(home: Path, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess]:
    """Return a function that runs code in a process of its own."""

    def run(code: str) -> subprocess.CompletedProcess:
        return start_python(home, code, tmp_path, subprocess.run, capture_output=True, timeout=120)

    return run


def start_python(home: Path, code: str, folder: Path, how: Callable, **options):
    environment = {**os.environ, "FTLIB_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    return how([sys.executable, "-c", textwrap.dedent(code)], env=environment, cwd=folder, text=True, **options)


@pytest.fixture
def killed_run(home: Path, run_python) -> Path:
    """Return the journal of a process that was killed in the middle of a line."""
    code = """
        import os, signal
        from ftlib import state
        from ftlib.tracking import Journal
        journal = Journal.start(state.home(), experiment="sst2", run_name="killed")
        child = journal.child("train-full", kind="stage", metrics={"loss": 1.5})
        with journal.path.open("a") as handle:
            handle.write('{"event": "metr')
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code).returncode == -signal.SIGKILL
    [path] = journals(home)
    return path


@pytest.fixture
def start_three(home: Path, tmp_path: Path) -> Callable[[str], list[subprocess.Popen]]:
    """Return a function that starts three processes with the same code at once."""

    def start(code: str) -> list[subprocess.Popen]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return [start_python(home, code, tmp_path, subprocess.Popen, **pipes) for _ in range(3)]

    return start
