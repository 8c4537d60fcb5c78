"""What a person is told of the choice: the report's section, the sentence below the leaderboard, the summary."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import show, summary
from flows.recording import KINDS
from ftlib.selection.choosing import figures

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))


def choice(**changes: Any) -> dict[str, Any]:
    def line(place: int, name: str, state: str, reason: str, score: float | None, rounds: list[float | None]) -> dict:
        size = 10_000 if score is not None else None
        known = {"place": place, "name": name, "family": "encoder", "num_parameters": size}
        return {**known, "score": score, "rounds": rounds, "state": state, "reason": reason}

    lines = [
        line(1, "second", "chosen", "best in round 1", 0.25, [0.91]),
        line(0, "first<b>", "dropped", "dropped in round 1", 0.5, [0.88]),
        line(2, "third", "left_out", "it reads images", None, [None]),
    ]
    found = {"chosen": "second", "place": 1, "measure": "logme", "higher_is_better": True, "metric": "f1_macro"}
    rounds = [{"rows": 250, "candidates": 2}]
    return {**found, "metric_higher_is_better": True, "rounds": rounds, "candidates": lines, **changes}


@pytest.fixture
def rendered() -> Any:
    from dataclasses import replace

    from report_stories import single_label

    from ftlib.report import render

    return lambda found: render(replace(single_label(), base_model=found))


def test_the_report_has_the_table_and_says_why(rendered: Any):
    html = rendered(choice())
    section = html.partition('<section id="base_model"')[2].partition("</section>")[0]
    assert '<span class="tag win">chosen</span>' in section
    assert section.index("second") < section.index("first&lt;b&gt;") < section.index("third")
    assert 'class="num best" data-value="0.5"' in section
    assert 'class="num best" data-value="0.91"' in section
    assert "macro F1, round 1" in section
    assert "cannot do the problem" in section
    assert "it reads images." in section


def test_a_report_of_scores_alone_has_no_rounds(rendered: Any):
    lines = [{**line, "rounds": []} for line in choice()["candidates"]]
    html = rendered(choice(candidates=lines, rounds=[], metric=None, measure="loss_per_row", higher_is_better=False))
    section = html.partition('<section id="base_model"')[2].partition("</section>")[0]
    assert "loss a row ↓" in section
    assert "round 1</th>" not in section
    assert "short runs" not in section
    assert 'class="num best" data-value="0.25"' in section


def test_a_report_without_a_choice_has_no_such_section(rendered: Any):
    assert 'id="base_model"' not in rendered({})


def test_the_run_ends_with_a_sentence_on_it():
    assert list(show.base_model(None)) == []
    assert list(show.base_model(choice())) == [
        "Base model second, chosen of 3: logme 0.2500, validation f1 macro in round 1 0.9100."
    ]


def test_the_summary_has_what_each_candidate_took(tmp_path: Path):
    from ftlib.artifacts import Artifact
    from ftlib.files import write_json

    write_json(tmp_path / "choice.json", choice())
    store: Any = SimpleNamespace(open=lambda artifact: tmp_path)
    taken = {
        "score-candidate-1": 2.0,
        "trial-1-1": 3.0,
        "score-candidate-2": 4.0,
        "score-candidate-3": 0.5,
        "rank": 9.0,
    }
    records: Any = {name: SimpleNamespace(metrics={"seconds": value}) for name, value in taken.items()}
    found = summary.base_choice(store, {"choose": Artifact(digest="d", uri="u")}, records)
    assert found is not None
    assert {line["name"]: line["seconds"] for line in found["candidates"]} == {
        "first<b>": 5.0,
        "second": 4.0,
        "third": 0.5,
    }
    assert summary.base_choice(store, {}, records) is None


def test_tracking_gets_the_figures_by_the_order_of_the_candidates():
    assert figures(choice()) == {"score_2": 0.25, "round_1_2": 0.91, "score_1": 0.5, "round_1_1": 0.88}
    assert KINDS["choose"] == "base model"
