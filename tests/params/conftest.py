"""A params file that is right, and a way to spoil it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
# A complete experiment.
name: tickets
seed: 7
base_model: models/tiny
problem:
  name: text_classification
  labels: [no, yes]
data:
  sources:
    train: data/train.tsv
    test: {name: csv, path: data/test.csv}
  columns: {text: sentence, label: 1}
training:
  learning_rate: 5e-5
stages:
  - name: full
    strategy: full
  - name: lora
    strategy: {name: lora, r: 4}
    start_from: full
    training: {num_train_epochs: 2}
  - name: small
    strategy: {name: distillation, teacher: [full, lora]}
fusions:
  - averaging
  - name: stack
    method: {name: stacking, C: 2}
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Path]:
    """Write a params file into the current folder; messages then call it p.yaml."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> Path:
        Path("p.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path("p.yaml")

    return write
