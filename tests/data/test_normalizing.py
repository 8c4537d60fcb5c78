from __future__ import annotations

import unicodedata

import ftfy
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.data.clean import Cleaning
from ftlib.data.normalize import _fix_unicode, _ftfy_config, normalize, repair


def repaired(text: str, **switches: bool) -> str:
    return normalize(pa.array([text]), Cleaning(**switches))[0].as_py()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a < b and c > d", "a < b and c > d"),
        ("if a<b and c>d", "if a<b and c>d"),
        ("I <3 you", "I <3 you"),
        ("hi <user>, see <http://x.org> or <me@x.org>", "hi <user>, see <http://x.org> or <me@x.org>"),
        ("x<y", "x<y"),
        ("one<br>two<BR/>three", "one two three"),
        ("<p>one</p><p>two</p>", "one two"),
        ("un<b>believ</b>able <i>story</i>", "unbelievable story"),
        ("<a href='http://x.org/?a=1&b=2' target=_blank>link</a>", "link"),
        ('<DIV STYLE="a:b" hidden data-x="1">x</DIV>', "x"),
        ("<script>if (a < b) { c('<b>') }</script>text<style type='x'>p { margin: 0 }</style>", "text"),
        ("a<!-- a comment > with more -->b", "a b"),
        ("<!DOCTYPE html><html><body>x</body></html>", "x"),
        ("<o:p>&nbsp;</o:p>x", "x"),
        ("cut off <a href=", "cut off <a href="),
    ],
)
def test_tags_go_and_what_only_looks_like_one_stays(text: str, wanted: str):
    assert repaired(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Tom &amp; Co", "Tom & Co"),
        ("AT&T, R&D, ?a=1&copy=2", "AT&T, R&D, ?a=1&copy=2"),
        ("don&amp;#39;t", "don't"),
        ("5 &#8364; &#x27;x&#x27; &#128;", "5 € 'x' €"),
        ("use the &lt;b&gt; tag", "use the <b> tag"),
        ("&notanentity; stays", "&notanentity; stays"),
    ],
)
def test_entities_are_decoded_where_they_end_in_a_semicolon(text: str, wanted: str):
    assert repaired(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cafÃ© donâ€™t â‚¬5", "café don’t €5"),
        ("e\u0301", "é"),
        ("ﬁne Ａ", "fine A"),
        ("“curly” ’quotes’ stay", "“curly” ’quotes’ stay"),
        ("Où est le cœur? Åse, Михаил, 日本", "Où est le cœur? Åse, Михаил, 日本"),
    ],
)
def test_mojibake_is_repaired_and_good_text_left(text: str, wanted: str):
    assert repaired(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  a \t\r\n b\u00a0\u3000c ", "a b c"),
        ("a\x00b\x07c", "abc"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\ufeffa\u200bb\u00adc\u200e", "abc"),
        ("👨\u200d👩\u200d👧 می\u200cخواهم", "👨\u200d👩\u200d👧 می\u200cخواهم"),
        (" \n ", ""),
    ],
)
def test_white_space_and_what_nobody_sees_is_tidied(text: str, wanted: str):
    assert repaired(text) == wanted


def test_every_repair_has_its_switch():
    text = " cafÃ©  <b>x</b>\x07 &amp; "
    off = {"fix_unicode": False, "strip_html": False, "collapse_whitespace": False}
    assert repaired(text, **off) == text
    assert repaired(text, **{**off, "fix_unicode": True}) == " café  <b>x</b>\x07 &amp; "
    assert repaired(text, **{**off, "strip_html": True}) == " cafÃ©  x\x07 & "
    assert repaired(text, **{**off, "collapse_whitespace": True}) == "cafÃ© <b>x</b> &amp;"


def test_what_changed_is_told_by_kind():
    changed = repair(pa.array(["plain", "a  b", "<p>x</p>", "cafÃ©", None]), Cleaning()).changed
    assert {kind: mask.to_pylist() for kind, mask in changed.items()} == {
        "unicode": [False, False, False, True, False],
        "html": [False, False, True, False, False],
        "whitespace": [False, True, False, False, False],
    }


def test_chunks_nulls_and_empty_columns_are_taken():
    chunked = pa.chunked_array([["a "], [None, "b"], []], pa.string())
    assert normalize(chunked, Cleaning()).to_pylist() == ["a", None, "b"]
    assert normalize(pa.chunked_array([], pa.string()), Cleaning()).to_pylist() == []
    assert normalize(pa.array([1, 2]), Cleaning()).to_pylist() == ["1", "2"]


plain = st.text(st.sampled_from("abc é’“”ñ€ÃÂâ™œ½Øß\u0301ﬁＡ　где中ｶ\u0081…—°"), max_size=16)


@st.composite
def garbled(draw: st.DrawFn) -> str:
    text = draw(plain)
    for encoding in draw(st.lists(st.sampled_from(["latin-1", "cp1252", "cp1251", "mac_roman"]), max_size=2)):
        try:
            text = text.encode("utf-8").decode(encoding)
        except UnicodeDecodeError:
            break
    return text


@settings(deadline=None, max_examples=150)
@given(st.lists(garbled() | st.text(max_size=12), max_size=20))
def test_the_quick_look_before_ftfy_misses_nothing_that_ftfy_repairs(texts: list[str]):
    assert _fix_unicode(pa.array(texts, pa.string())).to_pylist() == [ftfy.fix_text(t, _ftfy_config()) for t in texts]


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_normal_texts_are_tidy_composed_and_keep_no_control_characters(text: str):
    result = repaired(text)
    assert result == " ".join(result.split(" ")).strip(" ")
    assert "  " not in result
    assert unicodedata.is_normalized("NFC", result)
    assert not [c for c in result if unicodedata.category(c) == "Cc"]


@settings(deadline=None, max_examples=80)
@given(st.text(st.sampled_from("ab <>&;/=pbri'\"-!#3lt"), max_size=40))
def test_text_without_ampersand_never_grows_and_loses_only_what_stands_in_brackets(text: str):
    result = repaired(text.replace("&", ""), collapse_whitespace=False)
    assert len(result) <= len(text)
    if "<" not in text:
        assert result == text.replace("&", "")
