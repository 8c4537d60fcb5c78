"""Candidates of which one is clearly the better, and an experiment that chooses among them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LABEL_WORDS = {"good": ["great", "wonderful", "lovely"], "bad": ["awful", "boring", "crashes"]}
OTHER_WORDS = ["film", "story", "man", "guitar", "weather", "photo", "update", "stage"]


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute alike on every machine."""
    monkeypatch.setattr("ftlib.training.precision.multiplies_bfloat16", lambda: False)


Weights = dict[str, np.ndarray]


def rewritten(model: Path, folder: Path, change: Callable[[Weights], Weights]) -> Path:
    """Write a model with other weights of the same shapes, and return its folder."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, **change(weights)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def blind_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """Return the folder of a model to which all words are alike: nothing can be learned from its features."""

    def alike(weights: Weights) -> Weights:
        return {n: np.tile(w.mean(0), (len(w), 1)) for n, w in weights.items() if n.endswith("word_embeddings.weight")}

    return rewritten(tiny_model("bert"), tmp_path_factory.mktemp("blind") / "model", alike)


@pytest.fixture(scope="session")
def broken_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """Return the folder of a model whose states are no numbers."""

    def spoilt(weights: Weights) -> Weights:
        return {n: np.full_like(w, np.nan) for n, w in weights.items() if n.endswith("word_embeddings.weight")}

    return rewritten(tiny_model("bert"), tmp_path_factory.mktemp("broken") / "model", spoilt)


@pytest.fixture(scope="session")
def seeing_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """Return the folder of a model whose tokens each hold the mean of all words: any of them can be told from it."""

    def averaging(weights: Weights) -> Weights:
        values = {
            "self.query.weight": 0,
            "self.key.weight": 0,
            "self.value.weight": 1,
            "attention.output.dense.weight": 3,
        }
        found = {}
        for name, weight in weights.items():
            factor = next((value for end, value in values.items() if name.endswith(end)), None)
            if factor is None and name.endswith(".output.dense.weight"):
                factor = 0
            if factor is not None:
                found[name] = factor * np.eye(*weight.shape, dtype=weight.dtype)
        return found

    return rewritten(tiny_model("bert"), tmp_path_factory.mktemp("seeing") / "model", averaging)


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of short texts, whose label one of their words tells."""
    random = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for i in range(160):
            label = ("good", "bad")[i % 2]
            others = random.choice(OTHER_WORDS, 3, replace=False).tolist()
            place = random.integers(4)
            writer.writerow([" ".join([*others[:place], random.choice(LABEL_WORDS[label]), *others[place:]]), label])
    return path


@pytest.fixture
def params(rows_file: Path, seeing_model: Path, blind_model: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that gives the params of an experiment: with other settings of the choice, or another model."""

    def made(base_model: str | None = None, **choice: Any) -> dict[str, Any]:
        candidates = [str(blind_model), str(seeing_model), "random:clip"]
        halving: dict[str, Any] = {
            "rounds": 1,
            "keep": 4,
            "epochs": 2.0,
            "learning_rate": 1e-2,
            "strategy": {"name": "partial", "last_blocks": 0},
        }
        return {
            "name": "chosen",
            "base_model": base_model or {"candidates": candidates, "rows": 60, "halving": halving, **choice},
            "problem": {"name": "text_classification", "max_length": 32},
            "data": {"sources": {"all": str(rows_file)}},
            "splitting": {"validation_ratio": 0.25, "test_ratio": 0.2},
            "training": {"num_train_epochs": 1, "learning_rate": 5e-3},
            "stages": [{"name": "full", "strategy": "full"}],
            "evaluation": {"explained_errors": 0},
        }

    return made
