"""The choice as a run makes it: who wins, what is computed, and that all that follows is as if the winner was named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import graph
from ftlib.artifacts import Draft, Store
from ftlib.errors import DataError, UnsupportedError
from ftlib.files import read_json
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment
from ftlib.planning import plan
from ftlib.selection.choosing import choose, entrants
from ftlib.selection.halving import best_first, epochs_of, survivors
from ftlib.steps import Outcome, execute

LAST = "train-full"
Params = Callable[..., dict[str, Any]]


@dataclass
class Run:
    experiment: Experiment
    store: Store
    outcomes: dict[str, Outcome]

    def read(self, step: str, file: str) -> Any:
        return read_json(self.store.open(self.outcomes[step].artifact) / file)

    @property
    def computed(self) -> set[str]:
        return {name for name, outcome in self.outcomes.items() if not outcome.cached}


def run(params: dict[str, Any], store: Store, last: str = LAST) -> Run:
    experiment = load_experiment(params)
    outcomes: dict[str, Outcome] = {}
    for step in graph.steps(experiment):
        inputs = {name: outcomes[before].artifact for name, before in step.inputs.items()}
        outcomes[step.step_name] = execute(step, inputs, store, scope=experiment.name)
        if step.step_name == last:
            break
    return Run(experiment, store, outcomes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests: what one of them has computed, the others find."""
    return Store(tmp_path_factory.mktemp("selection") / "store")


def test_the_better_candidate_is_chosen_and_the_table_says_why(params: Params, store: Store, blind_model: Path):
    found = run(params(), store, last="fetch").read("choose", "choice.json")
    first, second, third = found["candidates"]
    assert found["chosen"] == first["name"] != str(blind_model)
    assert (first["state"], first["reason"]) == ("chosen", "best in round 1")
    assert (second["name"], second["reason"]) == (str(blind_model), "dropped in round 1")
    assert first["score"] > second["score"]
    assert first["rounds"][0] > second["rounds"][0]
    assert (third["name"], third["state"], third["family"]) == ("random:clip", "left_out", "image_text")
    assert "needs an encoder" in third["reason"]
    assert found["rounds"] == [{"rows": 87, "candidates": 2}]


def test_all_that_follows_has_the_keys_of_an_experiment_that_names_the_winner(params: Params, store: Store):
    chosen = run(params(), store)
    winner = chosen.read("choose", "choice.json")["chosen"]
    assert chosen.outcomes["fetch"].artifact == chosen.outcomes["fetch-candidate-2"].artifact
    named = run(params(winner), store)
    assert named.computed == set()
    keys = {name: outcome.record.key for name, outcome in chosen.outcomes.items()}
    assert {n: named.outcomes[n].record.key for n in ("encode", LAST)} == {n: keys[n] for n in ("encode", LAST)}


def test_a_second_run_computes_nothing_and_another_candidate_only_its_own_steps(
    params: Params, store: Store, tiny_model: Callable[..., Path]
):
    settings = params()
    run(settings, store)
    assert run(settings, store).computed == set()
    settings["base_model"]["candidates"].append(str(tiny_model("roberta")))
    more = run(settings, store, last="choose")
    others = {name for name in more.computed if not name.endswith("-4")}
    assert others <= {"rank", "admit-1-1", "admit-1-2", "admit-1-3", "choose"}
    assert {"score-candidate-4", "trial-1-4"} <= more.computed


def test_a_plan_knows_what_is_done_and_lets_the_rest_wait_for_the_choice(params: Params, store: Store):
    def states(rows: int) -> dict[str, str]:
        experiment = load_experiment({**params(rows=rows), "name": "planned"})
        return {p.name: p.state for p in plan(graph.steps(experiment), store, scope="planned")}

    run({**params(rows=50), "name": "planned"}, store, last="choose")
    found = states(50)
    assert [found[name] for name in ("rank", "trial-1-2", "choose", "fetch", "encode")] == ["done"] * 3 + ["todo"] * 2
    found = states(40)
    assert [found[name] for name in ("fetch-candidate-1", "score-candidate-1", "rank")] == ["done", "todo", "waiting"]


def test_without_short_runs_the_score_decides(params: Params, store: Store, blind_model: Path):
    found = run(params(halving=None, score="linear_probe"), store, last="choose").read("choose", "choice.json")
    assert found["chosen"] != str(blind_model)
    assert found["measure"] == "linear_probe"
    assert found["candidates"][0]["reason"] == "best score"
    assert found["rounds"] == found["candidates"][0]["rounds"] == []


def test_no_step_of_the_choice_opens_the_test_rows(params: Params, store: Store, tmp_path: Path):
    found = run(params(), store, last="split")
    splits = shutil.copytree(store.open(found.outcomes["split"].artifact), tmp_path / "splits")
    (splits / "test.parquet").unlink()
    (tmp_path / "admission").mkdir()
    (tmp_path / "admission/admission.json").write_text('{"runs": true}')
    given = {"splits": splits, "admission": tmp_path / "admission"}
    for step in graph.steps(found.experiment):
        if step.step_name in ("fetch-candidate-2", "score-candidate-2", "trial-1-2"):
            draft = Draft(tmp_path / step.step_name, tmp_path / "scratch")
            draft.folder.mkdir()
            step.run(draft, **{k: given[k] for k in step.inputs})
            given["checkpoint"] = given.get("checkpoint", draft.folder)
    assert read_json(tmp_path / "trial-1-2" / "trial.json")["value"] > 0.4


def test_a_short_run_without_validation_rows_is_refused(params: Params, store: Store, tmp_path: Path):
    from ftlib.files import read_table, write_table

    found = run(params(), store, last="split")
    [trial] = [s for s in graph.steps(found.experiment) if s.step_name == "trial-1-1"]
    splits = shutil.copytree(store.open(found.outcomes["split"].artifact), tmp_path / "splits")
    write_table(splits / "validation.parquet", read_table(splits / "validation.parquet").slice(0, 0))
    (tmp_path / "admission.json").write_text('{"runs": true}')
    with pytest.raises(DataError, match="there are no validation rows to compare short runs on; set halving: null"):
        trial.run(Draft(tmp_path, tmp_path), splits=splits, checkpoint=tmp_path, admission=tmp_path)


# -- who goes on -----------------------------------------------------------------------------------------------


def told(value: float | None, loss: float | None = 1.0, note: str = "") -> dict[str, Any]:
    return {"value": value, "loss": loss, "rows": 10, "note": note}


def score(value: float | None, unfit: str = "", note: str = "") -> dict[str, Any]:
    return {"family": "encoder", "num_parameters": 10, "value": value, "unfit": unfit, "note": note}


def test_the_better_half_goes_on_and_the_lower_loss_decides_between_equals():
    trials = {0: told(0.5, 0.9), 2: told(0.5, 0.4), 3: told(None, None), 5: told(0.7)}
    assert best_first(trials, higher=True) == [5, 2, 0, 3]
    assert survivors(trials, higher=True) == [5, 2]
    assert survivors({0: told(3.0), 1: told(2.0), 2: told(1.0)}, higher=False) == [2, 1]


def test_each_round_reads_twice_as_much():
    assert [epochs_of(0.25, number) for number in (1, 2, 3, 4)] == [0.25, 0.5, 1.0, 2.0]


def test_the_best_scored_enter_and_where_nothing_is_scored_all_do():
    names = ["a", "b", "c", "d"]
    scores = [score(0.1), score(0.3), score(None, unfit="no"), score(0.2)]
    assert entrants(names, scores, higher=True, keep=2) == [1, 3]
    assert entrants(names, scores, higher=False, keep=None) == [0, 3, 1]
    assert entrants(names, [score(None)] * 4, higher=True, keep=2) == [0, 1, 2, 3]
    with pytest.raises(UnsupportedError, match="none of the candidates can do the problem: a: too small; b: no head"):
        entrants(["a", "b"], [score(None, "too small"), score(None, "no head")], higher=True, keep=None)


def chosen(scores: list[dict], rounds: list[dict]) -> dict[str, Any]:
    names = ["a", "b", "c", "d"][: len(scores)]
    entered = entrants(names, scores, higher=True, keep=None)
    directions = {"measure": "logme", "higher": True, "metric": "accuracy", "metric_higher": True}
    return choose(names, scores, entered, rounds, **directions)


def test_who_ran_longer_stands_above_whoever_was_ahead_before():
    scores = [score(0.4), score(0.1), score(0.3), score(0.2)]
    rounds = [{0: told(0.9), 1: told(0.8), 2: told(0.7), 3: told(0.6)}, {0: told(0.5), 1: told(0.95)}]
    found = chosen(scores, rounds)
    assert [line["name"] for line in found["candidates"]] == ["b", "a", "c", "d"]
    assert [line["reason"] for line in found["candidates"]] == [
        "best in round 2", "dropped in round 2", "dropped in round 1", "dropped in round 1",
    ]  # fmt: skip
    assert found["candidates"][2]["rounds"] == [0.7, None]


def test_runs_that_diverge_or_cannot_be_done_lose_and_say_so():
    found = chosen(
        [score(0.4), score(0.3), score(0.2)], [{0: told(None), 1: told(None, note="no blocks"), 2: told(0.1)}]
    )
    assert found["chosen"] == "c"
    assert {line["reason"] for line in found["candidates"][1:]} == {
        "dropped in round 1, its run diverged",
        "dropped in round 1: no blocks",
    }
    with pytest.raises(UnsupportedError, match=r"no candidate could run\. a: no blocks; b: no head"):
        chosen([score(0.4), score(0.3)], [{0: told(None, note="no blocks"), 1: told(None, note="no head")}])


def test_the_only_one_left_is_chosen_without_a_run():
    found = chosen([score(None, unfit="no"), score(0.3)], [{}])
    assert (found["chosen"], found["candidates"][0]["reason"]) == ("b", "the only one left")
