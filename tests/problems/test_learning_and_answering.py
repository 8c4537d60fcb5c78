"""How problems share what they learn and answer by: hooks hand on to it, and it has one inheritance level too."""

from __future__ import annotations

from inspect import signature
from typing import Any, ClassVar
from unittest.mock import create_autospec

import pytest

from ftlib.errors import UnsupportedError
from ftlib.problems._answering import Answering
from ftlib.problems._learning import Learning
from ftlib.problems.base import Problem

HOOKS = [
    (value, name)
    for value, contract in (("learning", Learning), ("answering", Answering))
    for name, member in vars(contract).items()
    if callable(member)
]


class Probe(Problem):
    """Hands on to values that note what they are asked."""

    learning: ClassVar[Any] = create_autospec(Learning, instance=True, writes=True)  # type: ignore[assignment]
    answering: ClassVar[Any] = create_autospec(Answering, instance=True)


@pytest.mark.parametrize(("value", "name"), HOOKS)
def test_a_hook_hands_on_all_that_it_is_given(value: str, name: str):
    problem = Probe()
    asked = getattr(getattr(problem, value), name)
    hook = getattr(problem, "predict_jointly" if name == "predict" else name)
    given = {parameter: object() for parameter in signature(hook).parameters}
    told = hook(**given)
    asked.assert_called_once_with(problem, *given.values())
    assert told is asked.return_value or name == "check_tokenizer"


def test_a_model_alone_is_an_ensemble_of_one():
    checkpoint, rows, watch = object(), object(), object()
    Probe.learning.predict.reset_mock()
    Probe().predict(checkpoint, rows, precision="bfloat16", watch=watch)  # type: ignore[arg-type]
    (problem, ensemble, tables, *others), _ = Probe.learning.predict.call_args
    assert (problem.name, ensemble.checkpoints, tables, others) == (
        Probe().name,
        (checkpoint,),
        [rows],
        ["bfloat16", watch],
    )


@pytest.mark.parametrize("name", Problem.available())
def test_what_a_problem_learns_and_answers_by_is_the_default_or_one_level_above_it(name: str):
    problem = Problem.named(name)()
    for value, contract in ((problem.learning, Learning), (problem.answering, Answering)):
        assert type(value) is contract or type(value).__bases__ == (contract,)


def test_only_problems_that_write_answers_have_models_write_together():
    problems = [Problem.named(name)() for name in Problem.available()]
    assert {p.name for p in problems if p.learning.writes} == {p.name for p in problems if p.target.kind == "texts"}
    with pytest.raises(UnsupportedError, match="text_regression: no answer is written token by token"):
        Problem.named("text_regression")().predict_jointly(None, [])  # type: ignore[arg-type]
