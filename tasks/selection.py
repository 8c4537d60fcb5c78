"""Steps that choose the base model: score candidates, train them for a short while, choose, hand on the winner.

A candidate's own steps know nothing of the others but whether it goes on, so that another candidate beside it
computes none of them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ftlib.artifacts import Draft
from ftlib.problems.base import Problem
from ftlib.steps import Step
from ftlib.strategies.base import Strategy


class Score(Step):
    """Say whether a candidate can do the problem, and how well its frozen features fit it."""

    libraries = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn")

    problem: Problem
    method: Literal["logme", "linear_probe"]
    rows: int
    seed: int

    def run(self, draft: Draft, splits: Path, checkpoint: Path) -> None:  # type: ignore[override]
        """Write score.json."""
        from ftlib.files import read_json, read_table, write_json
        from ftlib.selection.scoring import score

        found = score(
            checkpoint,
            read_table(splits / "train.parquet"),
            Problem.model_validate(read_json(splits / "problem.json")),
            method=self.method,
            num_rows=self.rows,
            seed=self.seed,
        )
        write_json(draft.folder / "score.json", found.summary())


class Rank(Step):
    """Say which candidates go on after scoring."""

    problem: Problem
    candidates: tuple[str, ...]
    method: Literal["logme", "linear_probe"]
    keep: int | None

    def run(self, draft: Draft, **scores: Path) -> None:  # type: ignore[override]
        """Write standing.json; `scores` holds score_i for candidate i."""
        from ftlib.files import read_json, write_json
        from ftlib.selection.choosing import entrants
        from ftlib.selection.scoring import higher_is_better, measure_of

        found = [read_json(scores[f"score_{i}"] / "score.json") for i in range(len(self.candidates))]
        higher = higher_is_better(measure_of(self.problem, self.method))
        write_json(draft.folder / "standing.json", entrants(self.candidates, found, higher=higher, keep=self.keep))


class Halve(Step):
    """Say which candidates go on after a round of short runs."""

    problem: Problem

    def run(self, draft: Draft, **trials: Path) -> None:  # type: ignore[override]
        """Write standing.json; `trials` holds trial_i for candidate i."""
        from ftlib.files import write_json
        from ftlib.selection.halving import survivors
        from ftlib.selection.scoring import yardstick

        write_json(draft.folder / "standing.json", survivors(_ran(trials), higher=yardstick(self.problem)[1]))


class Admit(Step):
    """Say whether one candidate runs in the next round: all that its run hears of the others."""

    place: int

    def run(self, draft: Draft, standing: Path) -> None:  # type: ignore[override]
        """Write admission.json; a candidate that is left alone has won, and need not run."""
        from ftlib.files import read_json, write_json

        left = read_json(standing / "standing.json")
        write_json(draft.folder / "admission.json", {"runs": len(left) > 1 and self.place in left})


class Trial(Step):
    """Train a candidate for a short while, where it goes on, and measure it on the validation rows."""

    libraries = ("torch", "transformers", "tokenizers", "accelerate", "peft")

    problem: Problem
    strategy: Strategy
    epochs: float
    learning_rate: float
    batch_size: int
    seed: int

    def run(self, draft: Draft, splits: Path, checkpoint: Path, admission: Path) -> None:  # type: ignore[override]
        """Write trial.json: what the run came to; null where there was none."""
        from ftlib.files import read_json, read_table, write_json
        from ftlib.selection.halving import Budget, trial

        if not read_json(admission / "admission.json")["runs"]:
            write_json(draft.folder / "trial.json", None)
            return
        found, figures = trial(
            checkpoint,
            {split: read_table(splits / f"{split}.parquet") for split in ("train", "validation")},
            problem=Problem.model_validate(read_json(splits / "problem.json")),
            strategy=self.strategy,
            budget=Budget(self.epochs, self.learning_rate, self.batch_size),
            seed=self.seed,
            scratch=draft.scratch,
            name=self.step_name,
        )
        write_json(draft.folder / "trial.json", found.summary())
        draft.metrics.update(figures)


class Choose(Step):
    """Choose a candidate, and say why."""

    problem: Problem
    candidates: tuple[str, ...]
    method: Literal["logme", "linear_probe"]
    rounds: int

    def run(self, draft: Draft, standing: Path, **inputs: Path) -> None:  # type: ignore[override]
        """Write choice.json.

        `standing` is what `Rank` gave; `inputs` holds score_i for candidate i, and trial_r_i for its run in round r.
        """
        from ftlib.files import read_json, write_json
        from ftlib.selection.choosing import choose, figures
        from ftlib.selection.scoring import higher_is_better, measure_of, yardstick

        places = range(len(self.candidates))
        measure, (metric, metric_higher) = measure_of(self.problem, self.method), yardstick(self.problem)
        found = choose(
            self.candidates,
            [read_json(inputs[f"score_{i}"] / "score.json") for i in places],
            read_json(standing / "standing.json"),
            [_ran({f"trial_{i}": inputs[f"trial_{r}_{i}"] for i in places}) for r in range(1, self.rounds + 1)],
            measure=measure,
            higher=higher_is_better(measure),
            metric=metric,
            metric_higher=metric_higher,
        )
        write_json(draft.folder / "choice.json", found)
        draft.metrics.update(figures(found))


class HandOn(Step):
    """Hand on the chosen candidate as the base model: the same files, so that all that follows has the same keys."""

    def run(self, draft: Draft, choice: Path, **checkpoints: Path) -> None:  # type: ignore[override]
        """Write the model's files; `checkpoints` holds checkpoint_i for candidate i."""
        import shutil

        from ftlib.artifacts import MANIFEST
        from ftlib.files import read_json

        chosen = checkpoints[f"checkpoint_{read_json(choice / 'choice.json')['place']}"]
        shutil.copytree(chosen, draft.folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)


def _ran(trials: dict[str, Path]) -> dict[int, Any]:
    """Return what those candidates came to that ran, by place; `trials` holds trial_i for candidate i."""
    from ftlib.files import read_json

    found = {i: read_json(trials[f"trial_{i}"] / "trial.json") for i in range(len(trials))}
    return {place: trial for place, trial in found.items() if trial is not None}
