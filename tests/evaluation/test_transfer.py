"""What learning one task does to another: the table, what was kept, and the means that the papers define."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prediction_folders import folders, write_predictions
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score
from sklearn.metrics import root_mean_squared_error as rmse

from ftlib.ensembling import read_rows
from ftlib.evaluation.evaluate import Evaluation
from ftlib.evaluation.transfer import transfer
from ftlib.files import write_json

STAGES = {"first": "mood", "second": "score", "third": "topic"}
LINES = {"first": ("first",), "second": ("first", "second"), "third": ("first", "second", "third"), "alone": ("alone",)}
LEARNS = {**STAGES, "alone": "score"}
NOISE = {
    ("first", "mood"): 0.5,
    ("second", "mood"): 3.0,
    ("third", "mood"): 6.0,
    ("second", "score"): 0.5,
    ("third", "score"): 1.5,
    ("third", "topic"): 0.5,
    ("alone", "score"): 0.2,
}
KINDS = {"mood": "single_label", "score": "value", "topic": "two_labels"}


@pytest.fixture
def made(tmp_path: Path) -> dict:
    """Write three tasks' test rows and what each stage says of those that it has learned."""
    random, splits, predictions, gold = np.random.default_rng(5), {}, {}, {}
    for task, kind in KINDS.items():
        found = folders(tmp_path / task, kind, noise={"only": 0.0}, fusions={})
        write_json(found.splits / "problem.json", found.problem.model_dump(mode="json"))
        rows = read_rows(found.splits / "test.parquet")
        splits[task] = found.splits
        references = found.problem.references(rows, None)
        gold[task] = references
        clean = references[:, None] if kind == "value" else 2.0 * np.eye(len(found.problem.labels))[references]
        for (stage, of), noise in NOISE.items():
            if of == task:
                logits = clean + noise * random.normal(size=clean.shape)
                predictions[stage, task] = tmp_path / f"{stage}.{task}"
                write_predictions(predictions[stage, task], rows["row_id"].to_numpy(), logits)
                gold[stage, task] = logits.astype(np.float32)
    return {"splits": splits, "predictions": predictions, "gold": gold}


@pytest.fixture
def found(made: dict) -> dict:
    settings = Evaluation(bootstrap_samples=200)
    return transfer(made["splits"], made["predictions"], lines=LINES, learns=LEARNS, settings=settings, seed=1)


def test_every_score_is_what_scikit_learn_says_of_the_predictions(made: dict, found: dict) -> None:
    gold = made["gold"]
    for entry in found["scores"]:
        logits, task = gold[entry["stage"], entry["task"]], entry["task"]
        if KINDS[task] == "value":
            assert entry["metrics"]["rmse"] == pytest.approx(rmse(gold[task], logits[:, 0]), rel=1e-6)
        else:
            assert entry["value"] == accuracy_score(gold[task], logits.argmax(1))
        low, high = entry["interval"]
        assert low <= entry["value"] <= high


def test_backward_transfer_and_forgetting_follow_the_papers_formulas(found: dict) -> None:
    values = {(e["stage"], e["task"]): e["value"] for e in found["scores"]}
    (line,) = found["lines"]
    assert line["stages"] == ["first", "second", "third"]
    assert line["tasks"] == ["mood", "score", "topic"]
    # Lopez-Paz & Ranzato 2017, equation 3: R(T, j) - R(j, j); Chaudhry et al. 2018, equation 3: max R(l, j) - R(T, j)
    lost = [values["third", task] - values[stage, task] for stage, task in STAGES.items() if task != "topic"]
    best = {t: max(values[s, of] for s, of in values if of == t and s != "alone") for t in ("mood", "score")}
    assert line["backward_transfer"] == pytest.approx(np.mean(lost))
    assert line["forgetting"] == pytest.approx(np.mean([best[t] - values["third", t] for t in best]))
    assert line["forward"] == [
        {"task": "score", "alone": "alone", "gain": values["second", "score"] - values["alone", "score"]}
    ]
    assert line["table"][0] == [values["first", "mood"], None, None]


def test_what_was_lost_is_tested_on_the_same_rows(made: dict, found: dict) -> None:
    (line,) = found["lines"]
    kept = next(k for k in line["kept"] if k["task"] == "mood")
    right = [made["gold"][stage, "mood"].argmax(1) == made["gold"]["mood"] for stage in ("first", "third")]
    only_first, only_third = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert kept["p_value"] == pytest.approx(binomtest(only_first, only_first + only_third).pvalue)
    assert kept["interval"][0] < kept["gain"] < min(kept["interval"][1], 0)


def test_a_metric_where_lower_is_better_is_turned(made: dict) -> None:
    from ftlib.evaluation import transfer as module

    measured = module._measured(
        made["splits"]["score"],
        {s: f for (s, t), f in made["predictions"].items() if t == "score"},
        Evaluation(bootstrap_samples=100),
        1,
    )
    contest = measured.contest
    errors = module.Measured(
        type(contest)(**{**{k: getattr(contest, k) for k in contest.__dataclass_fields__}, "metric": "rmse"}),
        measured.own_metrics,
        measured.num_rows,
    )
    values = {("second", "score"): errors.contest.values["second"], ("third", "score"): errors.contest.values["third"]}
    (kept,) = module._kept(("second", "third"), ["score"], {"score": "second"}, values, {"score": errors})
    assert kept["gain"] == pytest.approx(values["second", "score"] - values["third", "score"])
    assert kept["gain"] < 0
    assert kept["interval"][0] <= kept["gain"] <= kept["interval"][1]
    assert kept["best"] == values["second", "score"]


def test_stages_of_one_task_make_no_line(made: dict) -> None:
    settings = Evaluation(bootstrap_samples=100)
    predictions = {key: folder for key, folder in made["predictions"].items() if key[1] == "mood"}
    learns = dict.fromkeys(LEARNS, "mood")
    splits = {"mood": made["splits"]["mood"]}
    found = transfer(splits, predictions, lines=LINES, learns=learns, settings=settings, seed=1)
    assert found["lines"] == []
