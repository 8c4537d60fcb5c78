"""The sample conversations and instructions: equal for equal seeds, with defects that cleaning finds."""

from __future__ import annotations

import pyarrow as pa

from ftlib.data.clean import Cleaning, clean
from ftlib.data.sources.sample_dialogues import SampleDialogues
from ftlib.data.sources.sample_instructions import SampleInstructions
from ftlib.problems.dialogue import Dialogue
from ftlib.problems.text_generation import TextGeneration


def cleaned(source, problem):
    columns = {name: name for name in source.columns()}
    table = source.read(columns)
    assert table.equals(type(source)(num_rows=source.num_rows).read(columns))
    table = table.add_column(0, "split", pa.array(["all"] * len(table)))
    return clean(table.add_column(0, "row_id", pa.array(range(len(table)), pa.int64())), problem, Cleaning())


def test_conversations_hold_the_defects_that_cleaning_finds():
    found = cleaned(SampleDialogues(num_rows=800), Dialogue())
    kinds = set(found.summary["rejected"])
    assert {"duplicate", "out of turn", "unknown role", "empty message"} <= kinds
    assert "no answer: the user has the last word" in kinds
    assert len(found.table) + len(found.rejected) == 800
    assert all(messages[-1]["role"] == "assistant" for messages in found.table["messages"].to_pylist())


def test_instructions_hold_the_defects_that_cleaning_finds():
    found = cleaned(SampleInstructions(num_rows=600), TextGeneration())
    assert "duplicate" in found.summary["rejected"]
    assert found.summary["repaired"]["html"] > 0
    assert len(found.table) + len(found.rejected) == 600


def test_other_seeds_write_other_rows_and_have_other_fingerprints():
    one, other = SampleDialogues(num_rows=20), SampleDialogues(num_rows=20, seed=1)
    assert one.fingerprint() != other.fingerprint()
    assert not one.read({"messages": "messages"}).equals(other.read({"messages": "messages"}))
