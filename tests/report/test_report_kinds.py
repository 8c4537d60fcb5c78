"""What the report shows of answers that are more than a label, of words that answers rest on, and of slices."""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup
from report_kinds import CONTEXT, GOLD, KINDS, SAID, WORDS
from report_stories import single_label
from test_report import Page

from ftlib.report import Story, render, spans
from ftlib.report.heat import heated, step
from ftlib.targets.tag_spans import spans as library_spans
from ftlib.targets.tag_spans import tag_set


@pytest.fixture(scope="module")
def base() -> Story:
    return single_label()


@pytest.fixture(scope="module")
def pages(base: Story) -> dict[str, str]:
    return {name: render(retold(base)) for name, retold in KINDS.items()}


def errors_of(html: str) -> str:
    return html[html.index('<section id="errors"') : html.index("</section>", html.index('<section id="errors"'))]


def test_every_section_has_something_in_it(pages: dict[str, str]):
    for name, html in pages.items():
        for part in re.findall(r"<section id=.*?</section>", html, re.DOTALL):
            assert re.search(r"<(table|svg|dl)", part), (name, part[:200])


def test_sections_that_make_no_sense_are_left_out(pages: dict[str, str]):
    there = {name: set(re.findall(r'<section id="(\w+)"', html)) for name, html in pages.items()}
    assert not {"confusion", "labels", "reliability"} & there["texts"]
    assert not {"confusion", "labels"} & there["span"]
    assert {"confusion", "labels", "reliability"} <= there["tags"]
    assert "reliability" in there["span"]
    assert "slices" in there["explained"]
    assert "slices" not in there["texts"]


def test_entities_are_marked_in_their_words_right_missed_and_wrong(pages: dict[str, str]):
    shown = errors_of(pages["tags"])
    assert '<mark class="both" title="Found">Anna Lee<small>person</small></mark>' in shown
    assert '<mark class="right" title="Gold">New York<small>city</small></mark>' in shown
    assert '<mark class="wrong" title="Wrong">New<small>city</small></mark>' in shown
    assert "&lt;b&gt;iPhone&lt;/b&gt;" in shown
    assert "3 types" in Page(pages["tags"]).text.replace("\N{NO-BREAK SPACE}", " ")


def test_of_a_long_row_of_plain_tags_the_words_around_the_mistakes_are_shown(pages: dict[str, str]):
    shown = Page(f"<p>{errors_of(pages['plain_tags'])}</section></p>".replace("</section></p>", "</section></p>")).text
    assert shown.count("cat") < 40
    assert "sat VERB" in shown.replace("satVERB", "sat VERB")


def test_answers_are_marked_in_the_text_around_them(pages: dict[str, str]):
    shown = errors_of(pages["span"])
    assert '<mark class="right" title="Gold">5,889,000</mark>' in shown
    assert '<mark class="wrong" title="Wrong">three in four</mark>' in shown
    assert "…" in shown


def test_generated_texts_stand_below_each_other_and_are_not_called_right_or_wrong(pages: dict[str, str]):
    shown = errors_of(pages["texts"])
    assert ">gold</b>" in shown
    assert "✓" not in shown
    assert "&lt;i&gt;" in shown


def test_chats_are_told_with_who_said_what(pages: dict[str, str]):
    assert "user: Where is my &lt;parcel&gt;?\nassistant: On its way." in errors_of(pages["dialogue"])


def test_a_file_is_named_by_its_size(pages: dict[str, str]):
    shown = errors_of(pages["image"])
    assert "5,400 bytes" in shown
    assert "PNG" not in shown
    assert "x89" not in shown


def test_a_language_model_s_text_is_shown_once(pages: dict[str, str]):
    assert ">gold</b>" not in errors_of(pages["likelihood"])


def test_words_are_coloured_by_what_they_add(pages: dict[str, str]):
    shown = errors_of(pages["explained"])
    assert shown.count("without words 0.120") == 4
    assert 'class="b6 heat" title="+0.300"' in shown
    assert 'class="o3 heat" title="−0.150"' in shown


def test_slices_that_fall_behind_are_named_in_the_headline_and_first_in_the_table(pages: dict[str, str]):
    text = Page(pages["explained"]).text
    assert "Where channel is phone it falls behind: 0.610 against 0.850 elsewhere." in text
    assert "falls behind on channel: phone (0.610 against 0.850 elsewhere). Dots" in text
    assert "Where length" not in text


# -- parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [GOLD, SAID, ["O"], ["I-a", "I-a", "I-b", "B-b", "O", "I-a"]])
def test_spans_are_those_of_the_scorer(tags: list[str]):
    import numpy as np

    names = ("O", *(f"{p}-{t}" for t in sorted({tag[2:] for tag in tags if tag != "O"}) for p in "BI"))
    known = tag_set(names, False)
    found = library_spans(np.array([names.index(tag) for tag in tags]), np.array([0, len(tags)]), known)
    expected = [(int(a), int(b), known.types[t]) for a, b, t in zip(found.first, found.last, found.type, strict=True)]
    assert spans.spans_of(tags) == expected


def test_text_is_whole_whatever_is_marked_in_it():
    shown = spans.tagged(WORDS, SAID, GOLD, "wrong")
    plain = re.sub(r"<small>.*?</small>", "", shown)
    assert Markup(plain).striptags() == " ".join(WORDS)
    assert heated("a <b> c", [(0, 1, 0.5), (2, 5, -0.5), (6, 7, 0.0)], 0.5).striptags() == "a <b> c"


def test_an_answer_that_is_not_in_the_text_leaves_the_text_as_it_is():
    shown, whole = spans.in_context(CONTEXT, ["nowhere"], "not there")
    assert whole == CONTEXT
    assert "<mark" not in shown


def test_weak_words_have_no_colour():
    assert [step(v, 1.0) for v in (0.0, 0.05, -0.05, 0.2, -1.0, 1.0)] == [0, 0, 0, 1, 6, 6]
