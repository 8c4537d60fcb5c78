"""Choosing without the test split: what a search is judged by."""

from __future__ import annotations

import shutil

import pytest
from prediction_folders import PROBLEMS, folders

from ftlib.evaluation.evaluate import Artifacts, Evaluation, chosen_on_validation


@pytest.mark.parametrize("kind", PROBLEMS)
def test_validation_alone_chooses_what_evaluation_chooses(tmp_path, kind: str):
    found = folders(tmp_path, kind)
    evaluated = found.evaluate().summary
    (found.splits / "test.parquet").unlink()
    for member in found.members.values():
        shutil.rmtree(member.pop("test"))
    artifacts = Artifacts(found.splits, found.members, found.checkpoints, found.fusions)
    chosen = chosen_on_validation(artifacts, problem=found.problem, settings=Evaluation(), seed=7)
    assert {k: chosen[k] for k in ("name", "kind", "metric", "validation")} == {
        k: evaluated["best"][k] for k in ("name", "kind", "metric", "validation")
    }
    metric = evaluated["metric"]
    every = [*evaluated["members"], *evaluated["fusions"]]
    assert chosen["models"] == pytest.approx({e["name"]: e["metrics"]["validation"][metric] for e in every})


def test_the_metric_that_is_named_judges(tmp_path):
    found = folders(tmp_path, noise={"full": 0.8, "lora": 2.5})
    artifacts = Artifacts(found.splits, found.members, found.checkpoints, found.fusions)
    settings = Evaluation(metric="log_loss")
    chosen = chosen_on_validation(artifacts, problem=found.problem, settings=settings, seed=7)
    assert chosen["metric"] == "log_loss"
    assert chosen["validation"] == min(chosen["models"].values())
