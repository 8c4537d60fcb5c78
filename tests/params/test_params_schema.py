"""The JSON Schema of params files: what editors complete by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ftlib.fusion.base import Fusion
from ftlib.params.documents import parse_document, read_document
from ftlib.params.experiment import Experiment
from ftlib.strategies.base import Strategy

PARAMS = sorted((Path(__file__).parents[2] / "params").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return Experiment.model_json_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_every_params_file_validates(path: Path, validator: Draft202012Validator):
    assert [error.message for error in validator.iter_errors(read_document(path).value)] == []


def test_a_good_file_validates_with_every_short_form(good: str, validator: Draft202012Validator):
    assert list(validator.iter_errors(parse_document(good, "p").value)) == []


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("r: 4", "rank: 4"),
        ("r: 4", "r: 0"),
        ("name: lora, r: 4", "r: 4"),
        ("name: lora, r", "name: full, r"),
        ("strategy: full", "strategy: fulll"),
        ("- averaging", "- avraging"),
        ("train: data", "trian: data"),
        ("seed: 7", "sed: 7"),
    ],
)
def test_what_loading_refuses_the_schema_refuses(said: str, instead: str, good: str, validator: Draft202012Validator):
    assert list(validator.iter_errors(parse_document(good.replace(said, instead, 1), "p").value))


@pytest.mark.parametrize(("family", "base"), [("Strategy", Strategy), ("Fusion", Fusion)])
def test_every_plugin_is_offered_with_its_name_and_described_fields(family: str, base: Any, schema: dict[str, Any]):
    offered = {s["title"]: s for s in schema["$defs"][family]["anyOf"] if "title" in s}
    assert set(offered) == set(base.available())
    for name, described in offered.items():
        assert described["properties"]["name"]["const"] == name
        assert "name" in described["required"]
        assert described["properties"]["name"]["description"]
        assert all(p.get("description") for p in described["properties"].values()), name
