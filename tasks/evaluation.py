"""Evaluation steps: measure on test, explain the worst errors, tell all of it in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

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
    """Measure members and fusions, test them against each other, choose on validation, measure on test.

    The only step that reads the test split's predictions.
    """

    libraries = ("numpy", "scipy", "scikit-learn")

    problem: Problem
    evaluation: Evaluation
    members: tuple[str, ...]
    fusions: tuple[FusionCard, ...]
    seed: int

    def run(self, draft: Draft, splits: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write evaluation.json and errors.parquet.

        `inputs` holds, for member i, checkpoint_i, validation_i and test_i; for fusion j, fusion_j, where its
        members answer as one validation_fusion_j and test_fusion_j, and where they were merged merged_j.
        """
        from ftlib.evaluation.evaluate import evaluate
        from ftlib.evaluation.gathering import gather
        from ftlib.files import read_json, write_json, write_table

        fusions = {fusion.name: fusion.method for fusion in self.fusions}
        artifacts = gather(splits, inputs, members=self.members, fusions=fusions)
        problem = Problem.model_validate(read_json(splits / "problem.json"))
        result = evaluate(artifacts, problem=problem, settings=self.evaluation, seed=self.seed)
        write_json(draft.folder / "evaluation.json", result.summary)
        write_table(draft.folder / "errors.parquet", result.errors)


class Transfer(Step):
    """Measure every stage on every task that it answers, and what learning one task did to the others."""

    libraries = ("numpy", "scipy", "scikit-learn")

    tasks: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    lines: dict[str, tuple[str, ...]]
    learns: dict[str, str]
    evaluation: Evaluation
    seed: int

    def run(self, draft: Draft, **inputs: Path) -> None:  # type: ignore[override]
        """Write transfer.json.

        `inputs` holds splits_i for task i, and test_i, the test predictions of the i-th (stage, task) of `answers`.
        """
        from ftlib.evaluation.transfer import transfer
        from ftlib.files import write_json

        found = transfer(
            {task: inputs[f"splits_{i}"] for i, task in enumerate(self.tasks)},
            {(stage, task): inputs[f"test_{i}"] for i, (stage, task) in enumerate(self.answers)},
            lines=self.lines,
            learns=self.learns,
            settings=self.evaluation,
            seed=self.seed,
        )
        write_json(draft.folder / "transfer.json", found)


class Explain(Step):
    """Find out which words the best model's worst errors rest on."""

    libraries = ("captum", "torch", "transformers", "peft")

    problem: Problem
    members: tuple[str, ...]
    fusions: tuple[FusionCard, ...]
    number: int = Field(ge=0)

    def run(self, draft: Draft, splits: Path, evaluation: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write explanations.json: one an error, or the reason why there are none.

        `inputs` holds checkpoint_i for member i, fusion_j for fusion j, and merged_j where its members were merged.
        """
        from ftlib.explaining.errors import explain_errors
        from ftlib.files import read_json, read_table, write_json

        found = explain_errors(
            read_table(evaluation / "errors.parquet"),
            best=read_json(evaluation / "evaluation.json")["best"]["name"],
            problem=Problem.model_validate(read_json(splits / "problem.json")),
            members={name: inputs[f"checkpoint_{i}"] for i, name in enumerate(self.members)},
            fusions={f.name: (f.method, inputs[f"fusion_{j}"]) for j, f in enumerate(self.fusions)},
            merged={f.name: inputs[f"merged_{j}"] for j, f in enumerate(self.fusions) if f"merged_{j}" in inputs},
            number=self.number,
        )
        write_json(draft.folder / "explanations.json", found)


class Report(Step):
    """Tell the experiment's story on one page."""

    libraries = ("jinja2", "markupsafe")

    experiment: str
    members: tuple[MemberCard, ...]
    seed: int

    def run(  # type: ignore[override]
        self,
        draft: Draft,
        collected: Path,
        cleaned: Path,
        splits: Path,
        encoded: Path,
        evaluation: Path,
        explained: Path,
        **inputs: Path,
    ) -> None:
        """Write report.html.

        `inputs` holds checkpoint_i for member i, transfer where there are several tasks, and choice where the base
        model was chosen.
        """
        from ftlib.files import read_json, read_table
        from ftlib.report import Story, render

        story = Story(
            experiment=self.experiment,
            members=[m.model_dump(mode="json") for m in self.members],
            collected=read_json(collected / "collect.json"),
            cleaning=read_json(cleaned / "cleaning.json"),
            splits=read_json(splits / "splits.json"),
            encoding=read_json(encoded / "encoding.json"),
            histories={
                m.name: read_json(inputs[f"checkpoint_{i}"] / "history.json") for i, m in enumerate(self.members)
            },
            evaluation=read_json(evaluation / "evaluation.json"),
            errors=read_table(evaluation / "errors.parquet"),
            explanations=read_json(explained / "explanations.json")["explanations"],
            transfer=read_json(inputs["transfer"] / "transfer.json") if "transfer" in inputs else {},
            base_model=read_json(inputs["choice"] / "choice.json") if "choice" in inputs else {},
            settings={"seed": self.seed},
        )
        (draft.folder / "report.html").write_text(render(story), encoding="utf8")
