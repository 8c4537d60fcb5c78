"""A search: an Optuna study in a SQLite file, which a process that was killed leaves whole.

Imported when `ftlib tune` works; it needs optuna at once. One process at a time asks and tells; trials may run
elsewhere. What is drawn depends on the seed, the place of the trial and the scores before it alone, so that a search
that was killed and goes on tries what it would have tried.

Source: Akiba et al. (2019), "Optuna: A Next-generation Hyperparameter Optimization Framework",
https://arxiv.org/abs/1907.10902. TPE: Bergstra et al. (2011), "Algorithms for Hyper-Parameter Optimization", NeurIPS.
Importance by fANOVA: Hutter et al. (2014), "An Efficient Approach for Assessing Hyperparameter Importance", ICML.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ftlib.params.searching import Dimension
from ftlib.params.tuning import Tuning

State = Literal["complete", "pruned", "failed", "running"]
FACTS = "facts"
"""What a trial that came to an end says of itself; one that was killed says nothing."""

FEWEST_FOR_IMPORTANCE = 4
"""Finished trials below which importances would be noise."""


@dataclass(frozen=True)
class Trial:
    """One combination of values.

    Attributes:
        number: Its number, from 0.
        values: Path -> value.
        state: How it ended.
        score: What it came to, on validation; of a pruned one, when it was given up.
        facts: What it tells beside: seconds, steps, the chosen model, the reason of a failure.
    """

    number: int
    values: dict[str, Any]
    state: State = "running"
    score: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        name: What the search is called.
        space: The parameters.
        settings: The experiment's `tuning` section.
        num_trials: How many trials in all.
        higher_is_better: Whether a larger score is a better one.
        seed: Of all that is drawn.
        num_passes: Validation passes of the longest trial.
        own: The values that the params file has itself, tried first; None where they lie outside of the space.
    """

    name: str
    space: tuple[Dimension, ...]
    settings: Tuning
    num_trials: int
    higher_is_better: bool
    seed: int
    num_passes: int
    own: dict[str, Any] | None = None


class Study:
    """The trials of a search.

    Args:
        file: Where they are kept.
        search: What is searched.
    """

    def __init__(self, file: Path, search: Search) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.search = search
        self.resumed = file.exists()
        self._codes = {dimension.path: _Code(dimension) for dimension in search.space}
        self._open: dict[int, optuna.Trial] = {}
        self._study = optuna.create_study(
            storage=f"sqlite:///{file}",
            study_name=search.name,
            direction="maximize" if search.higher_is_better else "minimize",
            sampler=_Placed(_sampler(search.settings), search.seed),
            pruner=_pruner(search),
            load_if_exists=True,
        )
        self.killed = self._put_back()
        self._enqueue()

    # -- trials ------------------------------------------------------------------------------------

    def ask(self) -> Trial | None:
        """Return the next combination to try; None where there are enough, or no more in the grid."""
        if len(self._counted()) >= self.search.num_trials:
            return None
        if self.search.settings.sampler == "grid" and not self._trials(TrialState.WAITING):
            return None
        trial = self._study.ask({path: code.distribution for path, code in self._codes.items()})
        self._open[trial.number] = trial
        return Trial(trial.number, self._values(trial.params))

    def report(self, number: int, step: int, value: float) -> bool:
        """Note a running trial's score after a validation pass; return whether to give it up.

        Args:
            number: The trial.
            step: The pass, counted over its stages.
            value: The score.
        """
        trial = self._open[number]
        trial.report(value, step)
        done = self._trials(TrialState.COMPLETE, TrialState.PRUNED)
        return len(done) >= self.search.settings.num_startup_trials and bool(trial.should_prune())

    def tell(self, number: int, state: State, score: float | None, facts: Mapping[str, Any]) -> Trial:
        """Note how a trial ended, and return it.

        Args:
            number: The trial.
            state: "complete", "pruned" or "failed".
            score: Of a complete one.
            facts: JSON values to keep with it.
        """
        trial = self._open.pop(number)
        trial.set_user_attr(FACTS, dict(facts))
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return self._told(self._study.tell(trial, score if state == "complete" else None, state=states[state]))

    def trials(self) -> list[Trial]:
        """Return the trials that came to an end, in order; a killed one has none, and is tried again as another."""
        return [self._told(trial) for trial in self._counted() if trial.state.is_finished()]

    def best(self) -> Trial | None:
        """Return the complete trial with the best score; of equal ones the first."""
        done = [trial for trial in self.trials() if trial.state == "complete" and trial.score is not None]
        sign = -1 if self.search.higher_is_better else 1
        return min(done, key=lambda trial: (sign * (trial.score or 0.0), trial.number), default=None)

    def importances(self) -> dict[str, float]:
        """Return how much of the variance of scores each parameter explains, the most important first.

        Empty where too few trials are complete, or all came to the same.
        """
        scores = {trial.score for trial in self.trials() if trial.state == "complete"}
        if len(self._trials(TrialState.COMPLETE)) < FEWEST_FOR_IMPORTANCE or len(scores) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.search.seed)
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {path: float(share) for path, share in found.items()}

    # -- inside ------------------------------------------------------------------------------------

    def _put_back(self) -> list[int]:
        """Mark as failed what ran when its process was killed, and have it tried again with the same values."""
        stale = self._trials(TrialState.RUNNING)
        for trial in stale:
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
        return [trial.number for trial in stale]

    def _enqueue(self) -> None:
        """Have the whole grid tried; else, first of all, what the params file says itself."""
        if self.search.settings.sampler != "grid":
            if self.search.own and not self._study.get_trials(deepcopy=False):
                self._study.enqueue_trial({path: self._codes[path].label(v) for path, v in self.search.own.items()})
            return
        lists = [[self._codes[d.path].label(v) for v in d.listed() or ()] for d in self.search.space]
        paths = [d.path for d in self.search.space]
        known = [{**t.system_attrs.get("fixed_params", {}), **t.params} for t in self._study.get_trials(deepcopy=False)]
        combinations = [dict(zip(paths, labels, strict=True)) for labels in itertools.product(*lists)]
        for combination in combinations[: self.search.num_trials]:
            if combination not in known:
                self._study.enqueue_trial(combination)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _counted(self) -> list[FrozenTrial]:
        """Return the trials that run or came to an end."""
        ended = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return [trial for trial in self._trials(*ended) if not _is_killed(trial)]

    def _values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {path: self._codes[path].value(label) for path, label in params.items()}

    def _told(self, trial: FrozenTrial) -> Trial:
        states: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
        state = states.get(trial.state, "failed")
        return Trial(trial.number, self._values(trial.params), state, trial.value, trial.user_attrs.get(FACTS, {}))


class _Code:
    """How one parameter's values are written in the study: Optuna's choices are plain values."""

    def __init__(self, dimension: Dimension) -> None:
        self._mappings = {self.label(c): c for c in dimension.range.choices or () if _is_nested(c)}
        self.distribution = self._distribution(dimension)

    def label(self, value: Any) -> Any:
        """Return what stands for a value."""
        return json.dumps(value, ensure_ascii=False) if _is_nested(value) else value

    def value(self, label: Any) -> Any:
        """Return the value that something stands for."""
        return self._mappings.get(label, label)

    def _distribution(self, dimension: Dimension) -> BaseDistribution:
        found = dimension.range
        if found.choices is not None or found.low is None or found.high is None:
            return CategoricalDistribution([self.label(choice) for choice in found.choices or ()])
        high = _on_a_step(found.low, found.high, found.step)
        if dimension.is_whole:
            return IntDistribution(int(found.low), int(high), log=found.log, step=int(found.step or 1))
        step = None if found.step is None else float(found.step)
        return FloatDistribution(float(found.low), float(high), log=found.log, step=step)


class _Placed(BaseSampler):
    """Draws each trial with a sampler of its own, seeded by the trial's place among those that were not killed."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._number, self._sampler = -1, make(seed)

    def _of(self, study: optuna.Study, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            before = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number and not _is_killed(t)]
            digest = hashlib.sha256(f"{self._seed}/{len(before)}".encode()).digest()
            self._number, self._sampler = trial.number, self._make(int.from_bytes(digest[:4], "big"))
        return self._sampler

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See `BaseSampler`."""
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `BaseSampler`."""
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See `BaseSampler`."""
        return self._of(study, trial).sample_independent(study, trial, param_name, param_distribution)


def _sampler(settings: Tuning) -> Callable[[int], BaseSampler]:
    if settings.sampler == "tpe":
        return lambda seed: TPESampler(seed=seed, n_startup_trials=settings.num_startup_trials)
    return lambda seed: RandomSampler(seed=seed)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    match search.settings.pruner:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=search.settings.num_startup_trials)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(max_resource=max(search.num_passes, 1))
    return optuna.pruners.NopPruner()


def _is_killed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and FACTS not in trial.user_attrs


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple))


def _on_a_step(low: float, high: float, step: float | None) -> float:
    """Return the last value on a step, as decimals have it."""
    if step is None:
        return high
    first, each = Decimal(str(low)), Decimal(str(step))
    return float(first + (Decimal(str(high)) - first) // each * each)


def by_score(trials: Sequence[Trial], *, higher_is_better: bool) -> list[Trial]:
    """Return trials for a leaderboard: complete ones by their scores, then pruned, then failed ones."""
    sign = -1 if higher_is_better else 1
    rank = {"complete": 0, "pruned": 1, "failed": 2}
    return sorted(trials, key=lambda t: (rank.get(t.state, 3), sign * (t.score or 0.0), t.number))
