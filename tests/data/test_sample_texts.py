"""The made-up pairs of texts: by rule, equal for equal seeds, and damaged as said."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ftlib.data.clean import Cleaning, clean
from ftlib.data.sources.base import Source
from ftlib.data.sources.sample_summaries import report
from ftlib.data.sources.sample_translations import sentence
from ftlib.problems.base import Problem

KINDS = {"sample_translations": "translation", "sample_summaries": "summarization"}


def rows(name: str, **settings: Any) -> Any:
    answer = Problem.named(KINDS[name])().label_column
    return Source.named(name)(**settings).read({"text": "text", answer: answer})


@pytest.mark.parametrize("name", KINDS)
def test_equal_seeds_give_equal_rows(name: str) -> None:
    assert rows(name, num_rows=200, seed=3).equals(rows(name, num_rows=200, seed=3))
    assert not rows(name, num_rows=200, seed=3).equals(rows(name, num_rows=200, seed=4))
    source = Source.named(name)
    assert source(seed=1).fingerprint() != source(seed=2).fingerprint()


@pytest.mark.parametrize("name", KINDS)
def test_cleaning_finds_what_is_damaged_and_keeps_the_rest(name: str) -> None:
    import pyarrow as pa

    table = rows(name, num_rows=1000)
    table = table.append_column("row_id", pa.array(range(1000))).append_column("split", pa.array(["all"] * 1000))
    found = clean(table, Problem.named(KINDS[name])(), Cleaning())
    assert len(found.table) + len(found.rejected) == 1000
    assert 900 < len(found.table) < 990
    assert {"duplicate", "missing label"} & set(found.summary["rejected"])
    assert found.summary["repaired"]["html"] > 10
    assert not any("<p>" in text for text in found.table["text"].to_pylist())


def test_a_damaged_gold_text_is_repaired_as_the_input_is() -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "row_id": [0, 1],
            "split": ["all", "all"],
            "text": ["one", "two"],
            "translation": ["<b>uno</b> &amp;  due", "caf\u00c3\u00a9"],
        }
    )
    found = clean(table, Problem.named("translation")(), Cleaning())
    assert found.table["translation"].to_pylist() == ["uno & due", "caf\u00e9"]


def test_the_same_sentence_always_has_the_same_translation() -> None:
    random, seen = Random(0), {}
    for _ in range(5000):
        english, velic = sentence(random)
        assert seen.setdefault(english, velic) == velic
    verbs = {velic.split()[-1] for velic in seen.values()}
    assert verbs >= {"vede.", "vede-n.", "vedeva.", "vedeva-n."}


def test_a_headline_says_what_happened_and_where() -> None:
    random = Random(0)
    for _ in range(200):
        text, headline = report(random)
        town = headline.partition(" in ")[2].partition(",")[0]
        assert town in text
        assert ("hurt" in headline) == any(f"{n} hurt" in text for n in ("was", "were")) - ("Nobody was hurt" in text)
