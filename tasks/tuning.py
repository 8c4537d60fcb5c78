"""The tuning step: what a trial is judged by."""

from __future__ import annotations

from pathlib import Path

from ftlib.artifacts import Draft
from ftlib.evaluation.evaluate import Evaluation
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.steps import Step


class Objective(Step):
    """Choose the best model on validation, as `Evaluate` does; nothing of the test split is read."""

    libraries = ("numpy", "scipy", "scikit-learn")

    problem: Problem
    evaluation: Evaluation
    members: tuple[str, ...]
    fusions: dict[str, Fusion]
    seed: int

    def run(self, draft: Draft, splits: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write objective.json: the chosen model, and every model's value on validation.

        `inputs` are those of `Evaluate` without what is predicted on test.
        """
        from ftlib.evaluation.evaluate import chosen_on_validation
        from ftlib.evaluation.gathering import gather
        from ftlib.files import read_json, write_json

        found = chosen_on_validation(
            gather(splits, inputs, members=self.members, fusions=self.fusions, read=("validation",)),
            problem=Problem.model_validate(read_json(splits / "problem.json")),
            settings=self.evaluation,
            seed=self.seed,
        )
        write_json(draft.folder / "objective.json", found)
