"""Prediction steps: what a member, or members together, say on one split, computed once for all that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ftlib.artifacts import Draft
from ftlib.fusion.base import Fusion
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


class Compare(Step):
    """Make sure, before anything is trained, that members which are to answer together have one vocabulary."""

    libraries = ("tokenizers", "transformers")

    problem: Problem
    fusion: Fusion
    members: tuple[str, ...]

    def run(self, draft: Draft, **checkpoints: Path) -> None:  # type: ignore[override]
        """Write vocabulary.json.

        `checkpoints` holds checkpoint_i, the pretrained model that member i descends from.
        """
        from ftlib.files import write_json
        from ftlib.models.ensembles import check_vocabularies

        used = self.fusion.joint(len(self.members)).used  # type: ignore[union-attr]
        found = {self.members[i]: self.problem.load_tokenizer(checkpoints[f"checkpoint_{i}"]) for i in used}
        check_vocabularies(found, asked_by=self.fusion.name)
        write_json(draft.folder / "vocabulary.json", {"members": list(found)})


class PredictJointly(Step):
    """Run the members over a split as one model, and keep what they say together."""

    libraries = ("torch", "transformers", "peft")

    problem: Problem
    fusion: Fusion
    members: tuple[str, ...]
    split: str
    precision: Literal["auto", "float32"] = "float32"

    def run(self, draft: Draft, **inputs: Path) -> None:  # type: ignore[override]
        """Write predictions.parquet, such as a member's own.

        `inputs` holds, for member i, checkpoint_i and encoded_i.
        """
        from ftlib.data.encode import read_encoded
        from ftlib.files import read_json, write_table
        from ftlib.models import checkpoints
        from ftlib.models.ensembles import Ensemble
        from ftlib.prediction import predict_jointly

        joint = self.fusion.joint(len(self.members))
        used = joint.used  # type: ignore[union-attr]
        problem = Problem.model_validate(read_json(inputs[f"encoded_{used[0]}"] / "problem.json"))
        opened = {self.members[i]: checkpoints.load(inputs[f"checkpoint_{i}"], problem) for i in used}
        predictions = predict_jointly(
            Ensemble.of(opened, joint),  # type: ignore[arg-type]
            [read_encoded(inputs[f"encoded_{i}"] / f"{self.split}.parquet") for i in used],
            problem,
            precision=self.precision,
            name=self.step_name,
        )
        write_table(draft.folder / "predictions.parquet", predictions.table)
        draft.metrics.update(predictions.figures)
