"""What MLflow is told of a search: one run, however often it was stopped and went on, and a child for each trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import servers
from ftlib import state, tracking
from ftlib.params.experiment import Experiment
from ftlib.tracking import Journal, Sent
from ftlib.tuning.study import Trial

STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


class Record:
    """The record of a search.

    Args:
        experiment: What is searched, without changes.
        name: The search's name.
    """

    def __init__(self, experiment: Experiment, name: str) -> None:
        tracking.send_pending(state.home())
        self._journal = Journal.go_on(
            state.home(),
            f"tuning-{name}",
            experiment=experiment.tracking.experiment or experiment.name,
            run_name=f"{experiment.name} search",
            params=experiment.model_dump(mode="json", exclude={"name", "tracking"}),
            tags={"experiment": experiment.name, "search": name},
        )

    def began(self, number: int, values: Mapping[str, Any]) -> None:
        """Record that a trial begins."""
        self._journal.child(f"trial {number}", kind="trial", params=values, tags={"trial": number}, run=_run(number))

    def score(self, number: int, step: int, score: float) -> None:
        """Record a trial's score after a validation pass."""
        self._journal.metrics(_run(number), step, {"validation_score": score})

    def ended(self, trial: Trial, metric: str) -> None:
        """Record what a trial came to: its score, its figures, and the artifact of each of its steps."""
        run, facts = _run(trial.number), trial.facts
        states = [step["state"] for step in facts["steps"]]
        counts = {f"steps_{word}": states.count(word) for word in ("computed", "cached")}
        score = {f"validation_{metric}": trial.score} if trial.state == "complete" else {}
        models = {f"validation_{metric}_{name}": value for name, value in facts.get("models", {}).items()}
        self._journal.metrics(run, None, {**score, **models, **counts, "seconds": facts["seconds"]})
        artifacts = {f"artifact.{step['name']}": step["artifact"] for step in facts["steps"]}
        told = {"state": trial.state, "chosen": facts.get("chosen"), "reason": facts.get("reason")}
        self._journal.tags(run, {**artifacts, **{name: value for name, value in told.items() if value}})
        self._journal.finish(run, STATUS[trial.state])  # type: ignore[arg-type]

    def killed(self, number: int) -> None:
        """Record that a trial was broken off by the end of its process."""
        self._journal.finish(_run(number), "KILLED")

    def finish(self, best: Trial, metric: str, *files: Path) -> Sent | None:
        """End the record and send it; None where MLflow did not take it, which a later run makes up for."""
        self._journal.metrics(None, None, {f"validation_{metric}": best.score})
        self._journal.tags(None, {"best": f"trial {best.number}"})
        for file in files:
            self._journal.log_file(None, file)
        self._journal.finish(None)
        return tracking.send(self._journal, ui=servers.mlflow_ui())

    def stop(self, status: str) -> None:
        """End the record of a search that failed or that somebody stopped; the next run sends it."""
        self._journal.finish(None, status)  # type: ignore[arg-type]
        self._journal.close()


def _run(number: int) -> str:
    return f"trial-{number}"
