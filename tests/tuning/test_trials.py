"""Trials for real, on a tiny model: what they read, what they share, and what is left of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from flows.tuning import trial
from flows.tuning.search import Plan
from flows.tuning.trial import Work
from ftlib import state
from ftlib.errors import FtlibError
from ftlib.params.loading import load_experiment, read_params, validated
from ftlib.progress import Progress

LR = "stages.full.training.learning_rate"
SHARED = ("collect", "clean", "split", "fetch", "encode")


def plan(path: Path = Path("p.yaml"), *overrides: str) -> Plan:
    document = read_params(path, overrides)
    return Plan(document, validated(document))


def run(work: Work, report=lambda *_: False):
    return trial.run(work, report=report, listener=lambda _: None)


def keys(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (home / "store" / "keys").glob("*.json")]


def test_a_search_finds_the_best_and_computes_shared_steps_once(ftlib, params: Path, home: Path):
    code, out, err = ftlib("tune", str(params), "--json", "found.json", "-o", "out/best.yaml")
    found = json.loads(Path("found.json").read_text())
    assert code == 0, err
    assert [entry["state"] for entry in found["trials"]] == ["complete"] * 3
    assert [(entry["computed"], entry["cached"]) for entry in sorted(found["trials"], key=lambda e: e["number"])] == [
        (9, 0), (4, 5), (4, 5)
    ]  # fmt: skip
    steps = [record["step"] for record in keys(home)]
    assert sorted(step for step in steps if step in SHARED) == sorted(SHARED)
    assert steps.count("train-full") == 3
    assert not [step for step in steps if step.endswith("test")], "no test row is predicted"
    assert found["best"]["score"] == max(entry["score"] for entry in found["trials"])
    assert found["trials"][0] == found["best"]
    own = next(entry for entry in found["trials"] if entry["number"] == 0)
    assert own["values"] == {LR: 1e-3}, "the params file's own values are tried first"

    assert out.splitlines()[-1] == "out/best.yaml"
    assert err.count("✓ trial") == 3
    best = Path("out/best.yaml").read_text()
    assert best.startswith("# The best of 3 trials of `ftlib tune p.yaml`")
    assert "# What is searched here." in best
    assert "num_train_epochs: 2     # two passes" in best
    assert load_experiment(Path("out/best.yaml")).stages[0].training.learning_rate == found["best"]["values"][LR]
    assert ftlib("check", "out/best.yaml")[0] == 0
    page = Path(found["page"]).read_text()
    assert page.count("<svg") >= 4
    assert "All trials" in page

    again = ftlib("tune", str(params), "--json", "again.json")
    assert again[0] == 0
    assert "Going on after 3 of 3 trials." in again[2]
    assert json.loads(Path("again.json").read_text())["trials"] == found["trials"]


def test_the_score_needs_nothing_of_the_test_split(params: Path, home: Path):
    found = plan()
    names = [step.step_name for step in trial.steps(found.experiment)]
    assert names[-1] == trial.OBJECTIVE
    assert not [name for name in names if name.endswith("-test") or name in ("evaluate", "explain", "report")]
    assert not [i for step in trial.steps(found.experiment) for i in step.inputs if i.startswith("test")]


def test_a_trial_that_is_given_up_leaves_the_store_whole(params: Path, home: Path):
    work = plan().work(0, {LR: 2e-3})
    heard: list[tuple[int, float]] = []

    def report(step: int, score: float) -> bool:
        heard.append((step, score))
        return True

    result = run(work, report)
    assert (result.state, result.score, len(heard)) == ("pruned", None, 1)
    assert heard[0][0] == 1
    store = state.store()
    assert store.verify() == []
    assert list((home / "store" / "drafts").iterdir()) == []
    assert list((home / "store" / "scratch").iterdir()) == []
    assert "train-full" not in [record["step"] for record in keys(home)]
    whole = run(work)
    assert whole.state == "complete"
    assert {step["name"]: step["state"] for step in whole.facts["steps"]}["encode"] == "cached"


def test_passes_are_the_same_computed_and_cached(params: Path, home: Path):
    told: list[list[tuple[int, float]]] = [[], []]
    for heard in told:
        result = run(plan().work(0, {LR: 1e-3}), lambda step, score, heard=heard: heard.append((step, score)))
    assert told[0] == told[1]
    assert [step for step, _ in told[0]] == [1, 2]
    assert {step["state"] for step in result.facts["steps"]} == {"cached"}


def test_a_trial_that_fails_is_told_and_the_search_goes_on(ftlib, params: Path, edit):
    edit(
        **{"{low: 1.0e-4, high: 1.0e-2, log: true}": "{choices: [1.0e-3, 1.0e+30]}", "sampler: random": "sampler: grid"}
    )
    code, _, err = ftlib("tune", str(params), "--json", "found.json")
    entries = {e["values"][LR]: e for e in json.loads(Path("found.json").read_text())["trials"]}
    assert code == 0
    assert entries[1e-3]["state"] == "complete"
    assert entries[1e30]["state"] == "failed"
    assert "the loss is not a number" in entries[1e30]["reason"]
    assert "✗ trial 1" in err


def test_where_every_trial_fails_the_search_stops_with_the_reason(ftlib, params: Path, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise FtlibError("the disk is full.")

    monkeypatch.setattr("flows.tuning.trial._computed", fail)
    code, _, err = ftlib("tune", str(params), "--trials", "9")
    assert code == 1
    assert err.splitlines()[-1] == "none of 3 trials came to a score. The last one: the disk is full."


def test_two_processes_do_not_search_the_same(ftlib, params: Path):
    with state.store().lock(plan().digest):
        code, _, err = ftlib("tune", str(params))
    assert code == 1
    assert "is being searched by another process" in err


def test_without_a_tuning_section_an_example_is_given(ftlib, params: Path):
    params.write_text(params.read_text().partition("tuning:")[0])
    code, _, err = ftlib("tune", str(params))
    assert code == 2
    assert err.startswith("p.yaml: has no tuning section, so nothing is said to be searched. Add one, such as tuning:")


@pytest.mark.parametrize(("output", "line"), [("p.yaml", "is the params file that is searched"), (".", "cannot be")])
def test_the_best_params_go_nowhere_else_than_they_can(ftlib, params: Path, output: str, line: str):
    code, _, err = ftlib("tune", str(params), "-o", output)
    assert (code, line in err) == (2, True)


def test_ctrl_c_is_told_and_the_same_command_goes_on(ftlib, params: Path, monkeypatch):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flows.tuning.trial._computed", stop)
        code, _, err = ftlib("tune", str(params))
    assert (code, err) == (130, "Stopped. Every finished step is kept; the same command goes on from here.\n")
    code, _, err = ftlib("tune", str(params), "--trials", "1")
    assert "Going on after 0 of 1 trials; trial 0 was broken off and is tried again." in err
    assert code == 0


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# two passes", "# epochs", True),
        ("num_trials: 3", "num_trials: 30", True),
        ("energy: false", "energy: true", True),
        ("name: tickets", "name: requests", True),
        ("learning_rate: 1.0e-3", "learning_rate: 2.0e-3", False),
        ("high: 1.0e-2", "high: 1.0e-1", False),
        ("sampler: random", "sampler: tpe", False),
        ("seed: 3", "seed: 4", False),
    ],
)
def test_a_search_is_known_by_what_shapes_its_scores(params: Path, edit, old: str, new: str, same: bool):
    before = plan().digest
    assert (plan(edit(**{old: new})).digest == before) is same


def test_other_rows_are_another_search(params: Path):
    before = plan().digest
    Path("rows.csv").write_text(Path("rows.csv").read_text() + "one more,yes\n")
    assert plan().digest != before


def test_the_longest_trial_counts_a_stages_passes(params: Path, edit):
    edit(**{f"    {LR}": "    training.num_train_epochs: {low: 1, high: 4.5}\n    " + LR})
    assert plan().most_passes == {"full": 5}


def test_every_pass_is_heard_when_it_is_made(params: Path, monkeypatch):
    monkeypatch.setattr("ftlib.training.watch.EMIT_SECONDS", math.inf)
    heard: list[Progress] = []
    trial.run(plan().work(0, {LR: 1e-3}), report=lambda *_: False, listener=heard.append)
    assert {event.step for event in heard} >= {"train-full", "predict-full-validation"}
    first, last = (event for event in heard if event.step == "train-full")
    assert (first.done / first.total, last.done / last.total) == (0.5, 1.0)
    assert all("validation_accuracy" in event.metrics for event in (first, last))
