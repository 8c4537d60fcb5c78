"""Sample sentences with entities."""

from __future__ import annotations

from collections import Counter

import pytest

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect
from ftlib.data.sources.base import Source
from ftlib.data.sources.sample_entities import SampleEntities
from ftlib.errors import DataError
from ftlib.problems.token_classification import TokenClassification

COLUMNS = {"tokens": "tokens", "tags": "tags", "group": "writer"}
QUIET = {name: 0.0 for name in SampleEntities.model_fields if name.endswith("_ratio")}


def test_rows_and_fingerprint_follow_from_the_parameters():
    small = SampleEntities(num_rows=60)
    assert small.read(COLUMNS) == SampleEntities(num_rows=60).read(COLUMNS)
    assert small.read(COLUMNS) != SampleEntities(num_rows=60, seed=1).read(COLUMNS)
    assert small.fingerprint() == SampleEntities(num_rows=60).fingerprint()
    assert small.fingerprint() != SampleEntities(num_rows=61).fingerprint()


def test_it_needs_nothing_but_its_name():
    source = Source.model_validate("sample_entities")
    assert source.columns() == ["tokens", "tags", "writer"]
    assert len(source.read(COLUMNS)) == 2000


def test_all_the_defects_that_it_promises_are_found_by_cleaning():
    rows = collect({"all": SampleEntities(num_rows=1500)}, COLUMNS).table
    summary = clean(rows, TokenClassification(illegal_tags="reject"), Cleaning()).summary
    assert set(summary["rejected"]) == {
        "duplicate",
        "conflicting labels",
        "missing tags",
        "an empty word in tokens",
        "tags and tokens differ in number",
        "misplaced tag",
    }
    assert summary["kept"] > 1250
    repaired = clean(rows, TokenClassification(), Cleaning())
    assert "misplaced tag" not in repaired.summary["rejected"]


def test_without_defects_next_to_nothing_is_rejected():
    rows = collect({"all": SampleEntities(num_rows=800, **QUIET)}, COLUMNS).table
    summary = clean(rows, TokenClassification(illegal_tags="reject"), Cleaning()).summary
    assert set(summary["rejected"]) <= {"duplicate", "conflicting labels"}
    assert summary["kept"] > 780


def test_types_are_four_and_none_is_rare_and_words_outside_are_most():
    tags = Counter(tag for row in SampleEntities(**QUIET).read(COLUMNS)["tags"].to_pylist() for tag in row)
    kinds = Counter({tag[2:]: count for tag, count in tags.items() if tag.startswith("B-")})
    assert set(kinds) == {"PER", "LOC", "ORG", "DATE"}
    assert min(kinds.values()) > 0.5 * max(kinds.values())
    assert tags["O"] > sum(kinds.values())


def test_no_template_is_left_unfilled():
    tokens = SampleEntities(num_rows=3000, **QUIET).read(COLUMNS)["tokens"].to_pylist()
    assert not [word for row in tokens for word in row if "{" in word or "}" in word or not word.strip()]


def test_a_wrong_column_is_answered_with_the_near_names():
    with pytest.raises(DataError, match=r"unknown column 'tag'\. Did you mean 'tags'\?"):
        SampleEntities(num_rows=10).read({"tokens": "tokens", "tags": "tag"})
