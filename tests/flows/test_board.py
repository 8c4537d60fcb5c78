"""What the Prefect page shows: keys, progress, leaderboard, plots; and that showing never costs a run."""

from __future__ import annotations

import base64
import re
import xml.dom.minidom
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sample_steps import EVALUATION, REPORT

from ftlib.progress import Progress


class Client:
    """Takes what is shown; refuses everything when it is gone."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.moved: list[Any] = []
        self.gone = False

    def create_artifact(self, request: Any) -> Any:
        self._answer()
        self.made.append(request)
        return SimpleNamespace(id=uuid4())

    def update_artifact(self, artifact_id: UUID, update: Any) -> None:
        self._answer()
        self.moved.append(update)

    def _answer(self) -> None:
        if self.gone:
            raise ConnectionError("nobody there")


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def board(client: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    from flows import board as module

    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    return module.Board(client, uuid4(), "My_Experiment")  # type: ignore[arg-type]


def step(done: float) -> Progress:
    return Progress(
        step="train-full", done=done, total=10, unit="steps", metrics={"loss": 0.5, "validation_accuracy": 0.9}
    )


def test_keys_hold_only_what_prefect_takes() -> None:
    from flows.board import key

    assert key("My_Experiment", "train-full.v2-progress") == "my-experiment-train-full-v2-progress"


def test_progress_moves_every_few_seconds_and_ends_at_100(board: Any, client: Client) -> None:
    for done in range(1, 11):  # the clock goes on by two seconds at each event
        board.move(step(done))
    assert [a.key for a in client.made] == ["my-experiment-train-full-progress"]
    shown = [client.made[0].data, *(u.data for u in client.moved)]
    assert shown == sorted(shown)
    assert len(shown) < 7
    assert shown[-1] == 100.0
    assert client.moved[-1].description == "train-full: 10 of 10 steps · loss 0.5 · validation accuracy 0.9"


def test_a_quick_step_has_no_progress_bar(board: Any, client: Client) -> None:
    board.move(step(10))
    assert client.made == []


def test_a_server_that_is_gone_costs_one_warning_and_no_error(
    board: Any, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.gone = True
    for done in range(1, 11):
        board.move(step(done))
    assert [record.message for record in caplog.records] == ["Prefect does not show all of the run (nobody there)."]


def test_the_leaderboard_is_text_best_on_validation_first() -> None:
    from flows.board import leaderboard_rows

    members = [{**m, "strategy": "full"} for m in EVALUATION["members"]]
    rows = leaderboard_rows({**EVALUATION, "members": members})
    assert [row["name"] for row in rows] == ["★ averaging", "second", "first"]
    assert rows[0]["gain"] == "+0.0300"
    assert rows[0]["cost"] == "2x"
    assert all(isinstance(cell, str) for row in rows for cell in row.values())  # Prefect refuses numpy's numbers


def test_lower_is_better_turns_the_leaderboard_round() -> None:
    from flows.board import leaderboard_rows

    members = [{**m, "strategy": "full"} for m in EVALUATION["members"]]
    rows = leaderboard_rows({**EVALUATION, "members": members, "higher_is_better": False})
    assert [row["name"] for row in rows] == ["first", "second", "★ averaging"]


def test_the_report_s_plots_are_one_picture_that_needs_nothing_from_outside() -> None:
    from flows.board import plots_of

    twice = REPORT.replace("</main>", REPORT[REPORT.index("<svg") : REPORT.index("</svg>") + 6] + "</main>")
    markdown = plots_of(twice)
    assert markdown is not None
    image = base64.b64decode(markdown.partition("base64,")[2].rstrip(")")).decode()
    document = xml.dom.minidom.parseString(image)
    assert len(document.getElementsByTagName("svg")) == 2  # the page and, once, the plot that is drawn twice
    assert "Accuracy of each model" in image
    assert not re.search(r"(href|src)=", image)
    assert plots_of("<html><body>no plot</body></html>") is None
