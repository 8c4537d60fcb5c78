"""Tasks learned one after the other on one encoder: how much of the earlier ones each method loses.

    python -m benchmarks.continual params/sst2.yaml params/mrpc.yaml params/goemotions.yaml
    python -m benchmarks.continual params/sst2.yaml params/mrpc.yaml --methods full,replay --seeds 3 \
        --set sst2.data.sources.train=sst2/train.tsv --set mrpc.training.num_train_epochs=2

Each params file gives one task: its problem, data, cleaning, splitting and training section; its stages are left out.
The first file's stage starts from its base model, by full fine-tuning, and is shared; from it each method learns the
other tasks in their order. Every stage is measured on the test rows of all tasks that it has learned. "kept" is the
score after the last stage less the score right after the task was learned, with its paired bootstrap interval.
Results are kept in the store ($FTLIB_HOME): run again, only what is new is computed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.choices import some_of
from ftlib.errors import unknown

if TYPE_CHECKING:
    from ftlib.params.experiment import Experiment

NO_REPLAY: dict[str, Any] = {"name": "continual", "replay_rows": 0}

METHODS: dict[str, dict[str, Any]] = {
    "full": {"strategy": "full"},
    "l2_sp": {"strategy": "full", "training": {"regularization": {"l2_sp": 0.1}}},
    "ewc": {"strategy": {**NO_REPLAY, "ewc": 1e4}},
    "lwf": {"strategy": {**NO_REPLAY, "lwf": 1.0}},
    "replay": {"strategy": "continual"},
    "replay: all rows": {
        "strategy": {"name": "continual", "replay_rows": 1_000_000, "replay_held": 3.0, "head_ratio": 0.1}
    },
    "replay+lwf": {"strategy": {"name": "continual", "lwf": 1.0}},
    "replay+ewc": {"strategy": {"name": "continual", "ewc": 1e4}},
}
"""What the stages after the first learn with."""

LEARNING_RATE = 1e-4


def main() -> None:
    """Run every method with every seed and print what each task's score was and what was kept of it."""
    options = _options()
    methods = options.methods
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(1, options.seeds + 1):
        for name in methods:
            experiment = _experiment(options, name, seed)
            line, spent = _computed(experiment)
            lines[name].append(line)
            seconds[name].append(spent)
            print(json.dumps({"method": name, "seed": seed, "seconds": round(spent, 1), **_brief(line)}), flush=True)
    _print(lines, seconds)


def _experiment(options: argparse.Namespace, method: str, seed: int) -> Experiment:
    """Return one experiment of all files: the first is its main task, a stage a task."""
    from ftlib.params.experiment import Experiment
    from ftlib.params.loading import load_experiment

    names = [path.stem for path in options.params]
    given = [load_experiment(path, _overrides(options, path.stem)) for path in options.params]
    parts = ("problem", "data", "cleaning", "splitting")
    dumped = [{part: getattr(one, part).model_dump(mode="json") for part in parts} for one in given]
    trainings = [one.training.model_dump(mode="json", exclude_unset=True) for one in given]
    stages: list[dict[str, Any]] = [_stage(names[0], "main", "base", {"strategy": "full"}, trainings[0])]
    for name, training in zip(names[1:], trainings[1:], strict=True):
        stages.append(_stage(name, name, stages[-1]["name"], METHODS[method], training))
    return Experiment.model_validate(
        {
            "name": f"continual-{re.sub(r'[^a-z0-9]+', '-', method)}",
            "seed": seed,
            "base_model": options.base_model or given[0].base_model,
            **dumped[0],
            "tasks": [{"name": name, **dump} for name, dump in zip(names[1:], dumped[1:], strict=True)],
            "stages": stages,
            "fusions": [],
        }
    )


def _overrides(options: argparse.Namespace, name: str) -> list[str]:
    """Return the overrides that are for one file: those that begin with its name."""
    return [text.removeprefix(f"{name}.") for text in options.overrides if text.startswith(f"{name}.")]


def _stage(name: str, task: str, start: str, method: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    rates = {"learning_rate": LEARNING_RATE, **training, **method.get("training", {})}
    return {"name": name, "task": task, "start_from": start, "strategy": method["strategy"], "training": rates}


def _computed(experiment: Experiment) -> tuple[dict[str, Any], float]:
    """Execute what leads to the table of tasks; return its line, and the seconds of the stages after the first."""
    from flows import graph
    from ftlib import state
    from ftlib.files import read_json
    from ftlib.steps import executed, needed_for

    store = state.store()
    steps = needed_for("transfer", graph.steps(experiment))
    outcomes = {step.step_name: outcome for step, outcome in executed(steps, store, scope="benchmark-continual")}
    later = [outcomes[f"train-{stage.name}"].record.metrics["train_seconds"] for stage in experiment.stages[1:]]
    found = read_json(store.open(outcomes["transfer"].artifact) / "transfer.json")
    return found["lines"][0], sum(later)


def _brief(line: dict[str, Any]) -> dict[str, Any]:
    kept = {k["task"]: [round(k["before"], 4), round(k["after"], 4)] for k in line["kept"]}
    return {**kept, line["tasks"][-1]: round(line["table"][-1][-1], 4)}


def _print(lines: dict[str, list[dict[str, Any]]], seconds: dict[str, list[float]]) -> None:
    for name, found in lines.items():
        print(f"\n{name} ({statistics.mean(seconds[name]):.0f} s)")
        for i, task in enumerate(found[0]["tasks"]):
            learned = statistics.mean(_learned(line, i) for line in found)
            end = statistics.mean(line["table"][-1][i] for line in found)
            print(f"  {task:<14}{learned:>8.4f} -> {end:.4f}{_kept(found, task)}")


def _learned(line: dict[str, Any], i: int) -> float:
    """Return a task's score right after its own stage: the first that it has."""
    return next(row[i] for row in line["table"] if row[i] is not None)


def _kept(found: list[dict[str, Any]], task: str) -> str:
    entries = [entry for line in found for entry in line["kept"] if entry["task"] == task]
    if not entries:
        return ""
    gain = statistics.mean(entry["gain"] for entry in entries)
    low, high = entries[0]["interval"] or (gain, gain)
    interval = f"  [{low:+.4f}, {high:+.4f}]" if len(entries) == 1 else f"  over {len(entries)} seeds"
    return f"   kept {gain:+.4f}{interval}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continual", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("params", type=Path, nargs="+", help="params files, in the order of learning: two or more")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="FILE.KEY=VALUE")
    parser.add_argument("--base-model", help="instead of the first file's")
    parser.add_argument(
        "--methods",
        type=some_of("method", METHODS),
        default=list(METHODS),
        help=f"some of: {', '.join(METHODS)}; all unless given",
    )
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    names = [path.stem for path in options.params]
    for text in options.overrides:
        if text.partition(".")[0] not in names:
            parser.error(f"--set {text}: {unknown('params file', text.partition('.')[0], names)}")
    return options


if __name__ == "__main__":
    main()
