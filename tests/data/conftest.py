from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ftlib.data.sources.base import Source
from ftlib.problems.base import Problem


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """Write a file and return its path."""

    def file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return file


@pytest.fixture
def read() -> Callable[..., pa.Table]:
    """Read a source given as in a params file; text and label unless columns are given."""

    def table(source: Any, **columns: str) -> pa.Table:
        return Source.model_validate(source).read(columns or {"text": "text", "label": "label"})

    return table


@pytest.fixture
def problem() -> Callable[..., Problem]:
    """Build a problem by name."""

    def build(name: str = "text_classification", **fields: Any) -> Problem:
        return Problem.model_validate({"name": name, **fields})

    return build


@pytest.fixture
def rows() -> Callable[..., pa.Table]:
    """Build a collected table from texts, labels and perhaps splits, groups, second texts."""

    def table(texts: list[Any], labels: list[Any], splits: list[str] | None = None, **others: list[Any]) -> pa.Table:
        return pa.table(
            {
                "row_id": pa.array(range(len(texts)), pa.int64()),
                "split": splits or ["all"] * len(texts),
                "text": pa.array(texts, pa.string()),
                **others,
                "label": labels,
            }
        )

    return table
