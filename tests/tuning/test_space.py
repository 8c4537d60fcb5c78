"""The `tuning` section: what is refused before any work, and what values a range stands for."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.errors import ParamsError
from ftlib.params import searching
from ftlib.params.loading import load_experiment, read_params, validated

LR = "stages.full.training.learning_rate"
BATCH = "stages.full.training.batch_size"


def given(space: dict[str, Any], **tuning: Any) -> dict[str, Any]:
    return {
        "name": "tickets",
        "base_model": "models/tiny",
        "problem": "text_classification",
        "data": {"sources": {"all": "rows.csv"}},
        "stages": [
            {"name": "full", "strategy": "full"},
            {"name": "lora", "strategy": {"name": "lora", "r": 4}, "training": {"learning_rate": 1e-3}},
        ],
        "fusions": ["averaging"],
        "tuning": {"space": space, **tuning},
    }


def listed(found: dict[str, Any]) -> tuple[Any, ...] | None:
    document = read_params(given(found))
    [dimension] = searching.dimensions(validated(document), document)
    return dimension.listed()


@pytest.mark.parametrize(
    ("path", "found", "line"),
    [
        (LR, {"low": 1e-3, "high": 1e-5}, "goes from 0.001 to 1e-05; low must be below high."),
        (LR, {"low": 1e-3}, "needs low and high, or choices; write {low: 1.0e-5, high: 1.0e-3, log: true}"),
        (LR, {"low": 0, "high": 1e-3, "log": True}, "starts at 0; on a logarithmic scale low must be above 0."),
        (LR, {"low": 1e-3, "high": 1.0, "log": True, "step": 0.1}, "has both log and step; leave one of them out"),
        (LR, {"low": 1e-3, "high": 1e-2, "step": 1}, "has steps of 1 from 0.001 to 0.01: none fits in."),
        (LR, {"low": -1e-3, "high": 1e-2}, "low: is -0.001; expected a number, greater than 0."),
        (LR, {"choices": [1e-3, "high"]}, "choice \"high\": 'high' is text; expected a number, greater than 0."),
        (LR, {"choices": [4, 4]}, "names the choice 4 twice; each once."),
        (LR, {"choices": [4], "low": 1}, "has choices and low; give choices alone, or low and high."),
        (BATCH, {"low": 8, "high": 24.5}, "high: is 24.5; expected an integer, at least 1."),
        ("stages.full.training.learning_rat", {"choices": [1]}, "unknown key 'learning_rat' of training. Did you"),
        ("stages.ful.strategy", {"choices": ["full"]}, "unknown item of stages 'ful'. Did you mean 'full'?"),
        ("stages.full.strategy", {"choices": ["full", "lroa"]}, "choice \"lroa\": unknown strategy 'lroa'. Did you"),
        ("stages.full.strategy", {"low": 1, "high": 2}, "has low and high, but takes a strategy:"),
        ("fusions", {"choices": [["averaging"], ["averging"]]}, "unknown fusion 'averging'. Did you mean 'averaging'"),
        ("stages.lora.start_from", {"choices": ["base", "lora"]}, "lora -> lora is a cycle"),
        ("seed", {"low": 1, "high": 9}, "seed is luck, which the next rows do not share; it is not searched."),
        ("tuning.num_trials", {"low": 1, "high": 9}, "tuning is the search itself; it is not searched."),
    ],
)
def test_a_wrong_range_is_one_line_at_its_path(path: str, found: dict[str, Any], line: str):
    with pytest.raises(ParamsError) as caught:
        load_experiment(given({path: found}))
    [problem] = caught.value.problems
    assert problem.startswith(f"params: tuning.space.{path}: ")
    assert line in problem


def test_a_parameter_that_nothing_reads_is_refused():
    params = given({"training.learning_rate": {"low": 1e-5, "high": 1e-3}})
    assert load_experiment(params).tuning is not None  # the stage "full" reads it
    params["stages"][0]["training"] = {"learning_rate": 1e-4}
    with pytest.raises(ParamsError, match="changes nothing: what reads it has a value of its own"):
        load_experiment(params)


@pytest.mark.parametrize(
    ("other", "line"),
    [("stages.0.training.learning_rate", "is the same place as"), ("stages.full.training", "overlaps with")],
)
def test_two_ranges_for_one_place_are_refused(other: str, line: str):
    found = {"choices": [{"learning_rate": 1e-3}, {"learning_rate": 1e-4}]} if "rate" not in other else None
    space = {LR: {"low": 1e-5, "high": 1e-3}, other: found or {"low": 1e-5, "high": 1e-3}}
    with pytest.raises(ParamsError, match=f"{line} '{LR}'"):
        load_experiment(given(space))


def test_a_grid_needs_an_end_of_values():
    with pytest.raises(ParamsError, match="has no end of values for a grid; give a step, or choices"):
        load_experiment(given({LR: {"low": 1e-5, "high": 1e-3}}, sampler="grid"))


@pytest.mark.parametrize(
    ("path", "found", "values"),
    [
        (LR, {"choices": [1e-3, 1e-4]}, (1e-3, 1e-4)),
        (BATCH, {"low": 2, "high": 5}, (2, 3, 4, 5)),
        (BATCH, {"low": 8, "high": 30, "step": 8}, (8, 16, 24)),
        ("training.warmup_ratio", {"low": 0.1, "high": 0.4, "step": 0.1}, (0.1, 0.2, 0.3, 0.4)),
        (LR, {"low": 1e-5, "high": 1e-3}, None),
        (BATCH, {"low": 2, "high": 64, "log": True}, None),
    ],
)
def test_a_range_lists_its_values_for_a_grid(path: str, found: dict[str, Any], values: tuple | None):
    assert listed({path: found}) == values


@pytest.mark.parametrize(
    ("space", "own"),
    [
        ({LR: {"low": 1e-5, "high": 1e-3}}, {LR: 5e-5}),
        ({LR: {"low": 1e-4, "high": 1e-3}}, None),
        ({BATCH: {"low": 8, "high": 64, "step": 8}}, {BATCH: 32}),
        ({BATCH: {"low": 8, "high": 64, "step": 7}}, None),
        ({"stages.lora.strategy": {"choices": ["full", {"name": "lora", "r": 4}]}}, "second"),
        ({"fusions": {"choices": [[], ["averaging"]]}}, "second"),
        ({"data.columns.text": {"choices": ["text", "title"]}}, None),
        ({"training.micro_batch_size": {"choices": [8, None]}}, "second"),
    ],
)
def test_the_params_own_values_are_known_where_they_lie_in_the_space(space: dict[str, Any], own: Any):
    document = read_params(given(space))
    experiment = validated(document)
    dimensions = searching.dimensions(experiment, document)
    found = searching.own_values(experiment, dimensions, searching.variants(document, dimensions, load_experiment))
    if own == "second":
        [(path, one)] = space.items()
        own = {path: one["choices"][1]}
    assert found == own
