"""What a search leaves: the best params as a file, and the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ftlib.params.documents import parse_document
from ftlib.params.loading import load_experiment
from ftlib.params.searching import Dimension, change
from ftlib.params.tuning import Range, Tuning
from ftlib.tuning.best import laid_in
from ftlib.tuning.naming import short_names
from ftlib.tuning.page import Found, page
from ftlib.tuning.study import Search, Trial

SOURCE = """\
# Head.   ftlib run p.yaml

name: tickets
base_model: models/tiny       # a small one
problem: {name: text_classification, labels: [no, "yes", "12"]}
data: {sources: {all: rows.csv}}
stages:
  # The first.
  - name: full
    strategy: full
    training: {learning_rate: 1.0e-4, num_train_epochs: 3}   # rates

  - {name: lora, strategy: lora}
fusions: [averaging, voting]
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stages.full.training.learning_rate", 2.5e-05),
        ("stages.lora.strategy.r", 32),
        ("stages.lora.strategy", {"name": "prefix", "num_virtual_tokens": 4}),
        ("fusions", ["weighted"]),
        ("problem.labels", ["no", "null", "1e5"]),
        ("training.early_stopping_patience", None),
        ("stages.lora.start_from", "full"),
    ],
)
def test_the_best_values_are_laid_in_and_comments_stay(source: Path, path: str, value: Any):
    text = laid_in(source, [change(path, value)], header=["The best.", ""])
    assert load_experiment(text) == load_experiment(source, [change(path, value)])
    assert text.startswith("# The best.\n#\n# Head.   ftlib run p.yaml\n")
    for comment in ("# a small one", "# The first.", "# rates"):
        assert comment in text
    assert '"12"' in text or path == "problem.labels"


def test_other_lines_stay_as_they_were(source: Path):
    text = laid_in(source, ["stages.full.training.num_train_epochs=5"])
    changed = [(a, b) for a, b in zip(SOURCE.splitlines(), text.splitlines(), strict=True) if a.split() != b.split()]
    assert [b.split() for _, b in changed] == [
        ["training:", "{learning_rate:", "1.0e-4,", "num_train_epochs:", "5}", "#", "rates"]
    ]  # fmt: skip


def test_what_does_not_survive_with_comments_is_written_plain(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ftlib.tuning.best._with_comments", lambda *_: SOURCE)  # as if the change had been lost
    text = laid_in(source, ["stages.full.training.num_train_epochs=5"], header=["The best."])
    assert text.startswith("# The best.\nname: tickets\n")
    assert load_experiment(text).stages[0].training.num_train_epochs == 5
    assert parse_document(text, "p").value["problem"]["labels"] == ["no", "yes", "12"]


def test_parameters_are_called_by_the_fewest_keys_that_tell_them_apart():
    paths = ["stages.full.training.learning_rate", "stages.lora.training.learning_rate", "stages.lora.strategy.r"]
    assert list(short_names(paths).values()) == ["full.training.learning_rate", "lora.training.learning_rate", "r"]


def found(**changes: Any) -> Found:
    space = (
        Dimension("a.rate", ("a", "rate"), Range(low=1e-5, high=1e-2, log=True), False),
        Dimension("a.size", ("a", "size"), Range(low=1, high=8), True),
        Dimension("<kind>", ("<kind>",), Range(choices=("<b>", {"name": "lora"}, None)), False),
    )
    tuning = Tuning(space={d.path: d.range for d in space})
    search = Search("s", space, tuning, 4, True, 0, 2)
    values = [(1e-4, 1, "<b>"), (1e-3, 2, None), (2e-3, 8, {"name": "lora"}), (1e-5, 4, None)]
    ends = [("complete", 0.5, {}), ("complete", 0.75, {"chosen": "full"}), ("pruned", 0.4, {})]
    states = [*ends, ("failed", None, {"reason": "the <loss> is not a number"})]
    trials = [
        Trial(i, dict(zip(("a.rate", "a.size", "<kind>"), v, strict=True)), state, score, {"seconds": 2.0, **facts})
        for i, (v, (state, score, facts)) in enumerate(zip(values, states, strict=True))
    ]
    given = {"importances": {"a.rate": 0.8, "a.size": 0.2, "<kind>": 0.0}, **changes}
    return Found("tickets & co", search, "accuracy", trials, trials[1], **given)


def test_the_page_shows_every_trial_and_parameter():
    html = page(found())
    assert page(found()) == html
    assert "<b>" not in re.sub(r"<p class=\"eyebrow\"><b>", "", html), "names are escaped"
    assert "the &lt;loss&gt; is not a number" in html
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg[^>]*class=\"chart.*?</svg>", html, re.DOTALL)]
    assert len(charts) == 2 + 3
    history, shares = charts[:2]
    marks = [e.get("class") for e in history.iter() if e.tag in ("circle", "polygon")]
    assert sorted(marks) == ["best-dot", "mark given-up", "mark member"], "a failed trial has no score to show"
    widths = [float(e.get("width")) for e in shares.iter("rect")]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    assert "1 trial given up early. 1 trial failed." in html.replace("\N{NO-BREAK SPACE}", " ")


def test_without_importances_the_page_says_so():
    assert "nothing can be said" in page(found(importances={}))


def test_marks_lie_higher_the_better_they_are():
    html = page(found())
    chart = ElementTree.fromstring(re.search(r"<svg[^>]*class=\"chart.*?</svg>", html, re.DOTALL)[0])
    best, other = (
        next(e for e in chart.iter("circle") if e.get("class") == name) for name in ("best-dot", "mark member")
    )
    assert float(best.get("cy")) < float(other.get("cy"))
    assert float(best.get("cx")) > float(other.get("cx"))
