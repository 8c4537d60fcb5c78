"""YAML as params files mean it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.params.documents import parse_document, parse_value, plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("false", False),
        ("5e-5", 5e-5),
        ("1.e3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("", None),
        (".inf", float("inf")),
    ],
)
def test_scalars_are_read_as_yaml_1_2_means_them(text: str, value: Any):
    read = plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_quotes_and_the_str_tag_keep_text():
    document = parse_document("a: '5'\nb: \"true\"\nc: !!str 5\nd: |\n  7\n", "p")
    assert document.value == {"a": "5", "b": "true", "c": "5", "d": "7\n"}


def test_every_key_and_item_knows_its_line():
    document = parse_document("a:\n  b: 1\nc:\n- x\n- {d: 2}\n", "p.yaml")
    assert document.where(("a", "b")) == "p.yaml:2"
    assert document.where(("c", 1, "d")) == "p.yaml:5"
    assert document.where(("c", 1, "missing")) == "p.yaml:5"
    assert document.where(("nowhere",)) == "p.yaml"


def test_anchors_and_merges_are_read():
    document = parse_document("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\n", "p")
    assert document.value["b"] == {"x": 1, "y": 2}
    assert document.value["c"] == {"x": 1, "y": 3}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    from ftlib.params.documents import read_document

    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_document(path).value == {"name": "a"}


@pytest.mark.parametrize(
    ("text", "value"), [("[a, 1]", ["a", 1]), ("{a: no}", {"a": "no"}), ("'1'", "1"), ("@x", "@x")]
)
def test_values_of_the_command_line_are_yaml(text: str, value: Any):
    assert parse_value(text, "--set") == value


texts = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.filter(bool), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), values, min_size=1, max_size=4))
def test_what_yaml_writes_in_quotes_is_read_back(value: dict[str, Any]):
    import json

    assert parse_document(json.dumps(value), "p").value == json.loads(json.dumps(value))
    assert parse_document(yaml.safe_dump(value, default_style='"', indent=2), "p").value.keys() == value.keys()
