"""The study: what is tried, in which order, and what becomes of it when its process is killed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.params.searching import Dimension
from ftlib.params.tuning import Range, Tuning
from ftlib.tuning.study import Search, Study

SPACE = {
    "rate": Dimension("rate", ("rate",), Range(low=1e-5, high=1e-1, log=True), False),
    "size": Dimension("size", ("size",), Range(low=8, high=30, step=8), True),
    "kind": Dimension("kind", ("kind",), Range(choices=({"name": "lora", "r": 4}, "full", None)), False),
}


def search(*names: str, num_trials: int = 8, higher: bool = True, seed: int = 1, own: Any = None, **tuning: Any):
    space = tuple(SPACE[name] for name in names or SPACE)
    ranges = {dimension.path: dimension.range for dimension in space}
    settings = Tuning(space=ranges, **{"num_startup_trials": 3, **tuning})
    return Search("s", space, settings, num_trials, higher, seed, num_passes=3, own=own)


def score(values: dict[str, Any]) -> float:
    """Best where the rate is 1e-3; of the other parameters only the size matters, and little."""
    return -abs(math.log10(values.get("rate", 1e-3)) + 3) + values.get("size", 0) / 1000


def tried(file: Path, wanted: Search, most: int = 1000) -> list[dict[str, Any]]:
    """Run a search, or the first trials of it, and return what it has tried in all."""
    study = Study(file, wanted)
    for _ in range(most):
        if (trial := study.ask()) is None:
            break
        study.tell(trial.number, "complete", score(trial.values), {"seconds": 1.0})
    return [trial.values for trial in study.trials()]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[], Path]:
    numbers = itertools.count()
    return lambda: tmp_path / f"{next(numbers)}" / "trials.db"


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_killed_search_tries_what_an_unbroken_one_tries(file, sampler: str):
    names = ("size", "kind") if sampler == "grid" else ()
    wanted = search(*names, sampler=sampler, num_trials=6)
    broken = file()
    assert len(tried(broken, wanted, most=3)) == 3
    killed = Study(broken, wanted)
    first, second = killed.ask(), killed.ask() if sampler != "tpe" else None  # tpe looks at what runs beside it
    again = Study(broken, wanted)
    assert again.killed == [trial.number for trial in (first, second) if trial]
    found, expected = tried(broken, wanted), tried(file(), wanted)
    if sampler == "grid":  # what was broken off comes last
        found, expected = sorted(found, key=str), sorted(expected, key=str)
    assert found == expected


def test_seeds_tell_searches_apart(file):
    assert tried(file(), search(seed=1, num_trials=3)) == tried(file(), search(seed=1, num_trials=3))
    assert tried(file(), search(seed=1, num_trials=3)) != tried(file(), search(seed=2, num_trials=3))


def test_values_lie_in_their_ranges_and_choices_come_back_as_they_were(file):
    for values in tried(file(), search(sampler="random", num_trials=8)):
        assert 1e-5 <= values["rate"] <= 1e-1
        assert values["size"] in (8, 16, 24)
        assert isinstance(values["size"], int)
        assert values["kind"] in ({"name": "lora", "r": 4}, "full", None)


def test_a_grid_tries_every_combination_once(file):
    found = tried(file(), search("size", "kind", sampler="grid", num_trials=100))
    expected = [(size, kind) for size in (8, 16, 24) for kind in SPACE["kind"].range.choices]
    assert [(values["size"], values["kind"]) for values in found] == expected


def test_more_trials_than_before_go_on_from_there(file):
    at = file()
    before = tried(at, search("size", "kind", sampler="grid", num_trials=4))
    after = tried(at, search("size", "kind", sampler="grid", num_trials=7))
    assert (len(before), len(after), after[:4]) == (4, 7, before)


def test_the_params_own_values_are_tried_first(file):
    own = {"rate": 2e-3, "size": 16, "kind": {"name": "lora", "r": 4}}
    assert tried(file(), search(own=own, num_trials=2))[0] == own


def test_tpe_comes_closer_than_its_random_beginning(file):
    found = [score(values) for values in tried(file(), search("rate", num_trials=14, num_startup_trials=5))]
    assert max(found[5:]) > max(found[:5])
    assert sum(found[9:]) / 5 > sum(found[:5]) / 5


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_is_at_the_good_end_of_the_score(file, higher: bool):
    study = Study(file(), search("rate", num_trials=4, higher=higher))
    for value in (0.3, 0.9, 0.9, 0.1):
        study.tell(study.ask().number, "complete", value, {})
    assert (study.best().number, study.best().score) == ((1, 0.9) if higher else (3, 0.1))


@pytest.mark.parametrize("higher", [True, False])
def test_median_gives_up_what_is_worse_than_half_of_the_others_at_that_pass(file, higher: bool):
    study = Study(file(), search("rate", num_trials=9, higher=higher, pruner="median"))
    sign = 1 if higher else -1
    for value in (0.4, 0.6, 0.8):
        number = study.ask().number
        assert not study.report(number, 1, sign * (value - 1)), "nothing is given up before there are enough trials"
        study.tell(number, "complete", sign * value, {})
    good, bad = study.ask().number, study.ask().number
    assert not study.report(good, 1, sign * (0.7 - 1))
    assert study.report(bad, 1, sign * (0.5 - 1))
    assert study.tell(bad, "pruned", None, {}).state == "pruned"
    assert bad not in {study.best().number}


def test_hyperband_gives_up_some_and_never_the_one_that_leads(file):
    study = Study(file(), search("rate", num_trials=16, pruner="hyperband"))
    given_up = []
    while (trial := study.ask()) is not None:
        value = 0.9 if trial.number == 12 else 0.5 - trial.number / 100
        stopped = any(study.report(trial.number, step, value) for step in (1, 2, 3))
        given_up += [trial.number] * stopped
        study.tell(trial.number, "pruned" if stopped else "complete", None if stopped else value, {})
    assert given_up
    assert not {0, 1, 2, 12} & set(given_up)


def test_what_decides_the_score_is_the_important_parameter(file):
    at, wanted = file(), search(sampler="random", num_trials=14)
    tried(at, wanted)
    shares = Study(at, wanted).importances()
    assert next(iter(shares)) == "rate"
    assert shares["rate"] > 0.5
    assert sum(shares.values()) == pytest.approx(1)


def test_too_few_trials_have_no_importances(file):
    at, wanted = file(), search(num_trials=3)
    tried(at, wanted)
    assert Study(at, wanted).importances() == {}
