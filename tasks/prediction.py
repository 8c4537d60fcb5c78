"""Prediction steps: what a member, or members together, say on one split, computed once for all that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ftlib.artifacts import Draft
from ftlib.fusion.base import Fusion
from ftlib.problems.base import MAIN, Problem
from ftlib.steps import Step


class Predict(Step):
    """Run a checkpoint over a split and keep what it predicts."""

    libraries = ("torch", "transformers", "peft")

    problem: Problem
    split: str
    precision: Literal["auto", "float32"] = "float32"
    task: str = MAIN

    def run(self, draft: Draft, checkpoint: Path, encoded: Path) -> None:  # type: ignore[override]
        """Write predictions.parquet: one line a row, as the problem makes it."""
        from ftlib.data.encode import read_encoded
        from ftlib.files import read_json, write_table
        from ftlib.models import checkpoints
        from ftlib.prediction import predict

        problem = Problem.model_validate(read_json(encoded / "problem.json"))
        predictions = predict(
            checkpoints.load(checkpoint, problem, self.task),
            read_encoded(encoded / f"{self.split}.parquet"),
            problem,
            precision=self.precision,
            name=self.step_name,
        )
        write_table(draft.folder / "predictions.parquet", predictions.table)
        draft.metrics.update(predictions.figures)


class Describe(Step):
    """Run a teacher over the training rows, and keep what its layers make of them beside what it predicts."""

    libraries = ("torch", "transformers", "peft")

    problem: Problem
    splits: tuple[str, ...]
    num_blocks: int | None
    hidden: bool
    attention: bool
    task: str = MAIN

    def run(self, draft: Draft, checkpoint: Path, encoded: Path) -> None:  # type: ignore[override]
        """Write predictions.parquet, such as a member's, and the layers: see `ftlib.training.layer_states`."""
        from ftlib.data.encode import read_splits
        from ftlib.files import read_json, write_table
        from ftlib.models import checkpoints
        from ftlib.prediction import describe
        from ftlib.strategies.base import Lesson

        problem = Problem.model_validate(read_json(encoded / "problem.json"))
        found = describe(
            checkpoints.load(checkpoint, problem, self.task),
            read_splits(encoded, self.splits),
            problem,
            Lesson("teacher", self.num_blocks, hidden=self.hidden, attention=self.attention),
            draft.folder,
            name=self.step_name,
        )
        write_table(draft.folder / "predictions.parquet", found.table)
        draft.metrics.update(found.figures)


class SameTokens(Step):
    """Make sure, before anything is trained, that a student reads the tokens that its teacher reads."""

    teacher: str
    student: str

    def run(self, draft: Draft, teacher_encoded: Path, student_encoded: Path) -> None:  # type: ignore[override]
        """Write tokens.json; refuse other tokens."""
        from ftlib.data.encode import read_encoded
        from ftlib.errors import UnsupportedError
        from ftlib.files import write_json

        rows = [read_encoded(folder / "train.parquet")["input_ids"] for folder in (teacher_encoded, student_encoded)]
        if not rows[0].equals(rows[1]):
            raise UnsupportedError(
                f"{self.student} cannot learn what its teacher {self.teacher} makes of each token: their tokenizers "
                "cut the rows into other tokens. Learn its scores alone, or take a base_model with the same tokenizer."
            )
        write_json(draft.folder / "tokens.json", {"rows": len(rows[0])})


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


class PredictFused(Step):
    """Say of a split what a fitted fusion makes of its members' predictions, as a member would: so that it teaches."""

    libraries = ("numpy", "scipy", "scikit-learn")

    fusion: Fusion
    split: str

    def run(self, draft: Draft, splits: Path, combiner: Path, **predictions: Path) -> None:  # type: ignore[override]
        """Write predictions.parquet; `predictions` holds predictions_i, what member i says of the split."""
        from ftlib.ensembling import fused_predictions, read_rows, read_scores
        from ftlib.files import read_json, write_table

        problem = Problem.model_validate(read_json(splits / "problem.json"))
        rows = read_rows(splits / f"{self.split}.parquet")
        scores = read_scores([predictions[f"predictions_{i}"] for i in range(len(predictions))], rows, problem)
        table = fused_predictions(self.fusion.load(combiner), scores, problem.target)
        write_table(draft.folder / "predictions.parquet", table)
