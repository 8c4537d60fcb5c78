from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ftlib.data.sources.base import Source
from ftlib.errors import ParamsError, unknown
from ftlib.fusion.base import Fusion
from ftlib.plugins import Plugin, Section, plugins_in
from ftlib.problems.base import Problem
from ftlib.steps import digest_json
from ftlib.strategies.base import Strategy
from tests import contracts

ROOT = Path(__file__).parents[2]
BASES = (Source, Fusion, Problem, Strategy)
ALL = [(base, name) for base in BASES for name in base.available()]


class Holder(Section):
    strategy: Strategy
    sources: dict[str, Source] = {}


@pytest.mark.parametrize(("base", "name"), ALL, ids=lambda v: v if isinstance(v, str) else v.kind)
def test_every_plugin_is_a_frozen_value_built_without_arguments(base: type[Plugin], name: str):
    plugin = base.named(name)()
    assert plugin.name == name
    assert plugin == base.model_validate(plugin.model_dump(mode="json"))
    assert type(plugin).__name__.lower() == name.replace("_", "")
    assert type(plugin).__mro__[1] is base, "one inheritance level: base, plugin"
    assert len(type(plugin).card()) > 100, "the module's docstring is the plugin's card"
    for field in type(plugin).model_fields:
        with pytest.raises(ValidationError):
            setattr(plugin, field, None)


@pytest.mark.parametrize(("base", "name"), ALL, ids=lambda v: v if isinstance(v, str) else v.kind)
def test_every_plugin_refuses_a_field_it_does_not_know(base: type[Plugin], name: str):
    with pytest.raises(ValidationError, match="extra_forbidden"):
        base.model_validate({"name": name, "no_such_field": 1})


def test_a_plugins_own_fields_survive_the_dump_of_what_holds_it():
    small, large = (Holder.model_validate({"strategy": {"name": "lora", "r": r}}) for r in (4, 8))
    assert small.model_dump(mode="json")["strategy"]["r"] == 4
    assert digest_json(small.model_dump(mode="json")) != digest_json(large.model_dump(mode="json"))


def test_a_wrong_name_is_answered_with_the_near_ones():
    with pytest.raises(ValidationError, match=r"unknown strategy 'lroa'\. Did you mean 'lora'"):
        Holder.model_validate({"strategy": "lroa"})
    with pytest.raises(ParamsError, match="`ftlib list strategies` names all"):
        Strategy.named("lroa")


def test_an_error_inside_a_plugin_names_its_place():
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"strategy": {"name": "lora", "r": "four"}})
    assert caught.value.errors()[0]["loc"] == ("strategy", "r")


def test_plugins_are_found_wherever_a_value_holds_them():
    holder = Holder.model_validate({"strategy": "lora", "sources": {"train": "a.csv", "test": "b.tsv"}})
    assert sorted(p.name for p in plugins_in(holder)) == ["csv", "lora", "tsv"]


def test_a_path_alone_stands_for_the_source_that_its_ending_names():
    assert Source.model_validate("rows/train.tsv").name == "tsv"


@pytest.mark.parametrize("path", ["rows.pkl", "rows.pickle"])
def test_pickles_are_refused_with_the_remedy(path: str):
    with pytest.raises(ValidationError, match="pickles are refused"):
        Source.model_validate(path)


@given(st.text(min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_unknown_always_says_something_helpful(name: str, available: list[str]):
    line = unknown("thing", name, available)
    assert repr(name) in line
    assert "Did you mean" in line or "Expected one of" in line


def test_the_strategy_that_the_guide_shows_keeps_the_contract(tiny_model, tmp_path, monkeypatch):
    guide = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    source = guide.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "norm_tuning.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    strategy = importlib.import_module("norm_tuning").NormTuning()
    contracts.check_gradients(strategy, Problem.named("text_classification")(), tiny_model("bert"))
