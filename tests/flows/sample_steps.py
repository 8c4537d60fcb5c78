"""A whole pipeline of steps that do no work: their artifacts look like the real ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ftlib.artifacts import Draft
from ftlib.errors import DataError
from ftlib.steps import Step


class Collect(Step):
    text: str = "rows"

    def fingerprint(self) -> str:
        if self.text == "no key":
            raise DataError("rows.csv: is gone. Bring it back.")
        return self.text

    def run(self, draft: Draft) -> None:  # type: ignore[override]
        _write(draft, "collect.json", {"rows": {"all": 12}, "text": self.text})


class Clean(Step):
    def run(self, draft: Draft, rows: Path) -> None:  # type: ignore[override]
        read = json.loads((rows / "collect.json").read_text())
        if read["text"] == "bad rows":
            raise DataError("rows.csv: 7 of 12 rows rejected. Check the mapping.")
        _write(draft, "cleaning.json", {"read": 12, "kept": 10, "rejected": {"empty text": 2, "duplicate": 0}})


class Split(Step):
    def run(self, draft: Draft, rows: Path) -> None:  # type: ignore[override]
        _write(draft, "splits.json", {"rows": {"train": 6, "validation": 2, "test": 2}, "leaks": {"train in test": 1}})


class Train(Step):
    learning_rate: float = 0.1
    seconds: float = 0.0

    def run(self, draft: Draft, splits: Path) -> None:  # type: ignore[override]
        from ftlib.progress import Progress, emit

        history = []
        for step in range(1, 5):
            time.sleep(self.seconds / 4)
            emit(Progress(step=self.step_name, done=step, total=4, unit="steps", metrics={"loss": 1 / step}))
            history.append({"step": step, "epoch": step / 4, "loss": self.learning_rate / step})
        _write(draft, "history.json", history)
        draft.metrics.update(num_trainable_parameters=20.0, rows_per_second=600.0, train_seconds=0.5)


class Fuse(Step):
    def run(self, draft: Draft, **predictions: Path) -> None:
        _write(draft, "combiner.json", sorted(predictions))


class Evaluate(Step):
    def run(self, draft: Draft, **inputs: Path) -> None:
        _write(draft, "evaluation.json", EVALUATION)


class Report(Step):
    def run(self, draft: Draft, evaluation: Path, **members: Path) -> None:  # type: ignore[override]
        draft.folder.joinpath("report.html").write_text(REPORT)


def _write(draft: Draft, name: str, value: Any) -> None:
    draft.folder.joinpath(name).write_text(json.dumps(value))


def pipeline(text: str = "rows", learning_rate: float = 0.1, seconds: float = 0.0) -> tuple[Step, ...]:
    """Return the steps of a small experiment with two members and a fusion."""
    members = {f"member_{i}": f"train-{name}" for i, name in enumerate(("first", "second"))}
    return (
        Collect(step_name="collect", text=text),
        Clean(step_name="clean", inputs={"rows": "collect"}),
        Split(step_name="split", inputs={"rows": "clean"}),
        Train(step_name="train-first", inputs={"splits": "split"}, seconds=seconds),
        Train(step_name="train-second", inputs={"splits": "split"}, learning_rate=learning_rate),
        Fuse(step_name="fuse-averaging", inputs=members),
        Evaluate(step_name="evaluate", inputs={**members, "fusion": "fuse-averaging"}),
        Report(step_name="report", inputs={"evaluation": "evaluate", **members}),
    )


def _member(name: str, validation: float, test: float) -> dict[str, Any]:
    metrics = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
    interval = [test - 0.02, test + 0.02]
    return {"name": name, "metrics": metrics, "interval": interval, "num_parameters": 100, "inference_cost": 50.0}


EVALUATION: dict[str, Any] = {
    "problem": "text_classification",
    "target": "single_label",
    "metric": "accuracy",
    "higher_is_better": True,
    "labels": ["no", "yes"],
    "rows": {"validation": 2, "test": 2},
    "members": [_member("first", 0.80, 0.79), _member("second", 0.84, 0.82)],
    "fusions": [
        {
            **_member("averaging", 0.86, 0.85),
            "method": {"name": "averaging"},
            "weights": None,
            "members_used": ["first", "second"],
            "p_value_against_best_member": 0.04,
            "p_value_against_greedy": 1.0,
            "gain": 0.03,
            "gain_interval": [0.01, 0.05],
            "inference_cost_ratio": 2.0,
        }
    ],
    "best_member": "second",
    "best_fusion": "averaging",
    "best": {
        "name": "averaging",
        "kind": "fusion",
        "metric": "accuracy",
        "validation": 0.86,
        "test": 0.85,
        "interval": [0.83, 0.87],
    },
}

REPORT = (
    """<!doctype html><html lang="en"><head><title>sample</title>
<style>:root { --ink: #123; } .bar { fill: var(--ink); }</style></head><body><main>
<svg viewBox="0 0 300 60" role="img" aria-label="Accuracy of each model">"""
    + "".join(f'<rect class="bar" x="{12 * i}" y="20" width="8" height="{i}"></rect>' for i in range(25))
    + """</svg><!--run--><!--/run--></main></body></html>"""
)
