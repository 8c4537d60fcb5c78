"""Fusion steps: fit one way of combining the members on held-out rows, or make one model of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.artifacts import Draft
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.steps import Step

if TYPE_CHECKING:
    from pyarrow import Table

    from ftlib.ensembling import Scores


class Merge(Step):
    """Make one model of members' weights."""

    libraries = ("torch", "transformers", "tokenizers", "peft")

    problem: Problem
    fusion: Fusion
    members: tuple[str, ...]
    scored_split: str

    def run(self, draft: Draft, encoded: Path, start: Path | None = None, **inputs: Path) -> None:  # type: ignore[override]
        """Write a checkpoint, such as a stage's.

        `inputs` holds checkpoint_i for member i of those that are merged and, where the fusion scores mixes,
        predictions_i, what that member says on `scored_split`.
        """
        from ftlib.data.encode import read_encoded
        from ftlib.files import read_json
        from ftlib.models import checkpoints
        from ftlib.models.merging import Rows, merge

        found: dict[str, Any] = {"checkpoint": [], "predictions": []}
        for kind, folders in found.items():
            folders += [inputs[f"{kind}_{i}"] for i in range(len(self.members)) if f"{kind}_{i}" in inputs]
        rows = Rows(
            read_encoded(encoded / "validation.parquet"),
            read_encoded(encoded / f"{self.scored_split}.parquet"),
            found["predictions"],
        )
        problem = Problem.model_validate(read_json(encoded / "problem.json"))
        members = dict(zip(self.members, found["checkpoint"], strict=True))
        checkpoints.save(merge(self.fusion, members, rows, problem, start=start), draft.folder)


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
        from ftlib.ensembling import References, fit, read_rows, read_scores
        from ftlib.files import read_json, write_table

        problem = Problem.model_validate(read_json(splits / "problem.json"))

        def scores(split: str, kind: str) -> tuple[Table, Scores]:
            rows = read_rows(splits / f"{split}.parquet")
            return rows, read_scores([predictions[f"{kind}_{i}"] for i in range(len(self.members))], rows, problem)

        rows, fitting = scores(self.fitting_split, "fitting")
        fitted = fit(
            self.fusion,
            fitting,
            References(fitting.row_ids, problem.references(rows, fitting.layout)),
            validation=None if self.fitting_split == "validation" else scores("validation", "validation")[1],
            target=problem.target,
            seed=self.seed,
        )
        fitted.combiner.save(draft.folder)
        write_table(draft.folder / "validation.parquet", fitted.validation)
