"""A search over a tiny model and a few rows, with a state folder of its own; MLflow is not asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.show import console

PARAMS = """\
# What is searched here.
name: tickets
seed: 3
base_model: {model}
problem: {{name: text_classification, max_length: 16}}
data:
  sources: {{all: rows.csv}}
splitting: {{validation_ratio: 0.3, test_ratio: 0.2}}
training:
  batch_size: 16
  num_train_epochs: 2     # two passes
  learning_rate: 1.0e-3
stages:
  - name: full
    strategy: full
tracking: {{energy: false}}
tuning:
  num_trials: 3
  sampler: random
  pruner: none
  space:
    stages.full.training.learning_rate: {{low: 1.0e-4, high: 1.0e-2, log: true}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the state folder inside it; the environment is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("FTLIB_", "PREFECT_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / ".ftlib"))
    monkeypatch.setattr("ftlib.state.prepare_environment", lambda: None)
    monkeypatch.setattr("ftlib.tracking.send", lambda *_, **__: None)
    monkeypatch.setattr("ftlib.tracking.send_pending", lambda *_, **__: 0)
    return tmp_path / ".ftlib"


@pytest.fixture
def params(home: Path, tiny_model: Callable[..., Path]) -> Path:
    """A params file with a search, its rows and its model; every third row is of another kind than it looks."""
    lines = [f"{'a good film' if i % 2 else 'a bad story'} {i},{'yes' if (i % 2) ^ (i % 3 == 0) else 'no'}\n"
             for i in range(80)]  # fmt: skip
    Path("rows.csv").write_text("text,label\n" + "".join(lines))
    path = Path("p.yaml")
    path.write_text(PARAMS.format(model=tiny_model()))
    return path


@pytest.fixture
def edit(params: Path) -> Callable[..., Path]:
    """Change texts in the params file."""

    def change(**texts: str) -> Path:
        text = params.read_text()
        for old, new in texts.items():
            assert old in text
            text = text.replace(old, new)
        params.write_text(text)
        return params

    return change


@pytest.fixture
def ftlib(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Call the command line; give its exit code, and what it printed to stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        console.cache_clear()
        capfd.readouterr()
        code = main(list(arguments))
        return (code, *capfd.readouterr())

    yield call
    console.cache_clear()
