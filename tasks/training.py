"""Training steps: fetch a pretrained model, train a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlib.artifacts import Draft
from ftlib.problems.base import MAIN, Problem
from ftlib.steps import Step
from ftlib.strategies.base import Strategy
from ftlib.training.stage import Training


class Fetch(Step):
    """Bring a pretrained model and its tokenizer into the store."""

    not_in_key = frozenset({"base_model"})

    base_model: str

    def fingerprint(self) -> str:
        """Return a digest of the pretrained model's files, or its revision on the hub."""
        from ftlib.models.checkpoints import fingerprint

        return fingerprint(self.base_model)

    def run(self, draft: Draft) -> None:  # type: ignore[override]
        """Write the model's files."""
        from ftlib.models.checkpoints import fetch

        fetch(self.base_model, draft.folder)


class Train(Step):
    """Train one stage: a strategy applied to a checkpoint."""

    libraries = ("torch", "transformers", "tokenizers", "accelerate", "peft")

    problem: Problem
    strategy: Strategy
    training: Training
    seed: int
    task: str = MAIN
    others: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)

    def parameters(self) -> dict[str, Any]:
        """Leave out what shapes no result."""
        return self.model_dump(
            mode="json", exclude={"step_name": True, "inputs": True, "training": {"checkpoint_seconds"}}
        )

    def run(self, draft: Draft, start: Path, encoded: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write the checkpoint (model, tokenizer, ftlib.json, kept heads) and history.json.

        `inputs` holds teacher_i and unlabelled_i, the predictions of teacher i on the training rows and on those
        without labels, layers, what was kept of a teacher's layers, and task_i, the encoded rows of the i-th of
        `others`.
        """
        from ftlib.data.encode import read_encoded
        from ftlib.files import read_json, write_json
        from ftlib.models import checkpoints
        from ftlib.prediction import training_rows
        from ftlib.training import stage

        problem = Problem.model_validate(read_json(encoded / "problem.json"))
        stage.set_seed(self.seed)  # before loading: new heads and adapters are drawn at random
        checkpoint = self.strategy.open(start, problem, self.task)
        rows = training_rows(encoded, self.splits, inputs, problem, checkpoint.tokenizer)
        result = stage.train(
            checkpoint,
            rows,
            read_encoded(encoded / "validation.parquet"),
            problem=problem,
            strategy=self.strategy,
            settings=self.training,
            seed=self.seed,
            scratch=draft.scratch,
            name=self.step_name,
            task=self.task,
            layers=inputs.get("layers"),
            others={name: stage.read_task(inputs[f"task_{i}"]) for i, name in enumerate(self.others)},
        )
        checkpoints.save(result.checkpoint, draft.folder)
        write_json(draft.folder / "history.json", result.history)
        draft.metrics.update(result.figures)
        if "unlabelled" in self.splits:
            draft.metrics["num_unlabelled_rows"] = float(len(read_encoded(encoded / "unlabelled.parquet")))
