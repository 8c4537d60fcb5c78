"""Every strategy keeps the contracts, on every problem, or refuses by name."""

from __future__ import annotations

import pytest

from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from tests import contracts

STRATEGIES = Strategy.available()
PROBLEMS = Problem.available()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns_every_problem_and_reloads(strategy, problem, tiny_model, tmp_path):
    trained = contracts.train_on_examples(
        Strategy.named(strategy)(), Problem.named(problem)(), tiny_model("bert"), tmp_path
    )
    contracts.check_overfits(trained)
    contracts.check_reload(trained)
    contracts.check_figures(trained)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_reach_what_learns_and_nothing_else(strategy, tiny_model):
    contracts.check_gradients(Strategy.named(strategy)(), Problem.named("text_classification")(), tiny_model("bert"))
