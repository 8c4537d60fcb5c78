"""Tiny artifacts of the steps before evaluation: splits, predictions, checkpoints and fitted fusions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ftlib.ensembling import References, fit, read_rows, read_scores
from ftlib.evaluation.evaluate import Artifacts, Evaluated, Evaluation, evaluate
from ftlib.files import write_json, write_table
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem

PROBLEMS: dict[str, dict[str, Any]] = {
    "single_label": {"name": "text_classification", "labels": ["bad", "fine", "good"]},
    "two_labels": {"name": "text_pair_classification", "labels": ["no", "yes"]},
    "multi_label": {
        "name": "text_classification",
        "labels": ["anger", "joy", "love"],
        "multi_label": True,
        "threshold": 0.4,
    },
    "value": {"name": "text_pair_regression"},
}
FUSIONS: dict[str, dict[str, Any]] = {
    "averaging": {"name": "averaging"},
    "weighted": {"name": "weighted", "weights_from": "optimised"},
    "stacking": {"name": "stacking", "C": 0.1},
    "voting": {"name": "voting"},
    "greedy": {"name": "greedy"},
}


@dataclass
class Folders:
    """What `evaluate` is given."""

    problem: Problem
    splits: Path
    members: dict[str, dict[str, Path]]
    checkpoints: dict[str, Path]
    fusions: dict[str, tuple[Fusion, Path]]

    def evaluate(self, **settings: Any) -> Evaluated:
        artifacts = Artifacts(self.splits, self.members, self.checkpoints, self.fusions)
        return evaluate(artifacts, problem=self.problem, settings=Evaluation(**settings), seed=7)


def folders(
    root: Path,
    kind: str = "single_label",
    *,
    noise: dict[str, float] | None = None,
    fusions: dict[str, dict[str, Any]] | None = None,
    rows: dict[str, int] | None = None,
    seed: int = 0,
) -> Folders:
    """Write everything that evaluation reads, in an order of rows of each file's own."""
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    problem = Problem.model_validate(PROBLEMS[kind])
    noise = noise or {"full": 0.8, "lora": 1.0, "prompt": 2.5}
    for split, size in (rows or {"validation": 120, "test": 150}).items():
        row_ids = random.permutation(10_000)[:size]
        logits = _write_split(root / "splits", split, problem, row_ids, random)
        for name, spread in noise.items():
            noisy = logits + spread * random.normal(size=logits.shape)
            _write_predictions(root / f"predict-{name}-{split}", row_ids, noisy, random)
    for i, name in enumerate(noise):
        path = root / f"train-{name}"
        path.mkdir()
        write_json(path / "ftlib.json", {"num_parameters": 1000 + i, "inference_parameters": 100 * (i + 1)})
    found = Folders(
        problem,
        root / "splits",
        {n: {s: root / f"predict-{n}-{s}" for s in ("validation", "test")} for n in noise},
        {n: root / f"train-{n}" for n in noise},
        {},
    )
    for name, method in (FUSIONS if fusions is None else fusions).items():
        found.fusions[name] = (Fusion.model_validate(method), _fit(root / f"fuse-{name}", method, found))
    return found


def write_predictions(folder: Path, row_ids: np.ndarray, logits: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    flat = pa.array(np.asarray(logits, dtype=np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    write_table(folder / "predictions.parquet", pa.table({"row_id": pa.array(row_ids, pa.int64()), "logits": column}))


def _write_predictions(folder: Path, row_ids: np.ndarray, logits: np.ndarray, random: np.random.Generator) -> None:
    order = random.permutation(len(row_ids))
    write_predictions(folder, row_ids[order], logits[order])


def _write_split(
    folder: Path, split: str, problem: Problem, row_ids: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Write a split, and return the logits of a model that is nearly always right."""
    folder.mkdir(exist_ok=True)
    labels, size = np.array(problem.target.labels), len(row_ids)
    texts = {name: [f"{name} of row {i}" for i in row_ids] for name in problem.text_columns}
    label: pa.Array
    if problem.target.kind == "value":
        gold = random.normal(2.5, 1, size)
        logits, label = gold[:, None], pa.array(gold)
    elif problem.target.kind == "multi_label":
        hot = random.random((size, len(labels))) < 0.3
        logits, label = 4.0 * hot - 2, pa.array([labels[row].tolist() for row in hot], pa.list_(pa.string()))
    else:
        ids = random.integers(0, len(labels), size)
        logits, label = 2.0 * np.eye(len(labels))[ids], pa.array(labels[ids].tolist())
    write_table(folder / f"{split}.parquet", pa.table({"row_id": row_ids, **texts, "label": label}))
    return logits


def _fit(folder: Path, method: dict[str, Any], found: Folders) -> Path:
    folder.mkdir()
    rows = read_rows(found.splits / "validation.parquet")
    scores = read_scores([m["validation"] for m in found.members.values()], rows, found.problem)
    fitted = fit(
        Fusion.model_validate(method),
        scores,
        References(scores.row_ids, found.problem.references(rows, scores.layout)),
        validation=None,
        target=found.problem.target,
        seed=3,
    )
    fitted.combiner.save(folder)
    write_table(folder / "validation.parquet", fitted.validation)
    return folder
