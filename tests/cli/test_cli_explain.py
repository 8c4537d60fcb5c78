"""`ftlib explain`, with a model that explains by the first word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.explaining.explain import Explanation, Word
from ftlib.problems.base import Problem


class Oracle:
    """Stands for a served model."""

    name = "oracle"
    problem = Problem.model_validate({"name": "text_classification", "labels": ["bad", "good"]})


def first_word(served: Any, rows: Any, *, method: str, label: str | None) -> list[Explanation]:
    found = []
    for row, text in enumerate(rows["text"].to_pylist()):
        head = text.split()[0]
        word = Word("text", 0, len(head), head, 0.4 if head == "good" else -0.2)
        found.append(Explanation(row, "good", label or "good", 0.9, 0.5, (word,), 0.0, {"text": text}, True, method))
    return found


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.serving.finding.resolve", lambda model: model)
    monkeypatch.setattr("ftlib.serving.answering.load", lambda folder: Oracle())
    monkeypatch.setattr("ftlib.explaining.explain.explain", first_word)
    Path("tickets.csv").write_text("message\ngood day\nwhat a mess\ngood grief\n")


def test_the_terminal_shows_texts_and_their_strongest_words(ftlib):
    result = ftlib("explain", "m", "tickets.csv", "--columns", "text=message", "--rows", "2")
    assert result.code == 0
    assert "good  0.900; without words 0.500" in result.out
    assert "For it: good +0.400." in result.out
    assert "2 of 3 rows explained. --rows N asks for more." in result.out
    assert "good grief" not in result.out


@pytest.mark.parametrize("ending", ["html", "jsonl"])
def test_explanations_go_into_a_file_by_its_ending(ftlib, ending: str):
    result = ftlib("explain", "m", "tickets.csv", "--columns", "text=message", "-o", f"out/e.{ending}")
    assert result.code == 0
    assert result.out.splitlines() == ["3 of 3 rows explained.", f"out/e.{ending}"]
    text = Path(f"out/e.{ending}").read_text()
    assert (
        text.startswith("<!DOCTYPE html>") if ending == "html" else len([json.loads(x) for x in text.splitlines()]) == 3
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-o", "e.pdf"], "-o e.pdf: expected a file that ends in .html or .jsonl."),
        (["--method", "lime"], "--method: unknown method 'lime'."),
    ],
)
def test_wrong_input_is_answered_in_a_line(ftlib, arguments: list[str], line: str):
    result = ftlib("explain", "m", "tickets.csv", *arguments)
    assert result.code == 2
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1
