"""Prediction steps: one member's outputs on one split, computed once for all that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ftlib.artifacts import Draft
from ftlib.problems.base import Problem
from ftlib.steps import Step


class Predict(Step):
    """Run a checkpoint over a split and keep what it predicts."""

    libraries = ("torch", "transformers", "peft")

    problem: Problem
    split: str
    precision: Literal["auto", "float32"] = "float32"

    def run(self, draft: Draft, checkpoint: Path, encoded: Path) -> None:  # type: ignore[override]
        """Write predictions.parquet: one line a row, as the problem makes it."""
        from ftlib.data.encode import read_encoded
        from ftlib.files import read_json, write_table
        from ftlib.models import checkpoints
        from ftlib.prediction import predict

        problem = Problem.model_validate(read_json(encoded / "problem.json"))
        predictions = predict(
            checkpoints.load(checkpoint, problem),
            read_encoded(encoded / f"{self.split}.parquet"),
            problem,
            precision=self.precision,
            name=self.step_name,
        )
        write_table(draft.folder / "predictions.parquet", predictions.table)
        draft.metrics.update(predictions.figures)
