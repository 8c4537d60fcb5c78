"""A Prefect server for the session, and an experiment whose steps do no work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sample_steps

from ftlib.params.experiment import Experiment

PARAMS: dict[str, Any] = {
    "name": "sample_run",
    "base_model": "nowhere",
    "problem": "text_classification",
    "data": {"sources": {"all": {"name": "csv", "path": "rows.csv"}}},
    "stages": [{"name": "first", "strategy": "full"}, {"name": "second", "strategy": "lora"}],
    "fusions": ["averaging"],
    "tracking": {"energy": False},
}


@pytest.fixture
def experiment() -> Experiment:
    """Return an experiment for the sample pipeline; nothing in it is read or loaded."""
    return Experiment.model_validate(PARAMS)


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of one database for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@contextmanager
def environment(**settings: str) -> Iterator[None]:
    """Change the environment for a while; what `prepare_environment` adds goes again, too."""
    before = dict(os.environ)
    for name in [n for n in os.environ if n.startswith(("FTLIB_", "PREFECT_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def home(tmp_path: Path, mlflow_database: str) -> Iterator[Path]:
    """Give the test a state folder of its own."""
    with environment(FTLIB_HOME=str(tmp_path / "home"), MLFLOW_TRACKING_URI=mlflow_database):
        yield tmp_path / "home"


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the API of a Prefect server that lives as long as the tests."""
    with ExitStack() as stack:
        with environment(FTLIB_HOME=str(tmp_path_factory.mktemp("prefect"))):
            from ftlib import state

            state.prepare_environment()
            from flows.servers import TemporaryServer

            api = stack.enter_context(TemporaryServer()).wait()
        yield api


@pytest.fixture
def prefect(home: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let flows of this test run on the session's server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    from flows.hybrid_finetune import settings

    with settings(prefect_api):
        yield prefect_api


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts the sample pipeline, with these settings, in the place of the real one."""

    def put(**settings: Any) -> None:
        monkeypatch.setattr("flows.graph.steps", lambda experiment: sample_steps.pipeline(**settings))

    put()
    return put
