"""Words of a text, and tokens' values shared out to them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlib.explaining.words import spread, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't pay 3.50 twice!", ["I", "don't", "pay", "3.50", "twice", "!"]),
        ("state-of-the-art", ["state-of-the-art"]),
        ("Ich möchte…", ["Ich", "möchte", "…"]),
        ("ログイン できない", ["ロ", "グ", "イ", "ン", "で", "き", "な", "い"]),
        ("退款 please", ["退", "款", "please"]),
        ("استرداد المبلغ", ["استرداد", "المبلغ"]),
        ("  ", []),
        ("😡😡 pls", ["😡", "😡", "pls"]),
    ],
)
def test_words_are_those_a_reader_sees(text: str, words: list[str]):
    assert [text[start:end] for start, end in words_of(text)] == words


@given(st.text(max_size=60))
def test_words_lie_in_order_hold_all_but_white_space_and_never_overlap(text: str):
    places = words_of(text)
    assert all(a < b for a, b in places)
    assert all(one[1] <= other[0] for one, other in pairwise(places))
    outside = set(range(len(text))) - {i for a, b in places for i in range(a, b)}
    assert all(text[i].isspace() for i in outside)


@given(st.data())
def test_nothing_is_lost_when_tokens_become_words(data: st.DataObject):
    text = data.draw(st.text(st.characters(codec="utf8"), max_size=40))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    places = [*pairwise(cuts), None]
    values = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=len(places), max_size=len(places))))
    found, rest = spread(values, places, words_of(text))
    assert found.sum() + rest == pytest.approx(values.sum(), abs=1e-9)


def test_a_token_over_two_words_is_shared_out_by_characters():
    found, rest = spread(np.array([3.0, 1.0]), [(0, 4), None], [(0, 1), (2, 4)])
    assert found.tolist() == [1.0, 2.0]
    assert rest == 1.0
