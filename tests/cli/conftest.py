"""The command line, called in this process, with a state folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import show
from flows.cli import main

PARAMS = """\
name: tickets
seed: 7
base_model: model
problem: text_classification
data:
  sources: {all: rows.csv}
stages:
  - name: full
    strategy: full
  - name: lora
    strategy: {name: lora, r: 4}
fusions: [averaging]
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Ftlib = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the state folder inside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / ".ftlib"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FTLIB_STORE", raising=False)
    monkeypatch.setattr("ftlib.state.prepare_environment", lambda: None)
    return tmp_path / ".ftlib"


@pytest.fixture
def ftlib(capfd: pytest.CaptureFixture[str]) -> Ftlib:
    """Call the command line, and give its exit code and what it printed."""

    def call(*arguments: str) -> Result:
        show.console.cache_clear()
        capfd.readouterr()
        code = main(list(arguments))
        return Result(code, *capfd.readouterr())

    yield call
    show.console.cache_clear()


@pytest.fixture
def params() -> Path:
    """A params file whose data and model are there."""
    Path("rows.csv").write_text("text,label\nfine,yes\nbad,no\n")
    model = Path("model")
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    path = Path("p.yaml")
    path.write_text(PARAMS)
    return path


def member(name: str, strategy: str, validation: float, test: float) -> dict[str, Any]:
    return {
        "name": name,
        "strategy": strategy,
        "num_trainable_parameters": 22_713_216,
        "train_seconds": 83.2,
        "rows_per_second": 400.0,
        "mlflow_run_id": "m1",
        "metrics": {"validation": {"accuracy": validation}, "test": {"accuracy": test, "f1_macro": test - 0.01}},
        "interval": [test - 0.015, test + 0.015],
        "num_parameters": 22_713_216,
        "inference_cost": 1.0,
    }


def fusion(name: str, validation: float, test: float, gain: float, p_value: float) -> dict[str, Any]:
    return {
        "name": name,
        "method": {"name": name},
        "metrics": {"validation": {"accuracy": validation}, "test": {"accuracy": test, "f1_macro": test - 0.01}},
        "interval": [test - 0.015, test + 0.015],
        "gain": gain,
        "p_value_against_best_member": p_value,
        "inference_cost_ratio": 2.0,
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    """The summary of a run, as `ftlib run --json` writes it."""
    return {
        "name": "tickets",
        "created": "2026-01-02T03:04:05+00:00",
        "flow_run_id": "0123456789abcdef",
        "mlflow_run_id": "fedcba9876543210",
        "seconds": 125.0,
        "report": "/state/reports/tickets.html",
        "model_uri": "models:/tickets/3",
        "metric": "accuracy",
        "higher_is_better": True,
        "problem": "text_classification",
        "rows": {"validation": 100, "test": 200},
        "rejected": {"empty text": 3, "duplicate": 12},
        "steps": [
            {"name": "collect", "state": "cached", "seconds": 0.0, "artifact": "a" * 64},
            {"name": "train-full", "state": "computed", "seconds": 80.0, "artifact": "b" * 64},
        ],
        "members": [member("lora", "lora", 0.861, 0.8601), member("full", "full", 0.871, 0.8702)],
        "fusions": [fusion("voting", 0.862, 0.861, -0.0092, 0.4), fusion("averaging", 0.88, 0.8795, 0.0093, 0.0004)],
        "best": {
            "name": "averaging",
            "kind": "fusion",
            "metric": "accuracy",
            "validation": 0.88,
            "test": 0.8795,
            "interval": [0.8645, 0.8945],
        },
        "best_member": "full",
        "best_fusion": "averaging",
        "params": {"source": "p.yaml", "overrides": [], "experiment": {"seed": 7, "training": {"learning_rate": 5e-5}}},
    }


@pytest.fixture
def keep(home: Path) -> Callable[[dict[str, Any]], Path]:
    """Keep a summary as a --json file."""

    def write(value: dict[str, Any], name: str = "summary.json") -> Path:
        Path(name).write_text(json.dumps(value))
        return Path(name)

    return write
