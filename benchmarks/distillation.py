"""What a teacher gives a smaller student, and what its being asked only once saves.

    python -m benchmarks.distillation --train train.tsv --test dev.tsv
    python -m benchmarks.distillation --train train.tsv --test dev.tsv --speed

A teacher is fine-tuned; then the same student (some blocks) is trained with the gold labels alone, cut out of the base
model, and with the teacher, cut out of the teacher (with --from-base out of the base model, too), same rows, epochs and
rates; all are measured on the test file after their last step. "kept" is
the student's share of its teacher's accuracy, "closed" the share of the gap between the teacher and the student without
one. With --held-out the last rows of the train file stand for the test file: for looking for a recipe.

--speed: rows a second of the taught student's epoch, against plain `transformers.Trainer` with its defaults in which
the teacher runs (float32, without gradients) at each step, as distillation is commonly written; both in one process, in
turn. What the teacher costs once, before the first epoch, is told beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.trainer import DEFAULT_CALLBACKS

from benchmarks.training import Clock, Data, accuracy, add_data_options, parse, plain_trainer, read_data
from ftlib.models import checkpoints
from ftlib.prediction import describe, predict
from ftlib.problems._learning import vectors
from ftlib.strategies.base import Lesson, Strategy
from ftlib.training import stage
from ftlib.training.stage import Training

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.models.checkpoints import Checkpoint


def main() -> None:
    """Run what was asked for and print a table."""
    options = _options()
    DEFAULT_CALLBACKS.append(Clock)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        checkpoints.fetch(options.model, start)
        data = read_data(options, start)
        if options.held_out:
            cut = round(len(data.train) * (1 - options.held_out))
            data = replace(data, train=data.train.slice(0, cut), test=data.train.slice(cut))
        print(f"{len(data.train):,} training rows, {len(data.test):,} test rows, {options.model}, student of "
              f"{options.blocks} blocks\n", flush=True)  # fmt: skip
        (compare_speed if options.speed else compare_accuracy)(Path(folder), data, options)


# -- accuracy --------------------------------------------------------------------------------------------


def compare_accuracy(folder: Path, data: Data, options: argparse.Namespace) -> None:
    """Print accuracies of the teacher and of the student without and with it, seed by seed."""
    titles = ("teacher", "alone", "taught", "kept", "closed")
    print(f"{'seed':>6}" + "".join(f"{title:>10}" for title in titles), flush=True)
    found = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        work = folder / str(seed)
        teacher = trained(folder / "start", data.train, {"name": "full"}, data, options.teacher, seed, work / "teacher")
        checkpoints.save(teacher, work / "taught")
        alone = trained(folder / "start", _without(data), _student(options, alpha=0.0), data, options.student,
                        seed, work / "alone")  # fmt: skip
        origin = folder / "start" if options.from_base else work / "taught"
        taught = taught_student(origin, teacher, data, options, seed, work)
        found.append(tuple(accuracy(checkpoint, data) for checkpoint in (teacher, alone, taught)))
        print(_row(str(seed), found[-1]), flush=True)
    print(_row("mean", tuple(statistics.mean(column) for column in zip(*found, strict=True))))


def taught_student(
    origin: Path, teacher: Checkpoint, data: Data, options: argparse.Namespace, seed: int, work: Path
) -> Checkpoint:
    """Return the student after it has learned from the teacher."""
    weights = {"hidden_weight": options.hidden_weight, "attention_weight": options.attention_weight}
    strategy = _student(options, alpha=options.alpha, temperature=options.temperature, **weights)
    lesson = Lesson("teacher", options.blocks, hidden=options.hidden_weight > 0, attention=options.attention_weight > 0)
    rows, layers = lectured(teacher, data, lesson, work / "layers")
    return trained(origin, rows, strategy, data, options.student, seed, work / "taught-student", layers)


def lectured(teacher: Checkpoint, data: Data, lesson: Lesson, folder: Path) -> tuple[pa.Table, Path | None]:
    """Return the training rows with the teacher's logits, and where its layers are kept if they are wanted."""
    if lesson.hidden or lesson.attention:
        folder.mkdir(parents=True)
        told = describe(teacher, data.train, data.problem, lesson, folder)
        print(f"       kept of the teacher's layers: {told.figures['kept_bytes'] / 2**20:,.0f} MiB", flush=True)
        return data.problem.teach(data.train, [told.table]), folder
    return data.problem.teach(data.train, [predict(teacher, data.train, data.problem, precision="auto").table]), None


def trained(
    start: Path,
    rows: pa.Table,
    strategy: Mapping[str, Any],
    data: Data,
    settings: Training,
    seed: int,
    scratch: Path,
    layers: Path | None = None,
) -> Checkpoint:
    """Return a checkpoint after its last step; no validation chooses among its weights."""
    stage.set_seed(seed)
    return stage.train(
        checkpoints.load(start, data.problem),
        rows,
        data.train.slice(0, 0),
        problem=data.problem,
        strategy=Strategy.model_validate(strategy),
        settings=settings,
        seed=seed,
        scratch=scratch,
        name="benchmark",
        layers=layers,
    ).checkpoint


def _student(options: argparse.Namespace, **fields: Any) -> dict[str, Any]:
    return {"name": "distillation", "student_blocks": options.blocks, **fields}


def _without(data: Data) -> pa.Table:
    """Return the training rows with logits that nobody weighs: alpha is 0."""
    logits = np.zeros((len(data.train), data.problem.target.num_outputs), np.float32)
    return data.train.append_column("teacher_logits", vectors(logits))


def _row(name: str, found: tuple[float, ...]) -> str:
    teacher, alone, taught = found
    closed = f"{(taught - alone) / (teacher - alone):>10.1%}" if teacher > alone else f"{'no gap':>10}"
    return f"{name:>6}" + "".join(f"{value:>10.4f}" for value in found) + f"{taught / teacher:>10.1%}" + closed


# -- speed -----------------------------------------------------------------------------------------------


def compare_speed(folder: Path, data: Data, options: argparse.Namespace) -> None:
    """Print the rows a second of both ways, run by run."""
    one = replace_epochs(options.teacher, 1.0)
    teacher = trained(folder / "start", data.train, {"name": "full"}, data, one, 0, folder / "teacher")
    started = time.perf_counter()
    rows, _ = lectured(teacher, data, Lesson("teacher", None, hidden=False, attention=False), folder / "layers")
    print(f"the teacher reads all rows once in {time.perf_counter() - started:.1f} s\n")
    print(f"{'run':>6}{'plain':>12}{'ftlib':>12}{'ratio':>8}")
    settings = replace_epochs(options.student, 1.0)
    found = []
    for run in range(1, options.seeds + 1):
        plain = plain_rate(folder / "start", teacher, data, options, run)
        strategy = _student(options, alpha=options.alpha, temperature=options.temperature)
        trained(folder / "start", rows, strategy, data, settings, run, folder / f"run-{run}")
        found.append((plain, Clock.later(len(rows))))
        print(f"{run:>6}{plain:>12.1f}{found[-1][1]:>12.1f}{found[-1][1] / plain:>8.2f}", flush=True)
    medians = [statistics.median(side) for side in zip(*found, strict=True)]
    print(f"{'median':>6}{medians[0]:>12.1f}{medians[1]:>12.1f}{statistics.median(b / a for a, b in found):>8.2f}")


def replace_epochs(settings: Training, epochs: float) -> Training:
    """Return settings with another number of epochs."""
    return settings.model_copy(update={"num_train_epochs": epochs})


def plain_rate(start: Path, teacher: Checkpoint, data: Data, options: argparse.Namespace, seed: int) -> float:
    """Return the rows a second of an epoch in which the teacher runs at each step."""
    stage.set_seed(seed)
    checkpoint = checkpoints.load(start, data.problem)
    Strategy.model_validate(_student(options)).adapt(checkpoint.model, data.problem)
    with tempfile.TemporaryDirectory() as folder, checkpoints.quiet():
        trainer = plain_trainer(
            _with_teacher(),
            checkpoint,
            data,
            output_dir=folder,
            learning_rate=options.student.learning_rate,
            num_train_epochs=1.0,
            per_device_train_batch_size=options.student.batch_size,
            seed=seed,
        )
        trainer.teacher, trainer.alpha, trainer.temperature = teacher.model.eval(), options.alpha, options.temperature
        trainer.train()
    return Clock.later(len(data.train))


def _with_teacher() -> Any:
    import torch
    from torch.nn import functional as F
    from transformers import Trainer

    class PlainTrainer(Trainer):
        """Distillation as it is commonly written: the teacher runs beside the student."""

        teacher: Any
        alpha: float
        temperature: float

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            output = model(**inputs)
            with torch.no_grad():
                taught = self.teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits
            soft = F.kl_div(
                F.log_softmax(output.logits / self.temperature, dim=-1),
                F.softmax(taught / self.temperature, dim=-1),
                reduction="batchmean",
            )
            loss = self.alpha * soft * self.temperature**2 + (1 - self.alpha) * output.loss
            return (loss, output) if return_outputs else loss

    return PlainTrainer


# -- the command line ------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distillation", description=(__doc__ or "").partition("\n")[0]
    )
    add_data_options(parser)
    parser.add_argument("--held-out", type=float, default=0.0, help="share of the training rows to measure on instead")
    parser.add_argument("--speed", action="store_true", help="measure rows a second instead of accuracy")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=3, help="blocks of the student")
    parser.add_argument("--from-base", action="store_true", help="cut the taught student out of the base model, too")
    parser.add_argument("--teacher-epochs", type=float, default=3.0)
    parser.add_argument("--teacher-rate", type=float, default=1e-4)
    parser.add_argument("--student-epochs", type=float, default=6.0)
    parser.add_argument("--student-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=0.9)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--hidden-weight", type=float, default=0.0)
    parser.add_argument("--attention-weight", type=float, default=0.0)
    options = parse(parser)
    for who in ("teacher", "student"):
        epochs, rate = getattr(options, f"{who}_epochs"), getattr(options, f"{who}_rate")
        settings = Training(learning_rate=rate, num_train_epochs=epochs, batch_size=options.batch_size)
        setattr(options, who, settings)
    return options


if __name__ == "__main__":
    main()
