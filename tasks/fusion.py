"""Fusion steps: fit one way of combining the members on held-out rows."""

from __future__ import annotations

from pathlib import Path

from ftlib.artifacts import Draft
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.steps import Step


class Fuse(Step):
    """Fit a fusion; its validation scores are honest ones, fitted without the rows they are for."""

    libraries = ("numpy", "scipy", "scikit-learn")

    problem: Problem
    fusion: Fusion
    members: tuple[str, ...]
    fitting_split: str
    seed: int

    def run(self, draft: Draft, splits: Path, **predictions: Path) -> None:  # type: ignore[override]
        """Write the combiner and validation.parquet: row_id and scores.

        `predictions` holds fitting_0, fitting_1... (one a member) and, where the fitting split is not
        validation, validation_0, validation_1...
        """
        from ftlib.ensembling import fit, read_references, read_scores
        from ftlib.files import read_json, write_table

        problem = Problem.model_validate(read_json(splits / "problem.json"))
        numbers = range(len(self.members))
        fitted = fit(
            self.fusion,
            read_scores([predictions[f"fitting_{i}"] for i in numbers], problem),
            read_references(splits / f"{self.fitting_split}.parquet", problem),
            validation=(
                None
                if self.fitting_split == "validation"
                else read_scores([predictions[f"validation_{i}"] for i in numbers], problem)
            ),
            target=problem.target,
            seed=self.seed,
        )
        fitted.combiner.save(draft.folder)
        write_table(draft.folder / "validation.parquet", fitted.validation)
