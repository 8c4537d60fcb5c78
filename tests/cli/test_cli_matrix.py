"""`ftlib list --matrix`: what goes with what, at any width."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from flows import show
from ftlib.compatibility import Matrix

MATRIX = Matrix(
    kind="strategies",
    does="trains",
    names=("full", "prompt_tuning", "zero_shot", "gradual_unfreezing"),
    problems=("question_answering", "translation"),
    refusals={
        (
            "question_answering",
            "zero_shot",
        ): "zero_shot cannot answer question_answering: its head is new; choose full.",
        ("translation", "zero_shot"): "zero_shot cannot answer translation: its head is new; choose full.",
        ("translation", "prompt_tuning"): "prompt_tuning cannot train translation: no room; choose lora.",
    },
)


def lines(matrix: Matrix, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for part in show.compatibility(matrix, width):
        console.print(part)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_each_cell_trains_or_has_the_number_of_its_reason():
    found = lines(MATRIX, 120)
    [answering] = [line.split() for line in found if line.startswith("question_answering ")]
    [translating] = [line.split() for line in found if line.startswith("translation ")]
    assert answering[1:] == ["trains", "trains", "refuses", "1", "trains"]
    assert translating[1:] == ["trains", "refuses", "2", "refuses", "1", "trains"]
    assert any(line.strip().startswith("1 zero_shot cannot answer it: its head is new") for line in found)


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_column_is_lost(width: int):
    found = lines(MATRIX, width)
    assert max(map(len, found)) <= width
    text = "".join("".join(line.split()) for line in found)
    for name in MATRIX.names:
        assert name.replace("_", "") in text.replace("_", "") or all(part in text for part in name.split("_"))
    assert sum(line.count("trains") for line in found if line.startswith(MATRIX.problems)) == 5


def test_where_all_go_together_it_says_so():
    everything = Matrix("fusions", "combines", ("averaging",), ("translation",), {})
    assert lines(everything, 80)[-1].startswith("None refuses")


@pytest.mark.parametrize(
    ("asked", "kinds"), [(["strategies"], {"strategies"}), (["fusions"], {"fusions"}), ([], {"strategies", "fusions"})]
)
def test_the_command_prints_it_and_writes_json(asked: list[str], kinds: set[str], ftlib: Any, tmp_path):
    result = ftlib("list", *asked, "--matrix", "--json", str(tmp_path / "matrix.json"))
    assert result.code == 0
    assert "text_classification" in result.out
    written = json.loads((tmp_path / "matrix.json").read_text())
    assert set(written) == kinds
    if "strategies" in kinds:
        assert written["strategies"]["text_classification"]["full"] == "trains"


def test_sources_have_no_matrix(ftlib: Any):
    result = ftlib("list", "sources", "--matrix")
    assert (result.code, result.out) == (2, "")
    assert "list sources --matrix: there is one of strategies and one of fusions" in result.err


def test_all_problems_are_listed(ftlib: Any):
    from ftlib.problems.base import Problem

    listed = ftlib("list", "problems").out
    for name in Problem.available():
        assert f"\n{name} " in listed
