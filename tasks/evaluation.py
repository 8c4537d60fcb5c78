"""Evaluation step: the only one that reads the test split's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlib.artifacts import Draft
from ftlib.evaluation.evaluate import Evaluation
from ftlib.fusion.base import Fusion
from ftlib.plugins import Section
from ftlib.problems.base import Problem
from ftlib.steps import Step


class MemberCard(Section):
    """What the report says of a member, beside its figures."""

    name: str
    strategy: dict[str, Any]
    start_from: str
    training: dict[str, Any]


class FusionCard(Section):
    """A fusion under its name."""

    name: str
    method: Fusion


class Evaluate(Step):
    """Measure members and fusions, test them against each other, choose on validation, report on test."""

    libraries = ("numpy", "scipy", "scikit-learn", "jinja2", "markupsafe")

    experiment: str
    problem: Problem
    evaluation: Evaluation
    members: tuple[MemberCard, ...]
    fusions: tuple[FusionCard, ...]
    seed: int

    def run(self, draft: Draft, collected: Path, cleaned: Path, splits: Path, encoded: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write evaluation.json, errors.parquet and report.html.

        `inputs` holds, for member i, checkpoint_i, validation_i and test_i; for fusion j, fusion_j.
        """
        from ftlib.evaluation.evaluate import evaluate
        from ftlib.files import read_json, write_json, write_table
        from ftlib.report import Story, render

        problem = Problem.model_validate(read_json(splits / "problem.json"))
        checkpoints = {m.name: inputs[f"checkpoint_{i}"] for i, m in enumerate(self.members)}
        result = evaluate(
            problem=problem,
            settings=self.evaluation,
            splits=splits,
            members={
                m.name: {split: inputs[f"{split}_{i}"] for split in ("validation", "test")}
                for i, m in enumerate(self.members)
            },
            checkpoints=checkpoints,
            fusions={f.name: (f.method, inputs[f"fusion_{j}"]) for j, f in enumerate(self.fusions)},
            seed=self.seed,
        )
        write_json(draft.folder / "evaluation.json", result.summary)
        write_table(draft.folder / "errors.parquet", result.errors)
        story = Story(
            experiment=self.experiment,
            members=[m.model_dump(mode="json") for m in self.members],
            collected=read_json(collected / "collect.json"),
            cleaning=read_json(cleaned / "cleaning.json"),
            splits=read_json(splits / "splits.json"),
            encoding=read_json(encoded / "encoding.json"),
            histories={name: read_json(folder / "history.json") for name, folder in checkpoints.items()},
            evaluation=result.summary,
            errors=result.errors,
            settings={"seed": self.seed},
        )
        (draft.folder / "report.html").write_text(render(story), encoding="utf8")
