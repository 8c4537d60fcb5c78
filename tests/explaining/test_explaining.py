"""Explanations of members and fusions, and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from flows import explained
from ftlib.data.clean import Cleaning
from ftlib.errors import ParamsError, UnsupportedError
from ftlib.explaining.explain import explain
from ftlib.explaining.page import page
from ftlib.fusion._mean import WeightedMean
from ftlib.fusion.base import Combiner
from ftlib.problems.base import Problem
from ftlib.serving.answering import Served

TEXTS = ["I was charged twice in May &amp; want a refund.", "", "Search finds nothing since the update."]


def fused(member, combiner: Combiner, architectures: tuple[str, ...] = ("bert", "roberta")) -> Served:
    members = tuple(member("single", i, of, i) for i, of in enumerate(architectures))
    problem = Problem.model_validate({"name": "text_classification", "labels": ["account", "billing", "bug"]})
    return Served("fused", problem, Cleaning(), members, combiner, len(members))


def test_an_explanation_is_of_the_models_own_answer_and_adds_up(served):
    model = served("single")
    answers = model.predict(TEXTS)
    found = explain(model, TEXTS)
    assert [one.row for one in found] == [0, 2]
    for one in found:
        assert one.prediction == one.explained == answers["prediction"][one.row]
        assert one.score == pytest.approx(answers["confidence"][one.row], abs=1e-5)
        assert one.gap == pytest.approx(0, abs=0.01)
        assert one.is_exact


def test_words_stand_where_they_are_in_the_repaired_text(served):
    one = explain(served("single"), TEXTS)[0]
    assert one.texts == {"text": "I was charged twice in May & want a refund."}
    assert [w.text for w in one.words][-4:] == ["want", "a", "refund", "."]
    assert all(one.texts[w.column][w.start : w.end] == w.text for w in one.words)


def test_both_texts_of_a_pair_are_explained(served):
    rows = [{"text": "It was good.", "text_pair": "It was bad."}]
    one = explain(served("pair"), rows)[0]
    assert [(w.column, w.text) for w in one.words] == [
        *(("text", w) for w in ("It", "was", "good", ".")),
        *(("text_pair", w) for w in ("It", "was", "bad", ".")),
    ]
    assert one.gap == pytest.approx(0, abs=0.01)


def test_of_several_labels_each_that_is_given_is_explained(served):
    model = served("multi")
    model.members[0].checkpoint.model.classifier.bias.data[:] = 3.0
    found = explain(model, TEXTS[:1])
    assert {one.explained for one in found} == set(found[0].prediction)
    assert len(found) > 1


def test_another_label_can_be_asked_for_and_labels_of_a_row_add_up_to_nothing(served):
    model = served("single")
    values = [
        np.array([w.attribution for w in explain(model, TEXTS[:1], label=label)[0].words])
        for label in model.problem.target.labels
    ]
    np.testing.assert_allclose(sum(values), 0, atol=1e-4)
    with pytest.raises(ParamsError, match=r"unknown label 'billin'\. Did you mean 'billing'"):
        explain(model, TEXTS[:1], label="billin")


def test_a_text_that_the_problem_marks_is_explained_as_the_model_reads_it(served):
    row = {"text": "Bill was born in Seattle.", "head": json.dumps([0, 4]), "tail": json.dumps([17, 24])}
    one = explain(served("relation"), [row])[0]
    assert len(one.texts) == 1
    assert "@" in [w.text for w in one.words]
    assert one.gap == pytest.approx(0, abs=0.01)


def test_a_long_text_is_explained_as_far_as_it_is_read(served):
    one = explain(served("single"), ["bad story " * 400])[0]
    assert one.words[0].attribution != 0
    assert one.words[-1].attribution == 0
    assert one.gap == pytest.approx(0, abs=0.01)


# -- fusions -------------------------------------------------------------------------------------------


def test_a_weighted_mean_is_explained_by_the_weighted_sum_across_tokenizers(member):
    model = fused(member, WeightedMean("single_label", "scores", (0.25, 0.75)))
    alone = [explain(model.alone(f"m{i}"), TEXTS[:1], label="bug")[0] for i in range(2)]
    both = explain(model, TEXTS[:1], label="bug")[0]
    expected = [0.25 * a.attribution + 0.75 * b.attribution for a, b in zip(*(e.words for e in alone), strict=True)]
    np.testing.assert_allclose([w.attribution for w in both.words], expected, atol=1e-9)
    assert both.is_exact
    assert both.gap == pytest.approx(0, abs=0.01)


def test_a_geometric_mean_says_that_it_is_explained_as_a_plain_one(member):
    model = fused(member, WeightedMean("single_label", "logits", (0.5, 0.5)))
    assert not explain(model, TEXTS[:1])[0].is_exact


def test_a_fusion_without_weights_is_refused_with_its_members(member):
    class Odd(WeightedMean):
        def weights(self) -> None:
            return None

    with pytest.raises(UnsupportedError, match=r"gives its members no weights.*m0, m1 \(--member NAME\)"):
        explain(fused(member, Odd("single_label", "scores", (0.5, 0.5))), TEXTS[:1])


def test_a_member_is_taken_by_its_name(member):
    model = fused(member, WeightedMean("single_label", "scores", (0.5, 0.5)))
    assert model.alone("m1").members[0].name == "m1"
    with pytest.raises(ParamsError, match="unknown member 'm7'"):
        model.alone("m7")


# -- the page ------------------------------------------------------------------------------------------


class _Nesting(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_needs_nothing_and_runs_nothing(served):
    hostile = "<script>alert(1)</script> & <img src=x onerror=alert(1)>"
    found = [replace(one, texts={"text": hostile}, words=()) for one in explain(served("single"), TEXTS[:1])]
    html = page("<b>model</b>", [*found, *explain(served("single"), TEXTS), *explain(served("value"), TEXTS)])
    _Nesting(html)
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>model" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("<article>") == 5


def test_words_that_add_most_are_the_strongest_on_the_page(served):
    one = explain(served("single"), TEXTS[:1])[0]
    strongest = max(one.words, key=lambda w: abs(w.attribution))
    ramp = "b" if strongest.attribution > 0 else "o"
    assert f'<span class="{ramp}6 heat"' in page("m", [one])


def test_explanations_are_written_as_lines_of_json(served, tmp_path: Path):
    found = explain(served("single"), TEXTS)
    explained.write(tmp_path / "out" / "e.jsonl", "m", found)
    lines = [json.loads(line) for line in (tmp_path / "out" / "e.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [0, 2]
    assert lines[0]["words"][0] == {
        "column": "text", "start": 0, "end": 1, "text": "I", "attribution": found[0].words[0].attribution
    }  # fmt: skip
    with pytest.raises(ParamsError, match=r"ends in \.html or \.jsonl"):
        explained.check_output(Path("e.pdf"))


def test_the_terminal_shows_every_text_with_its_strongest_words(served):
    lines = [line.plain for one in explain(served("single"), TEXTS) for line in explained.shown(one)]
    assert "I was charged twice in May & want a refund." in lines
    assert any("; without words" in line for line in lines)
