"""``--set``: typed values, stages by name, sections that the file leaves out, and near names for wrong paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.errors import ParamsError
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment

Write = Callable[[str | bytes], Path]


@pytest.fixture
def load(good: str, params_file: Write) -> Callable[..., Experiment]:
    path = params_file(good)
    return lambda *changes: load_experiment(path, changes)


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("seed=8", "seed", 8),
        ("name=5", "name", "5"),
        ("stages.1.strategy.r=16", "stages.1.strategy.r", 16),
        ("stages.lora.strategy.r=16", "stages.1.strategy.r", 16),
        ("stages.full.training.learning_rate=1e-4", "stages.0.training.learning_rate", 1e-4),
        ("training.learning_rate=1e-4", "stages.2.training.learning_rate", 1e-4),
        ("training.early_stopping_patience=null", "training.early_stopping_patience", None),
        ("stages.0.strategy=lora", "stages.0.strategy.name", "lora"),
        ("stages.0.strategy={name: lora, r: 2}", "stages.0.strategy.r", 2),
        ("stages.small.strategy.teacher=full", "stages.2.strategy.teacher", "full"),
        ("stages.small.strategy.teacher=[full]", "stages.2.strategy.teacher", ("full",)),
        ("stages.small.member=false", "stages.2.member", False),
        ("data.sources.train=/x/train.csv", "data.sources.train.name", "csv"),
        ("data.sources.test=/x/test.tsv", "data.sources.test.path", "/x/test.tsv"),
        ("data.sources.train.path=/x/train.tsv", "data.sources.train.path", "/x/train.tsv"),
        ("data.sources.validation=/x/dev.tsv", "data.sources.validation.path", "/x/dev.tsv"),
        ("data.columns.text=3", "data.columns.text", 3),
        ("data.columns.text='3'", "data.columns.text", "3"),
        ("splitting.group_column=author", "splitting.group_column", "author"),
        ("splitting.group_column=2024", "splitting.group_column", "2024"),
        ("splitting.group_column=", "splitting.group_column", None),
        ("problem.labels=[no, maybe, yes]", "problem.labels", ("no", "maybe", "yes")),
        ("fusions.averaging.name=mean", "fusions.0.name", "mean"),
        ("fusions.stack.method.C=3", "fusions.1.method.C", 3),
        ("base_model=C:/models#1", "base_model", "C:/models#1"),
    ],
)
def test_a_change_is_typed_and_lands_where_it_says(load: Callable[..., Experiment], change: str, path: str, value: Any):
    found: Any = load(change)
    for key in path.split("."):
        if isinstance(found, tuple):
            found = found[int(key)]
        else:
            found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == value


def test_later_changes_see_earlier_ones(load: Callable[..., Experiment]):
    stages = load("stages.0.strategy=lora", "stages.0.strategy.r=3").stages
    assert stages[0].strategy == load("stages.0.strategy={name: lora, r: 3}").stages[0].strategy


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("seed", "--set seed: expected path=value, such as --set stages.0.training.learning_rate=1e-4."),
        ("sed=8", "--set sed=8: unknown key 'sed' of an experiment. Did you mean 'seed'?"),
        (
            "stages.1.strategy.rr=1",
            "--set stages.1.strategy.rr=1: unknown key 'rr' of strategy 'lora'. Did you mean 'r'?",
        ),
        ("stages.0.strategy.r=1", "--set stages.0.strategy.r=1: unknown key 'r': strategy 'full' has no parameters."),
        (
            "stages.loar.member=true",
            "--set stages.loar.member=true: unknown item of stages 'loar'. Did you mean 'lora'?",
        ),
        ("stages.7.member=true", "--set stages.7.member=true: stages has 3 items, counted from 0."),
        ("data.sources.trian=a.csv", "--set data.sources.trian=a.csv: unknown key 'trian'. Did you mean 'train'?"),
        ("seed.deep=1", "--set seed.deep=1: seed holds one value, not a section."),
        (
            "problem.labels=[a",
            "--set problem.labels=[a: opens a list with [ and does not close it; a ',' or ']' is missing.",
        ),
        ("seed=many", "--set seed=many: 'many' is text; expected an integer, at least 0, below 2^31."),
        (
            "stages.lora.strategy.r=x",
            "--set stages.lora.strategy.r=x: stages.1.strategy.r: 'x' is text; expected an integer, at least 1.",
        ),
        (
            "stages.1.start_from=smal",
            "--set stages.1.start_from=smal: unknown stage 'smal'. Did you mean 'small'?",
        ),
    ],
)
def test_a_change_that_is_wrong_is_told_by_its_own_words(load: Callable[..., Experiment], change: str, line: str):
    with pytest.raises(ParamsError) as caught:
        load(change)
    assert caught.value.problems == (line,)


def test_all_wrong_changes_are_told_at_once(load: Callable[..., Experiment]):
    with pytest.raises(ParamsError) as caught:
        load("sed=8", "nam=x")
    assert len(caught.value.problems) == 2
