"""Runs of the sample params, step by step in a store of their own: what the flow runs, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flows.graph import fusions, steps
from ftlib.artifacts import Artifact, Store
from ftlib.ensembling import read_rows, read_scores
from ftlib.files import read_json
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment
from ftlib.problems.base import Problem
from ftlib.serving import answering
from ftlib.steps import executed

PARAMS = Path(__file__).parents[1] / "params"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        experiment: What was run.
        store: Where its artifacts are.
        artifacts: Step -> what it left.
    """

    experiment: Experiment
    store: Store
    artifacts: dict[str, Artifact]

    def folder(self, step: str) -> Path:
        """Return what a step left."""
        return self.store.open(self.artifacts[step])

    @property
    def evaluation(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        return read_json(self.folder("evaluate") / "evaluation.json")

    @property
    def problem(self) -> Problem:
        """The problem with its labels."""
        return Problem.model_validate(read_json(self.folder("split") / "problem.json"))

    @property
    def served(self) -> answering.Served:
        """The registered model."""
        return answering.load(self.folder("register"))

    def test_rows(self) -> pa.Table:
        """Return the test split."""
        return read_rows(self.folder("split") / "test.parquet")

    def predicted(self) -> tuple[np.ndarray, Any]:
        """Return the chosen model's scores of the test rows, from the predict steps, and the rows' units."""
        members = [stage.name for stage in self.experiment.members()]
        best = self.evaluation["best"]["name"]
        together = best not in members and f"predict-{best}-test" in self.artifacts
        asked = [best] if best in members else members  # where places are compared, each member's own are served
        folders = [self.folder(f"predict-{best if together else name}-test") for name in asked]
        found = read_scores(folders, self.test_rows(), self.problem)
        if best in members:
            return found.values[0], found.layout
        combiner = type(fusions(self.experiment)[best]).load(self.folder(f"fuse-{best}"))
        return combiner(found.values, found.layout), found.layout


def run_sample(name: str, home: Path, overrides: Sequence[str] = ()) -> Run:
    """Run params/samples/<name>.yaml to its end."""
    experiment = load_experiment(PARAMS / "samples" / f"{name}.yaml", overrides)
    store = Store(home / "store")
    outcomes = executed(steps(experiment), store, scope=experiment.name)
    return Run(experiment, store, {step.step_name: outcome.artifact for step, outcome in outcomes})


def check_one_answer(run: Run, num_alone: int = 3, *, atol: float = 1e-5) -> None:
    """The served model, asked for all test rows or for one, says what the predict steps said in training."""
    rows, problem, served = run.test_rows(), run.problem, run.served
    scores, layout = run.predicted()
    inputs = rows.select(list(problem.input_columns))
    together = served.predict(inputs).drop(columns="reason")
    expected = problem.answers(scores, inputs, layout)
    assert together.columns.tolist() == list(expected)
    for name, values in expected.items():
        check_equal(together[name].tolist(), list(values), atol)
    for i in range(min(num_alone, len(rows))):
        alone = served.predict(inputs.slice(i, 1)).drop(columns="reason")
        for name in together:
            check_equal(alone[name].tolist(), [together[name].iloc[i]], atol)


def check_equal(found: Any, expected: Any, atol: float) -> None:
    """Equal, numbers within `atol`, wherever they stand in lists and objects."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            check_equal(found[key], expected[key], atol)
    elif isinstance(expected, (list, tuple, np.ndarray)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check_equal(one, other, atol)
    elif isinstance(expected, (float, np.floating)):
        np.testing.assert_allclose(found, expected, atol=atol)
    else:
        assert found == expected
