"""The order of the steps that choose the base model, where an experiment names candidates for it.

A part of `flows.graph`, which hands on what these steps give as what "fetch" gives.
"""

from __future__ import annotations

from collections.abc import Iterator

from ftlib.params.candidates import BaseChoice, Halving
from ftlib.params.experiment import Experiment
from ftlib.selection.halving import epochs_of
from ftlib.steps import Step
from tasks.selection import Admit, Choose, Halve, HandOn, Rank, Score, Trial
from tasks.training import Fetch

SEED = "base_model"
"""The name that the seed of the choice derives from."""


def steps(e: Experiment, choice: BaseChoice, *, splits: str, fetched: str) -> Iterator[Step]:
    """Yield the steps from the candidates to the chosen one's files.

    Args:
        e: The experiment.
        choice: Its base model.
        splits: The step that gives the rows.
        fetched: What the last of these steps is called, which hands on the chosen model.
    """
    places = range(len(choice.candidates))
    for i, candidate in enumerate(choice.candidates):
        yield Fetch(step_name=_fetch(i), base_model=candidate)
        yield Score(
            step_name=_score(i),
            inputs={"splits": splits, "checkpoint": _fetch(i)},
            problem=e.problem,
            method=choice.score,
            rows=choice.rows,
            seed=e.seed_of(SEED),
        )
    scores = {f"score_{i}": _score(i) for i in places}
    rounds = choice.num_rounds
    yield Rank(
        step_name="rank",
        inputs=scores,
        problem=e.problem,
        candidates=choice.candidates,
        method=choice.score,
        keep=choice.halving.entrants if choice.halving else None,
    )
    if choice.halving:
        yield from _rounds(e, choice, choice.halving, splits)
    trials = {f"trial_{r}_{i}": _trial(r, i) for r in range(1, rounds + 1) for i in places}
    yield Choose(
        step_name="choose",
        inputs={"standing": "rank", **scores, **trials},
        problem=e.problem,
        candidates=choice.candidates,
        method=choice.score,
        rounds=rounds,
    )
    yield HandOn(step_name=fetched, inputs={"choice": "choose", **{f"checkpoint_{i}": _fetch(i) for i in places}})


def _rounds(e: Experiment, choice: BaseChoice, halving: Halving, splits: str) -> Iterator[Step]:
    standing = "rank"
    for number in range(1, choice.num_rounds + 1):
        for i in range(len(choice.candidates)):
            yield Admit(step_name=f"admit-{number}-{i + 1}", inputs={"standing": standing}, place=i)
            yield Trial(
                step_name=_trial(number, i),
                inputs={"splits": splits, "checkpoint": _fetch(i), "admission": f"admit-{number}-{i + 1}"},
                problem=e.problem,
                strategy=halving.strategy,
                epochs=epochs_of(halving.epochs, number),
                learning_rate=halving.learning_rate,
                batch_size=halving.batch_size,
                seed=e.seed_of(SEED),
            )
        if number < choice.num_rounds:
            standing = f"halve-{number}"
            inputs = {f"trial_{i}": _trial(number, i) for i in range(len(choice.candidates))}
            yield Halve(step_name=standing, inputs=inputs, problem=e.problem)


def _fetch(place: int) -> str:
    return f"fetch-candidate-{place + 1}"


def _score(place: int) -> str:
    return f"score-candidate-{place + 1}"


def _trial(number: int, place: int) -> str:
    return f"trial-{number}-{place + 1}"
