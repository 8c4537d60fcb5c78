"""Trains one tiny stage as a process of its own, so that tests can kill it: START SCRATCH OUT.

With FTLIB_TEST_PAUSE it sleeps that many seconds after each step, and every step asks for a checkpoint.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ftlib import progress
from ftlib.files import write_json
from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.stage import Training
from tests import contracts


def main(start: Path, scratch: Path, out: Path, strategy: str = "full", pause: float = 0.0) -> None:
    """Train, save, and write the history."""
    problem = contracts.bound(Problem.named("text_classification")())
    stage.set_seed(5)
    checkpoint = checkpoints.load(start, problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer, limit=None)
    scratch.mkdir(parents=True, exist_ok=True)

    def watch(event: progress.Progress) -> None:
        if event.step == "train-test":
            (scratch / "progress.txt").write_text(f"{event.done:.0f}")
            time.sleep(pause)

    with progress.listen(watch):
        result = stage.train(
            checkpoint,
            contracts.repeated(rows, 4),
            rows,
            problem=problem,
            strategy=Strategy.named(strategy)(),
            settings=Training(
                learning_rate=5e-3,
                num_train_epochs=4.0,
                batch_size=4,
                evaluations_per_epoch=2,
                early_stopping_patience=6,
                checkpoint_seconds=1e-6 if pause else 1e6,
                precision="float32",
            ),
            seed=5,
            scratch=scratch,
            name="train-test",
        )
    checkpoints.save(result.checkpoint, out)
    write_json(out / "history.json", result.history)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), pause=float(os.environ.get("FTLIB_TEST_PAUSE", "0")))
