"""Registry step: pack the best model so that it can be served."""

from __future__ import annotations

from pathlib import Path

from ftlib.artifacts import Draft
from ftlib.data.clean import Cleaning
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.steps import Step


class Register(Step):
    """Pack the model that validation chose: its members, combiner, labels and cleaning, in one folder."""

    problem: Problem
    cleaning: Cleaning
    members: tuple[str, ...]
    fusions: dict[str, Fusion]

    def run(self, draft: Draft, splits: Path, evaluation: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write model.json, members/<name>/ and combiner/.

        `inputs` holds checkpoint_i for member i, fusion_j for fusion j, and merged_j where its members were merged.
        """
        from ftlib.files import read_json
        from ftlib.serving.packing import pack

        pack(
            draft.folder,
            best=read_json(evaluation / "evaluation.json")["best"]["name"],
            problem=Problem.model_validate(read_json(splits / "problem.json")),
            cleaning=self.cleaning,
            members={name: inputs[f"checkpoint_{i}"] for i, name in enumerate(self.members)},
            fusions={name: (fusion, inputs[f"fusion_{j}"]) for j, (name, fusion) in enumerate(self.fusions.items())},
            merged={name: inputs[f"merged_{j}"] for j, name in enumerate(self.fusions) if f"merged_{j}" in inputs},
        )
