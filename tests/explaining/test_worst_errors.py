"""Explanations of the worst errors, as the report shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from ftlib.explaining.errors import explain_errors
from ftlib.fusion._mean import WeightedMean
from ftlib.fusion.base import Fusion
from ftlib.models import checkpoints
from ftlib.problems.base import Problem

PROBLEM = Problem.model_validate({"name": "text_classification", "labels": ["account", "billing", "bug"]})
ERRORS = pa.table(
    {
        "row_id": [70, 12, 31],
        "text": ["I was charged twice &lt;b&gt;", "the app crashes", "never shown"],
        "gold": ["bug"] * 3,
    }
)


@pytest.fixture
def members(member, tmp_path: Path) -> dict[str, Path]:
    for i in range(2):
        checkpoints.save(member("single", i).checkpoint, tmp_path / f"m{i}")
    return {f"m{i}": tmp_path / f"m{i}" for i in range(2)}


def weighted(folder: Path, shares: tuple[float, ...]) -> dict[str, tuple[Fusion, Path]]:
    folder.mkdir()
    WeightedMean("single_label", "scores", shares).save(folder)
    return {"weighted": (Fusion.named("weighted")(), folder)}


def test_the_first_errors_are_explained_with_the_texts_as_they_were_cleaned(members):
    found = explain_errors(ERRORS, best="m1", problem=PROBLEM, members=members, fusions={}, number=2)
    assert found["reason"] is None
    assert [one["row_id"] for one in found["explanations"]] == [70, 12]
    assert found["explanations"][0]["texts"] == {"text": "I was charged twice &lt;b&gt;"}
    assert json.loads(json.dumps(found)) == found


def test_a_member_at_weight_0_is_not_opened(members, tmp_path: Path):
    fusions = weighted(tmp_path / "fused", (0.0, 1.0))
    gone = {**members, "m0": tmp_path / "nowhere"}
    fused = explain_errors(ERRORS, best="weighted", problem=PROBLEM, members=gone, fusions=fusions, number=2)
    alone = explain_errors(ERRORS, best="m1", problem=PROBLEM, members=members, fusions={}, number=2)
    assert fused == alone


def test_what_cannot_be_explained_has_its_reason_and_opens_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WeightedMean, "weights", lambda self: None, raising=True)
    monkeypatch.setattr(WeightedMean, "save", lambda self, folder: None)
    monkeypatch.setattr(WeightedMean, "load", classmethod(lambda cls, folder: cls("single_label", "scores", (1.0,))))
    gone = {"m0": tmp_path / "nowhere"}
    fusions = weighted(tmp_path / "fused", (1.0,))
    found = explain_errors(ERRORS, best="weighted", problem=PROBLEM, members=gone, fusions=fusions, number=2)
    assert found["explanations"] == []
    assert found["reason"].startswith("fusion 'weighted' gives its members no weights")


def test_none_are_explained_where_none_are_asked_for():
    found = explain_errors(ERRORS, best="m0", problem=PROBLEM, members={}, fusions={}, number=0)
    assert found == {"reason": None, "explanations": []}
