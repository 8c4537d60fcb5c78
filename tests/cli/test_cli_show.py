"""What is printed: the leaderboard and its notes, figures in words, the running display."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from flows import live, show
from ftlib.progress import Progress


def printed(renderable: Any, width: int = 150) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_leaderboard_ranks_by_validation_and_marks_the_best(summary: dict[str, Any]):
    lines = printed(show.leaderboard(summary)).splitlines()
    names = [line.replace("★", "").split()[0] for line in lines[2:] if line.strip()]
    assert names == ["full", "lora", "averaging", "voting"]
    [best] = [line for line in lines if "★" in line]
    assert best.split()[:4] == ["★", "averaging", "fusion:", "averaging"]
    for cell in ("0.8800", "0.8795", "0.864 – 0.894", "+0.0093", "<0.001", "2x"):
        assert cell in best


def test_members_show_their_training_and_no_gain(summary: dict[str, Any]):
    [line] = [line for line in printed(show.leaderboard(summary)).splitlines() if line.split()[:2] == ["full", "full"]]
    assert "22.7M" in line
    assert "1 min 23 s" in line
    assert "+" not in line


def test_where_lower_is_better_the_lowest_comes_first(summary: dict[str, Any]):
    summary["higher_is_better"] = False
    lines = printed(show.leaderboard(summary)).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["lora", "full"]


def test_a_metric_that_is_undefined_is_a_blank_and_comes_last(summary: dict[str, Any]):
    summary["members"][1]["metrics"]["validation"] = {}
    lines = printed(show.leaderboard(summary)).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["lora", "full"]


def test_the_notes_say_how_to_read_it_and_what_was_done(summary: dict[str, Any]):
    notes = list(show.notes(summary))
    assert notes[0] == "★ averaging, a fusion: chosen on validation, measured once on test."
    assert "1 of 2 steps computed in 2 min 05 s, 1 cached." in notes
    assert "Model  models:/tickets/3" in notes


def test_why_the_leader_was_not_chosen_is_told(summary: dict[str, Any]):
    summary["best"]["reason"] = "full was ahead on validation."
    assert list(show.notes(summary))[1] == summary["best"]["reason"]


def test_rejected_rows_are_told_by_reason_most_first(summary: dict[str, Any]):
    assert show.rejected(summary) == "Rejected 15 rows: 12 duplicate, 3 empty text."
    assert show.rejected({"rejected": {}}) == "No row was rejected."


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (show.seconds(0.44), "0.4 s"),
        (show.seconds(59.94), "59.9 s"),
        (show.seconds(59.99), "1 min 00 s"),
        (show.seconds(125), "2 min 05 s"),
        (show.seconds(3720), "1 h 02 min"),
        (show.count(22_713_216), "22.7M"),
        (show.count(384), "384"),
        (show.count(999_999), "1M"),
        (show.size(1234), "1.2 kB"),
        (show.size(90_900_000), "90.9 MB"),
        (show.p(0.0004), "<0.001"),
        (show.p(0.0432), "0.043"),
        (show.figure(None), ""),
    ],
)
def test_figures_are_short_and_plain(said: str, value: str):
    assert said == value


def test_runs_stand_side_by_side_with_the_settings_that_differ(summary: dict[str, Any]):
    other = {**summary, "name": "other", "params": {"experiment": {"seed": 8, "training": {"learning_rate": 5e-5}}}}
    assert "test accuracy" in printed(show.side_by_side([summary, other]))
    differing = printed(show.settings_that_differ([summary, other]))
    assert differing.split() == ["setting", "tickets", "other", "seed", "7", "8"]
    assert show.settings_that_differ([summary, summary]) is None


# -- the running display -----------------------------------------------------------------------------


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> live.Display:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    monkeypatch.setattr(live, "console", lambda **_: console)
    return live.Display(["collect", "train-full", "evaluate", "register"], {"train-full": 32})


def told(display: live.Display) -> list[str]:
    return display.console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_without_a_terminal_each_finished_step_is_a_plain_line(display: live.Display):
    with display:
        display.begin("collect")
        display.done("collect", cached=True)
        display.begin("train-full")
        display.progress(Progress("train-full", 8, 8, "steps", {"loss": 0.25, "validation_accuracy": 0.9}))
        display.done("train-full", cached=False, took=12.34)
        display.begin("evaluate")
        display.failed("evaluate")
    assert [line.split() for line in told(display)] == [
        ["○", "collect", "cached"],
        ["✓", "train-full", "computed", "in", "12.3", "s", "loss", "0.2500", "validation", "accuracy", "0.9000"],
        ["✗", "evaluate", "failed"],
    ]


def test_the_running_step_shows_how_far_how_well_and_how_long_still(
    display: live.Display, monkeypatch: pytest.MonkeyPatch
):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    display.begin("train-full")
    display.progress(Progress("train-full", 0, 800, "steps"))
    now[0] += 20
    display.progress(Progress("train-full", 200, 800, "steps", {"loss": 0.5}))
    shown = " ".join(printed(display, 120).split())
    for part in ("train-full", "200/800 steps", "1 min 00 s left", "loss 0.5000", "320 rows/s", "waiting: collect"):
        assert part in shown


def test_progress_under_another_name_belongs_to_the_only_running_step(display: live.Display):
    display.begin("train-full")
    display.progress(Progress("full", 1, 2, "steps"))
    assert "1/2 steps" in printed(display, 120)


def test_a_terminal_gets_lines_that_change_in_place(monkeypatch: pytest.MonkeyPatch):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    monkeypatch.setattr(live, "console", lambda **_: console)
    with live.Display(["collect", "clean"]) as display:
        display.begin("collect")
        display.done("collect", cached=False, took=0.2)
    assert "computed in 0.2 s" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def takes_control_c() -> Iterator[None]:
    """Take Ctrl-C as a terminal's child does: jobs in the background are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_control_c_that_python_loses_stops_the_run_at_the_next_progress(display: live.Display, takes_control_c: None):
    class Finalizer:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def run() -> None:
        with display:
            display.begin("train-full")
            Finalizer()
            display.progress(Progress("train-full", 1, 2, "steps"))

    with pytest.raises(KeyboardInterrupt):
        run()
    display.failed("train-full")
    assert told(display)[-1].split() == ["✗", "train-full", "stopped"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_notes_say_where_nothing_was_computed(summary: dict[str, Any]):
    summary["steps"] = [{**step, "state": "cached"} for step in summary["steps"]]
    assert "All 2 steps were done already; nothing was computed." in list(show.notes(summary))
