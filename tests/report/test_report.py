from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest
from report_stories import FACTS, STORIES, multi_label, single_label, value

from ftlib.report import Story, render, with_run

VOID = {"meta", "br", "link", "img", "input", "hr", "col", "wbr"}
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&{{ 7*7 }}<!--/run-->"


class Page(HTMLParser):
    """A strict reader: elements must nest, ids must be unique; keeps what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, given or "") for name, given in attrs]
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}: {attrs}"
        self.ids += [given or "" for name, given in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag, f"</{tag}> is out of place, at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture(scope="module")
def stories() -> dict[str, Story]:
    return {name: build() for name, build in STORIES.items()}


@pytest.fixture(scope="module")
def reports(stories: dict[str, Story]) -> dict[str, str]:
    return {name: render(story) for name, story in stories.items()}


def sections(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', html)


@pytest.mark.parametrize("name", STORIES)
def test_every_report_is_well_formed_html(name: str, reports: dict[str, str]):
    page = Page(reports[name])
    assert page.tags["html"] == page.tags["main"] == page.tags["h1"] == 1
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("name", STORIES)
def test_a_report_needs_nothing_from_outside(name: str, reports: dict[str, str]):
    html = reports[name]
    assert "http://" not in html
    assert "https://" not in html
    assert not re.search(r"url\(|@import|<link|<img|<iframe", html)
    sources = [given for _, attribute, given in Page(html).attributes if attribute in ("src", "href")]
    assert all(given.startswith("#") for given in sources)
    assert "default-src 'none'" in html


@pytest.mark.parametrize("name", STORIES)
def test_a_report_is_small_enough_to_be_sent(name: str, reports: dict[str, str]):
    assert len(reports[name].encode()) < 1_500_000


@pytest.mark.parametrize("name", STORIES)
def test_equal_stories_give_equal_reports(name: str, reports: dict[str, str]):
    assert render(STORIES[name]()) == reports[name]


@pytest.mark.parametrize("name", STORIES)
def test_no_value_is_shown_as_python_would_print_it(name: str, reports: dict[str, str]):
    text = Page(reports[name]).text
    assert not re.search(
        r"\b(None|nan|inf|True|False|Undefined)\b|\{\{|\{%|<bdi|&lt;|np\.|e-\d\d\d", text.replace("<b>", "")
    )


@pytest.mark.parametrize("name", STORIES)
def test_every_table_has_a_caption_and_every_chart_says_what_it_shows(name: str, reports: dict[str, str]):
    html = reports[name]
    assert html.count("<caption") == html.count("<table")
    charts = re.findall(r'<svg[^>]*class="chart[^>]*>', html)
    assert charts
    assert all(re.search(r'role="img" aria-label="[^"]{12,}"', chart) for chart in charts)


@pytest.mark.parametrize("name", STORIES)
def test_the_contents_lead_to_every_section(name: str, reports: dict[str, str]):
    html = reports[name]
    assert re.findall(r'<li><a href="#(\w+)">', html) == sections(html)


def test_sections_come_in_the_order_of_the_story(reports: dict[str, str]):
    assert sections(reports["single"]) == [
        "summary",
        "leaderboard",
        "gain",
        "learning",
        "confusion",
        "labels",
        "reliability",
        "disagreement",
        "errors",
        "data",
        "encoding",
        "made",
    ]


def test_values_have_no_labels_and_no_confidence_to_show(reports: dict[str, str]):
    assert {"labels", "reliability"}.isdisjoint(sections(reports["value"]))
    assert "Predicted against gold values" in reports["value"]


def test_one_member_alone_is_compared_with_nothing(reports: dict[str, str]):
    assert {"gain", "disagreement"}.isdisjoint(sections(reports["one_member"]))
    text = Page(reports["one_member"]).text
    assert "the only model of this experiment" in text
    assert "wins" not in text
    assert "chosen first" not in text


def test_the_headline_names_the_winner_its_score_and_the_best_single_member(stories, reports):
    best = stories["single"].evaluation["best"]
    text = Page(reports["single"]).text
    assert f"{best['name']} wins with {best['test']:.3f} accuracy" in text
    assert f"the best single member, {stories['single'].evaluation['best_member']}" in text
    assert "If the two were equally good, luck alone would show a difference this large" in text


def test_a_member_that_wins_is_told_beside_the_best_fusion(reports: dict[str, str]):
    assert "Validation preferred it to every fusion. The best of them, " in Page(reports["member_wins"]).text


def test_a_gain_is_positive_where_a_lower_metric_is_better(stories, reports):
    told = stories["rmse"].evaluation
    best = next(f for f in told["fusions"] if f["name"] == told["best"]["name"])
    assert best["gain"] < 0  # a plain difference of RMSE
    assert f"+{-best['gain']:.3f}" in reports["rmse"]
    assert "where lower is better" in reports["rmse"]


def test_all_leaderboard_rows_are_there_with_the_baseline_marked(stories, reports):
    told = stories["single"].evaluation
    board = reports["single"].split('class="board')[1].split("</table>")[0]
    for entry in [*told["members"], *told["fusions"]]:
        assert f"<bdi>{entry['name']}</bdi>" in board
    assert board.count(">baseline<") == 1
    assert board.count(">chosen<") == 1


def test_who_was_passed_over_on_validation_is_said():
    story = single_label()
    told = copy.deepcopy(story.evaluation)
    rival = next(f for f in told["fusions"] if f["name"] != told["best"]["name"])
    rival["metrics"]["validation"]["accuracy"] = 0.9999
    text = Page(render(replace(story, evaluation=told))).text
    assert f"{rival['name']} was ahead on validation, by less than its error" in text


def test_counts_of_the_confusion_matrix_are_all_shown(stories, reports):
    told = stories["single"].evaluation
    matrix = told["confusion"][told["best"]["name"]]
    right = sum(matrix[i][i] for i in range(len(matrix)))
    assert f"is right on {right} of {sum(map(sum, matrix))} test rows" in Page(reports["single"]).text


def test_a_large_matrix_is_a_picture_with_its_mistakes_listed(reports: dict[str, str]):
    text = Page(reports["labels150"]).text
    assert "rest the pointer on a cell" in text
    assert "Most frequent mistakes" in text


def test_the_funnel_accounts_for_every_row(stories, reports):
    story = stories["single"]
    stairs = reports["single"].split('<table class="stairs">')[1].split("</table>")[0]
    lost = [int(n.replace(",", "")) for n in re.findall(r"−([\d,]+)<", stairs)]
    used = sum(story.splits["rows"].values())
    assert story.cleaning["read"] - sum(lost) == used
    for reason in story.cleaning["rejected"]:
        assert reason in stairs


# -- text that others wrote ------------------------------------------------------------------------------


def hostile(story: Story) -> Story:
    """Return the story with every name and text replaced by an attack."""
    told = copy.deepcopy(story.evaluation)
    names = {entry["name"] for entry in [*told["members"], *told["fusions"]]}
    told["labels"] = [f"{HOSTILE}{i}" for i, _ in enumerate(told["labels"])]

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(k): renamed(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [renamed(v) for v in value]
        return f"{HOSTILE}{value}" if value in names else value

    errors = story.errors.slice(0, 3).to_pylist()
    errors = [{renamed_key(k): HOSTILE if isinstance(v, str) else v for k, v in row.items()} for row in errors]
    return replace(
        story,
        experiment=HOSTILE,
        members=[renamed(card) | {"strategy": HOSTILE, "note": HOSTILE} for card in story.members],
        evaluation=renamed(told),
        histories=renamed(story.histories),
        cleaning=story.cleaning | {"rejected": {HOSTILE: 3}},
        errors=pa.Table.from_pylist(errors),
    )


def renamed_key(column: str) -> str:
    return f"member:{HOSTILE}{column}" if column.startswith("member:") else column


@pytest.mark.parametrize("build", [single_label, multi_label, value])
def test_hostile_names_and_texts_are_only_ever_text(build):
    html = with_run(render(hostile(build())), {"run": HOSTILE, "flow_run_url": "javascript:alert(1)"})
    page = Page(html)
    assert page.tags["script"] == 2
    assert page.tags["img"] == 0
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "javascript:" not in html
    assert "<!--/run--></p>" not in html


def test_the_policy_lets_only_the_pages_own_scripts_run(reports: dict[str, str]):
    import base64
    import hashlib

    html = reports["single"]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    [policy] = [given for tag, name, given in Page(html).attributes if tag == "meta" and "sha256" in given]
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    assert allowed == {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}


def test_texts_keep_their_own_direction_and_letters(reports: dict[str, str]):
    html = reports["odd_names"]
    assert "<bdi>عضو</bdi>" in html
    assert 'dir="auto"' in html
    assert "返品と返金についての問い合わせ" in html


def test_a_long_text_is_clipped_and_opens():
    story = single_label()
    row = story.errors.slice(0, 1).to_pylist()[0] | {"text": "word " * 4000}
    html = render(replace(story, errors=pa.Table.from_pylist([row])))
    opened = html.split('<table class="errors')[1].split("</table>")[0]
    assert "<details>" in opened
    assert "more characters)" in opened
    assert len(opened) < 5000


# -- what may be missing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [single_label, multi_label, value])
def test_a_story_of_figures_alone_is_still_told(build):
    story = build()
    pictures = ("confusion", "reliability", "scatter", "disagreement")
    told = {k: v for k, v in story.evaluation.items() if k not in pictures}
    kept = ("summary", "leaderboard", "gain", "labels", "made")
    bare = render(Story(story.experiment, story.members, told))
    assert sections(bare) == [s for s in sections(render(story)) if s in kept]


def test_undefined_figures_are_dashes():
    story = single_label()
    told = copy.deepcopy(story.evaluation)
    for entry in [*told["members"], *told["fusions"]]:
        entry["metrics"]["test"].pop("roc_auc", None)
        entry["interval"] = None
        entry.pop("gain_interval", None)
        entry["per_label"] = {label: {"f1": 0.0} for label in told["labels"]}
    told["members"][1]["metrics"]["test"] = {}
    told["fusions"][1] |= {"p_value_against_best_member": None, "inference_cost_ratio": None, "weights": None}
    text = Page(render(replace(story, evaluation=told))).text
    assert "–" in text


def test_no_errors_and_empty_histories_leave_their_sections_out():
    story = single_label()
    quiet = replace(story, errors=story.errors.slice(0, 0), histories={name: [] for name in story.histories})
    assert {"errors", "learning"}.isdisjoint(sections(render(quiet)))


def test_lengths_are_drawn_where_encoding_counted_them():
    story = single_label()
    counted = copy.deepcopy(story.encoding)
    counted["train"]["length"]["histogram"] = {"edges": [0, 16, 32, 64], "counts": [5, 900, 20]}
    assert "Histogram of row lengths" in render(replace(story, encoding=counted))


# -- facts of a run --------------------------------------------------------------------------------------


def test_facts_of_a_run_come_in_and_are_replaced_by_those_of_the_next(reports: dict[str, str]):
    first = with_run(reports["single"], FACTS)
    text = Page(first).text
    assert "quickstart-2" in text
    assert "7 min 12 s in all; 2 steps computed, 2 cached; about 6.4 Wh and 2.4 g of CO₂" in text
    assert 'href="http://127.0.0.1:5000/#/experiments/1/runs/bbbb?workflowType=machine_learning"' in first
    second = with_run(first, {"run": "quickstart-3", "seconds": 2.1})
    assert "quickstart-2" not in second
    assert "quickstart-3" in second
    assert with_run(second, {}) == reports["single"]


@pytest.mark.parametrize("missing", [*FACTS, "everything"])
def test_any_fact_of_a_run_may_be_missing(missing: str, reports: dict[str, str]):
    facts = {} if missing == "everything" else {k: v for k, v in FACTS.items() if k != missing}
    text = Page(with_run(reports["single"], facts)).text
    assert "None" not in text
    assert " ," not in text
    assert ";;" not in text


def test_a_page_without_a_place_for_the_facts_stays_as_it_is():
    assert with_run("<p>something else</p>", FACTS) == "<p>something else</p>"
