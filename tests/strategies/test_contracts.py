"""Every strategy keeps the contracts, on every problem, or refuses by name."""

from __future__ import annotations

import pytest

from ftlib import compatibility
from ftlib.errors import UnsupportedError
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from tests import contracts

STRATEGIES = Strategy.available()
PROBLEMS = Problem.available()
MATRIX = compatibility.strategies()


def cells(wanted):
    """Every strategy with every problem, where that is wanted."""
    pairs = [(s, p) for p in PROBLEMS for s in STRATEGIES if wanted(p, s)]
    return [pytest.param(s, p, id=f"{s}-{p}", marks=marks(s, p)) for s, p in pairs]


def marks(strategy: str, problem: str):
    """The row and the column of the matrix that say most are quick enough for every run; the rest is slow."""
    return () if strategy == "full" or problem == "text_classification" else pytest.mark.slow


@pytest.mark.parametrize(("strategy", "problem"), cells(lambda *pair: pair not in MATRIX.refusals))
def test_every_strategy_learns_every_problem_and_reloads(strategy, problem, tiny_model, tmp_path):
    chosen, plugin = Problem.named(problem)(), Strategy.named(strategy)()
    trained = contracts.train_on_examples(plugin, chosen, contracts.start_model(chosen, tiny_model, strategy), tmp_path)
    if plugin.trains:
        contracts.check_overfits(trained)
    contracts.check_weights(trained)
    contracts.check_reload(trained)
    contracts.check_figures(trained)


@pytest.mark.parametrize(("strategy", "problem"), cells(lambda *pair: pair in MATRIX.refusals))
def test_what_cannot_be_trained_is_refused_by_name_with_a_way_out(strategy, problem):
    with pytest.raises(UnsupportedError) as refused:
        Strategy.named(strategy)().check(Problem.named(problem)())
    line = str(refused.value)
    assert strategy in line
    assert problem in line
    assert len(line.split()) > 10  # a reason, and what to choose instead


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_reach_what_learns_and_nothing_else(strategy, tiny_model):
    plugin, problem = Strategy.named(strategy)(), Problem.named("text_classification")()
    if plugin.trains:
        contracts.check_gradients(plugin, problem, contracts.start_model(problem, tiny_model, strategy))
