"""Places move with the text when cleaning repairs it, and back."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.data.clean import Cleaning
from ftlib.data.normalize import normalize
from ftlib.data.originals import places, with_given

PAIRS = [
    ("In  1959,\tAnn won.", "In 1959, Ann won."),
    ("<p>Ann <b>won</b> in 1959.</p>", "Ann won in 1959."),
    ("CafÃ© Ann in RÃ©my won 3 &amp; 4.", "Café Ann in Rémy won 3 & 4."),
    ("\u200bAnn &lt; Bob, Ann &gt; Eve", "Ann < Bob, Ann > Eve"),
    ("  王小明  於一九五九年   獲勝。", "王小明 於一九五九年 獲勝。"),
]


def repaired(text: str) -> str:
    return normalize(pa.array([text]), Cleaning())[0].as_py()


@pytest.mark.parametrize(("given_text", "text"), PAIRS)
def test_every_word_of_a_repaired_text_is_found_where_it_came_from(given_text, text):
    assert repaired(given_text) == text
    found = places(given_text, text)
    for word in text.split():
        start = text.index(word)
        first, last = found.in_given(start, start + len(word))
        assert repaired(given_text[first:last]) == word
        assert found.in_repaired(first, last) == (start, start + len(word))


def test_a_text_that_was_not_changed_keeps_its_places():
    found = places("Ann won.", "Ann won.")
    assert found.in_given(4, 7) == found.in_repaired(4, 7) == (4, 7)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["Ann", "won", "  ", " ", "<br>", "1959", ".", "\t", "é", "&amp;", "王"]), max_size=30))
def test_places_stay_in_order_and_inside_the_text(parts):
    given_text = "".join(parts)
    text = repaired(given_text)
    found = places(given_text, text)
    assert len(found.starts) == len(found.ends) == len(text)
    assert (found.starts <= found.ends).all()
    assert (found.starts[1:] >= found.starts[:-1]).all()
    assert not len(text) or (found.starts[0] >= 0 and found.ends[-1] <= len(given_text))


def test_texts_that_have_nothing_in_common_are_laid_over_each_other_evenly():
    found = places("abcd", "xy")
    assert found.in_given(0, 1) == (0, 2)
    assert found.in_given(1, 2) == (2, 4)


def test_texts_as_they_came_stand_beside_the_repaired_ones():
    rows = with_given(pa.table({"text": ["5"]}), pa.table({"text": [5]}), ["text"])
    assert rows.to_pylist() == [{"text": "5", "given:text": "5"}]
