"""The choice in a params file: what is refused, and how a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows import graph
from ftlib.errors import DataError, ParamsError
from ftlib.params.candidates import BaseChoice
from ftlib.params.experiment import Experiment
from ftlib.params.loading import check_inputs, load_experiment
from ftlib.problems.base import Problem

PARAMS = """\
name: x
base_model: {base_model}
problem: {problem}
data: {{sources: {{all: {rows}}}}}
stages: [{{name: full, strategy: full}}]
"""
TWO = "{candidates: [random:bert, random:gpt2]%s}"


def load(base_model: str, problem: str = "text_classification", overrides: tuple[str, ...] = ()) -> Experiment:
    return load_experiment(PARAMS.format(base_model=base_model, problem=problem, rows="support_requests"), overrides)


@pytest.mark.parametrize(
    ("base_model", "line"),
    [
        (
            "{candidates: []}",
            "base_model.candidates: is an empty list; expected a list (each item text, at least 1 character), at least "
            "2 items.",
        ),
        ("{candidates: [a, b, a]}", "base_model.candidates.2: 'a' is named already; each candidate once."),
        (
            "{candidates: [a, 5]}",
            "base_model.candidates.1: is 5; expected text, at least 1 character. Put it in quotes: '5'.",
        ),
        (
            "{candidate: [a, b]}",
            "base_model.candidate: unknown key 'candidate' of base_model. Did you mean 'candidates'?",
        ),
        (TWO % ", score: logmee", "base_model.score: unknown value 'logmee'. Did you mean 'logme'?"),
        (
            TWO % ", halving: {rounds: 0}",
            "base_model.halving.rounds: is 0; expected an integer, at least 1, at most 8.",
        ),
        (
            TWO % ", halving: {strategy: {name: distillation, teacher: [full]}}",
            "base_model.halving.strategy: distillation learns from other stages, so that short runs would not compare "
            "candidates; choose full or partial.",
        ),
        ("5", "base_model: is 5; expected text, at least 1 character. Put it in quotes: '5'."),
        (
            "[a]",
            "base_model: is a list of 1; expected a list (each item text, at least 1 character), at least 2 items.",
        ),
        ("[a, 7]", "base_model: is 7; expected text, at least 1 character. Put it in quotes: '7'."),
        ("[a, a]", "base_model.candidates.1: 'a' is named already; each candidate once."),
    ],
)
def test_what_is_wrong_is_told_with_its_place(base_model: str, line: str):
    with pytest.raises(ParamsError) as caught:
        load(base_model)
    assert line in [problem.removeprefix("params:2: ") for problem in caught.value.problems]


def test_where_nothing_would_decide_short_runs_are_asked_for():
    choice = BaseChoice.model_validate({"candidates": ["a", "b"], "halving": None})
    [(trail, line)] = choice.problems(Problem.named("question_answering")())
    assert (trail, line[:30]) == (("halving",), "is null, but question_answering"[:30])
    assert list(choice.problems(Problem.named("text_classification")())) == []
    assert list(choice.problems(Problem.named("summarization")())) == []  # its models answer as they are


def test_values_within_the_choice_can_be_set_and_it_can_be_replaced_by_a_name():
    found = load(TWO % "", overrides=("base_model.rows=50", "base_model.candidates.1=random:t5")).choice
    assert (found.rows, found.candidates) == (50, ("random:bert", "random:t5"))
    assert load(TWO % "", overrides=("base_model=random:t5",)).base_model == "random:t5"


def test_a_list_is_a_choice_among_its_items_with_all_else_by_default():
    found = load("[random:bert, random:t5]", overrides=("base_model.1=random:gpt2",)).choice
    assert found == BaseChoice(candidates=("random:bert", "random:gpt2"))


def test_a_name_alone_stays_what_it_is_in_dumps_and_a_choice_survives_them():
    assert load("random:bert").model_dump(mode="json")["base_model"] == "random:bert"
    chosen = load(TWO % ", halving: {strategy: {name: partial, last_blocks: 1}}")
    assert Experiment.model_validate(chosen.model_dump(mode="json")) == chosen


def test_candidates_that_cannot_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        check_inputs(load("{candidates: [random:bert, ./nowhere, random:brt]}"))
    first, second = str(caught.value).splitlines()
    assert "'./nowhere': there is no such folder" in first
    assert "'random:brt': unknown family of untrained models 'brt'" in second


def test_candidates_at_hand_of_which_none_can_do_the_problem_are_refused_at_once(tiny_model: Callable[..., Path]):
    bert, llama, t5 = (str(tiny_model(name)) for name in ("bert", "llama", "t5"))
    rows = "{name: sample_entities, num_rows: 20}"
    text = PARAMS.format(base_model=f"{{candidates: [{llama}, {t5}]}}", problem="token_classification", rows=rows)
    with pytest.raises(
        ParamsError, match=r"candidates: none of them can do the problem: .*needs an encoder.*Name others"
    ):
        load_experiment(text)
    assert load_experiment(text.replace(t5, bert)).choice.left_out(Problem.named("token_classification")()).keys() == {
        llama
    }


def test_a_candidate_without_room_is_named(tiny_model: Callable[..., Path]):
    bert, roberta = (str(tiny_model(name)) for name in ("bert", "roberta"))
    text = PARAMS.format(base_model=f"{{candidates: [{bert}, {roberta}]}}", problem="text_classification", rows="x.csv")
    with pytest.raises(ParamsError) as caught:
        load_experiment(text.replace("strategy: full", "strategy: {name: prompt_tuning, num_virtual_tokens: 200}"))
    assert len(caught.value.problems) == 2
    assert all("200 virtual tokens" in line for line in caught.value.problems)
    assert [line.rpartition("(candidate ")[2] for line in caught.value.problems] == [f"{bert})", f"{roberta})"]


def test_rounds_are_no_more_than_can_leave_one():
    def rounds(number: int, asked: int) -> int:
        names = [f"random:{i}" for i in range(number)]
        return BaseChoice.model_validate({"candidates": names, "halving": {"rounds": asked}}).num_rounds

    assert [rounds(n, 4) for n in (2, 3, 4, 5, 9)] == [1, 2, 2, 3, 4]
    assert rounds(9, 2) == 2


def test_a_plain_base_model_has_no_steps_of_a_choice():
    names = [step.step_name for step in graph.steps(load("random:bert"))]
    assert names[:6] == ["collect", "clean", "split", "fetch", "encode", "train-full"]
