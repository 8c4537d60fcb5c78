from __future__ import annotations

from collections import Counter

import pytest

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect
from ftlib.data.sources.base import Source
from ftlib.data.sources.support_requests import SupportRequests
from ftlib.errors import DataError

COLUMNS = {"text": "text", "label": "label", "group": "customer"}


def test_rows_and_fingerprint_follow_from_the_parameters():
    small = SupportRequests(num_rows=100)
    assert small.read(COLUMNS) == SupportRequests(num_rows=100).read(COLUMNS)
    assert small.read(COLUMNS) != SupportRequests(num_rows=100, seed=1).read(COLUMNS)
    assert small.fingerprint() == SupportRequests(num_rows=100).fingerprint()
    assert small.fingerprint() != SupportRequests(num_rows=101).fingerprint()


def test_it_needs_nothing_but_its_name():
    source = Source.model_validate("support_requests")
    table = source.read(COLUMNS)
    assert len(table) == 4000
    assert source.columns() == ["text", "label", "customer"]


def test_all_the_noise_that_it_promises_is_found_by_cleaning(problem):
    rows = collect({"all": SupportRequests(num_rows=3000)}, COLUMNS).table
    summary = clean(rows, problem(), Cleaning()).summary
    assert set(summary["rejected"]) == {"duplicate", "conflicting labels", "empty text", "missing label"}
    assert min(summary["repaired"].values()) > 10
    assert summary["kept"] > 2600


def test_intents_are_many_overlapping_and_about_as_frequent(problem):
    labels = Counter(SupportRequests(missing_ratio=0.0).read(COLUMNS)["label"].to_pylist())
    assert len(labels) == 12
    assert min(labels.values()) > 0.6 * max(labels.values())


def test_without_noise_nothing_has_to_be_rejected_but_what_reads_alike(problem):
    quiet = {name: 0.0 for name in SupportRequests.model_fields if name.endswith("_ratio")}
    rows = collect({"all": SupportRequests(num_rows=1000, **quiet)}, COLUMNS).table
    summary = clean(rows, problem(), Cleaning()).summary
    assert summary["repaired"]["html"] == 0
    assert set(summary["rejected"]) <= {"duplicate", "conflicting labels"}
    assert summary["kept"] > 950


def test_no_template_is_left_unfilled():
    texts = SupportRequests(num_rows=5000, html_ratio=0.0, untidy_ratio=0.0, missing_ratio=0.0).read(COLUMNS)["text"]
    assert not [text for text in texts.to_pylist() if any(mark in text for mark in "[]{}|")]


def test_a_wrong_column_is_answered_with_the_near_names():
    with pytest.raises(DataError, match=r"unknown column 'labels'\. Did you mean 'label'\?"):
        SupportRequests(num_rows=10).read({"text": "text", "label": "labels"})
