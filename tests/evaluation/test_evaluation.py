"""evaluation.json and errors.parquet: what they hold, and that each figure is what it says."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pyarrow as pa
import pytest
from prediction_folders import PROBLEMS, folders, write_predictions
from scipy.stats import binomtest

from ftlib.ensembling import References, read_rows, read_scores
from ftlib.errors import ArtifactError, ParamsError
from ftlib.evaluation.choosing import Choice
from ftlib.files import read_json, read_table, write_json, write_table

every_kind = pytest.mark.parametrize("kind", PROBLEMS)


def entry(summary: dict, name: str) -> dict:
    return next(e for e in [*summary["members"], *summary["fusions"]] if e["name"] == name)


def gold(found, split: str) -> References:
    rows = read_rows(found.splits / f"{split}.parquet")
    return References(rows["row_id"].to_numpy(), found.problem.references(rows, None))


def on_test(found, name: str):
    """Return (scores, references) of a member or fusion on test, read apart from `evaluate`."""
    rows = read_rows(found.splits / "test.parquet")
    values = read_scores([m["test"] for m in found.members.values()], rows, found.problem).values
    references = found.problem.references(rows, None)
    if name in found.members:
        return values[list(found.members).index(name)], references
    fusion, folder = found.fusions[name]
    return type(fusion).load(folder)(values), references


@every_kind
def test_the_summary_holds_what_the_contract_names(kind: str, tmp_path):
    found = folders(tmp_path, kind)
    summary = found.evaluate().summary
    assert summary["problem"] == found.problem.name
    assert summary["target"] == found.problem.target.kind
    assert summary["metric"] == found.problem.target.main_metric
    assert summary["labels"] == list(found.problem.target.labels)
    assert summary["rows"] == {"validation": 120, "test": 150}
    assert [m["name"] for m in summary["members"]] == ["full", "lora", "prompt"]
    assert [f["name"] for f in summary["fusions"]] == list(found.fusions)
    for fusion in summary["fusions"]:
        assert {
            "method",
            "metrics",
            "interval",
            "per_label",
            "weights",
            "members_used",
            "gain",
            "gain_interval",
        } <= set(fusion)
        assert fusion["method"]["name"] == fusion["name"]
        assert 0 < fusion["p_value_against_best_member"] <= 1
        assert (fusion["p_value_against_greedy"] is None) == (fusion["name"] == "greedy")
    assert summary["best"]["name"] in {m["name"] for m in [*summary["members"], *summary["fusions"]]}
    assert summary["best_fusion"] in found.fusions
    json.dumps(summary, allow_nan=False)


@every_kind
def test_the_summary_can_be_written_and_is_the_same_every_time(kind: str, tmp_path):
    found = folders(tmp_path / "made", kind)
    one, two = found.evaluate(), found.evaluate()
    write_json(tmp_path / "evaluation.json", one.summary)
    assert read_json(tmp_path / "evaluation.json") == two.summary
    assert one.errors.equals(two.errors)
    write_table(tmp_path / "errors.parquet", one.errors)


@every_kind
def test_metrics_are_the_targets_own_on_each_split(kind: str, tmp_path):
    found = folders(tmp_path, kind)
    summary = found.evaluate().summary
    for name in ("lora", "averaging", "stacking"):
        scores, references = on_test(found, name)
        assert entry(summary, name)["metrics"]["test"] == pytest.approx(
            found.problem.target.metrics(scores, references)
        )
        assert entry(summary, name)["per_label"] == found.problem.target.per_label(scores, references)


def test_validation_scores_of_a_fusion_are_those_of_its_artifact(tmp_path):
    """Out-of-fold scores, not the fitted combiner's: here ones that are always right."""
    found = folders(tmp_path)
    path = found.fusions["stacking"][1] / "validation.parquet"
    references = gold(found, "validation")
    from ftlib.ensembling import scores_table

    write_table(path, scores_table(references.row_ids[::-1], np.eye(3)[references.values][::-1], None))
    summary = found.evaluate().summary
    assert entry(summary, "stacking")["metrics"]["validation"]["accuracy"] == 1
    assert summary["best"]["name"] == summary["best_fusion"] == "stacking"


@every_kind
def test_intervals_hold_the_value_and_widen_with_confidence(kind: str, tmp_path):
    found = folders(tmp_path, kind, noise={"full": 1.5, "lora": 2.0, "prompt": 2.5})
    narrow, wide = (found.evaluate(confidence=c).summary for c in (0.6, 0.99))
    worst = min(wide["fusions"], key=lambda f: f["metrics"]["test"][wide["metric"]])["name"]
    for name in ("prompt", worst):
        value = entry(wide, name)["metrics"]["test"][wide["metric"]]
        low, high = entry(wide, name)["interval"]
        assert low < value < high
        inner = entry(narrow, name)["interval"]
        assert low < inner[0] < inner[1] < high
    assert wide["best"]["interval"] == entry(wide, wide["best"]["name"])["interval"]


@every_kind
def test_gains_are_over_the_member_that_validation_likes_best(kind: str, tmp_path):
    summary = folders(tmp_path, kind).evaluate().summary
    metric, best = summary["metric"], entry(summary, summary["best_member"])
    for fusion in summary["fusions"]:
        gain = fusion["metrics"]["test"][metric] - best["metrics"]["test"][metric]
        assert fusion["gain"] == pytest.approx(gain)
        low, high = fusion["gain_interval"]
        assert low <= gain <= high


def test_accuracy_is_tested_by_the_exact_mcnemar_test(tmp_path):
    found = folders(tmp_path, "two_labels")
    summary = found.evaluate().summary
    scores, references = on_test(found, "averaging")
    other, _ = on_test(found, summary["best_member"])
    right, other_right = scores.argmax(1) == references, other.argmax(1) == references
    gained, lost = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    expected = binomtest(gained, gained + lost).pvalue
    assert entry(summary, "averaging")["p_value_against_best_member"] == pytest.approx(expected)
    assert entry(summary, "averaging")["paired_test"] == "exact McNemar"


def test_cost_is_that_of_the_members_that_are_used(tmp_path):
    found = folders(tmp_path)
    summary = found.evaluate().summary
    costs = {"full": 100.0, "lora": 200.0, "prompt": 300.0}
    assert {m["name"]: m["inference_cost"] for m in summary["members"]} == costs
    for fusion in summary["fusions"]:
        used = fusion["members_used"]
        assert fusion["inference_cost_ratio"] == pytest.approx(
            sum(costs[n] for n in used) / costs[summary["best_member"]]
        )
        if fusion["weights"]:
            assert used == [n for n, weight in fusion["weights"].items() if weight > 0]
    assert entry(summary, "averaging")["members_used"] == ["full", "lora", "prompt"]


# -- choosing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", ["voting", "lora"])
def test_the_best_of_all_is_the_best_of_its_kind(tmp_path, monkeypatch, best: str):
    """Among fusions alone, or members alone, another one may lead, and so another be chosen."""

    def choose(contest, costs):
        name = best if {"full", "averaging"} <= set(costs) else next(iter(costs))
        return Choice(name, name, 1, "log_loss")

    monkeypatch.setattr("ftlib.evaluation.choosing.choose", choose)
    summary = folders(tmp_path).evaluate().summary
    assert summary["best"]["name"] == best
    kinds = summary["best_member"], summary["best_fusion"]
    assert kinds == (("full", best) if best == "voting" else (best, "averaging"))


def test_the_test_split_has_no_say_in_the_choice(tmp_path):
    found = folders(tmp_path, rows={"validation": 120, "test": 60})
    before = found.evaluate().summary
    for name, folder in found.members.items():
        table = read_table(folder["test"] / "predictions.parquet")
        sign = 3 if name == "prompt" else -1
        logits = np.array(table["logits"].to_pylist()) * sign
        write_predictions(folder["test"], table["row_id"].to_numpy(), logits)
    after = found.evaluate().summary
    assert after["best"]["name"] == before["best"]["name"]
    assert after["best_member"] == before["best_member"]
    assert after["best_fusion"] == before["best_fusion"]
    assert after["best"]["test"] != before["best"]["test"]


def test_a_clearly_better_model_is_chosen(tmp_path):
    found = folders(tmp_path, noise={"weak": 3.0, "strong": 0.3, "weaker": 4.0})
    summary = found.evaluate().summary
    assert summary["best_member"] == "strong"


@pytest.mark.parametrize(("num_wrong", "best"), [(21, "modest"), (23, "modest"), (32, "bold")])
def test_models_that_validation_cannot_tell_apart_are_chosen_by_log_loss(tmp_path, num_wrong: int, best: str):
    """Some more rows right, but wildly overconfident: by three it is not shown to be better, by twelve it is."""
    found = folders(tmp_path, "two_labels", noise={"bold": 1.0, "modest": 1.0}, fusions={})
    references = gold(found, "validation")
    sure = 2.0 * np.eye(2)[references.values] - 1
    for name, wrong, scale in (("bold", 20, 30.0), ("modest", num_wrong, 1.0)):
        logits = scale * sure
        logits[:wrong] *= -1
        write_predictions(found.members[name]["validation"], references.row_ids, logits)
    summary = found.evaluate().summary
    assert summary["best"]["name"] == best
    assert summary["best"]["leader"] == "bold"
    reason = (
        "bold was ahead on validation, by less than its error: of 2 models so close, modest has the lowest log loss."
    )
    assert summary["best"]["reason"] == (None if best == "bold" else reason)
    assert summary["best"]["kind"] == "member"
    assert summary["best_fusion"] is None


def test_values_are_told_apart_by_the_metric_alone(tmp_path):
    """Ranks a little better, though far off in scale: the leader by Spearman wins."""
    found = folders(tmp_path, "value", noise={"ranks": 1.0, "scale": 1.0}, fusions={})
    references = gold(found, "validation")
    exact = references.values[:, None].astype(float)
    nearly = exact + 0.1 * np.random.default_rng(0).normal(size=exact.shape)
    write_predictions(found.members["ranks"]["validation"], references.row_ids, 9 * exact)
    write_predictions(found.members["scale"]["validation"], references.row_ids, nearly)
    assert found.evaluate().summary["best"]["name"] == "ranks"


def test_of_equal_models_the_cheaper_one_is_chosen(tmp_path):
    found = folders(tmp_path, noise={"dear": 0.5, "cheap": 0.5}, fusions={})
    for split in ("validation", "test"):
        shutil.copytree(found.members["dear"][split], found.members["cheap"][split], dirs_exist_ok=True)
    write_json(found.checkpoints["dear"] / "ftlib.json", {"num_parameters": 9, "inference_parameters": 9})
    write_json(found.checkpoints["cheap"] / "ftlib.json", {"num_parameters": 9, "inference_parameters": 2})
    assert found.evaluate().summary["best"]["name"] == "cheap"


def test_a_fusion_that_came_down_to_one_member_gives_way_to_it(tmp_path):
    found = folders(tmp_path, noise={"strong": 0.2, "noise": 50.0}, fusions={"greedy": {"name": "greedy"}})
    summary = found.evaluate().summary
    assert entry(summary, "greedy")["weights"] == {"strong": 1.0, "noise": 0.0}
    assert entry(summary, "greedy")["gain"] == 0
    assert entry(summary, "greedy")["p_value_against_best_member"] == 1
    assert summary["best"] == summary["best"] | {"name": "strong", "kind": "member"}


def test_the_choice_can_go_by_another_metric(tmp_path):
    summary = folders(tmp_path).evaluate(metric="log_loss").summary
    assert summary["metric"] == "log_loss"
    assert summary["higher_is_better"] is False
    losses = {e["name"]: e["metrics"]["validation"]["log_loss"] for e in [*summary["members"], *summary["fusions"]]}
    assert losses[summary["best"]["name"]] == min(losses.values())


def test_an_unknown_metric_is_answered_with_the_near_ones(tmp_path):
    with pytest.raises(ParamsError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        folders(tmp_path, fusions={}).evaluate(metric="acuracy")


# -- error analysis ------------------------------------------------------------------------------------


@every_kind
def test_errors_are_wrong_rows_worst_first(kind: str, tmp_path):
    found = folders(tmp_path, kind)
    result = found.evaluate()
    errors, target = result.errors, found.problem.target
    members = [f"{of}:{name}" for name in ("full", "lora", "prompt") for of in ("member", "right")]
    assert errors.column_names == ["row_id", *found.problem.text_columns, "gold", "predicted", "confidence", *members]
    assert 0 < errors.num_rows <= 200
    assert all(row["gold"] != row["predicted"] for row in errors.to_pylist())
    gold = read_table(found.splits / "test.parquet")
    stored = dict(zip(gold["row_id"].to_pylist(), gold["label"].to_pylist(), strict=True))
    assert all(stored[row["row_id"]] == row["gold"] for row in errors.to_pylist())
    if target.kind == "value":
        off = [abs(row["gold"] - row["predicted"]) for row in errors.to_pylist()]
        assert off == sorted(off, reverse=True)
        assert errors["confidence"].null_count == errors.num_rows
    elif kind == "two_labels":
        assert errors["confidence"].to_pylist() == sorted(errors["confidence"].to_pylist(), reverse=True)
    else:
        assert all(0 < c <= 1 for c in errors["confidence"].to_pylist())


def test_errors_hold_what_each_member_said(tmp_path):
    found = folders(tmp_path)
    errors = found.evaluate().errors
    scores, _ = on_test(found, "lora")
    ids = read_table(found.splits / "test.parquet")["row_id"].to_pylist()
    said = dict(zip(ids, found.problem.target.decode(scores), strict=True))
    assert [said[i] for i in errors["row_id"].to_pylist()] == errors["member:lora"].to_pylist()
    assert errors["right:lora"].to_pylist() == [row["member:lora"] == row["gold"] for row in errors.to_pylist()]


def test_no_more_than_two_hundred_errors_are_kept(tmp_path):
    found = folders(tmp_path, noise={"poor": 30.0, "poorer": 40.0}, fusions={}, rows={"validation": 40, "test": 900})
    assert found.evaluate().errors.num_rows == 200


def test_a_perfect_model_has_an_empty_table_of_errors(tmp_path):
    found = folders(tmp_path, noise={"perfect": 0.01}, fusions={})
    result = found.evaluate()
    assert result.errors.num_rows == 0
    assert result.errors.schema.field("gold").type == pa.string()
    assert result.summary["best"]["test"] == 1


def test_the_confusion_matrix_has_a_row_for_each_gold_label(tmp_path):
    from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

    found = folders(tmp_path / "a", "single_label")
    summary = found.evaluate().summary
    scores, references = on_test(found, "lora")
    assert summary["confusion"]["lora"] == confusion_matrix(references, scores.argmax(1)).tolist()
    assert set(summary["confusion"]) == {summary["best"]["name"], "full", "lora", "prompt"}
    found = folders(tmp_path / "b", "multi_label")
    summary = found.evaluate().summary
    scores, references = on_test(found, "lora")
    expected = multilabel_confusion_matrix(references, found.problem.target.predicted(scores)).tolist()
    assert list(summary["confusion"]["lora"].values()) == expected
    assert list(summary["confusion"]["lora"]) == ["anger", "joy", "love"]


@pytest.mark.parametrize("kind", ["single_label", "two_labels", "multi_label"])
def test_reliability_bins_hold_every_row_and_give_the_calibration_error(kind: str, tmp_path):
    summary = folders(tmp_path, kind).evaluate().summary
    for name, bins in summary["reliability"].items():
        counted = sum(b["count"] for b in bins)
        assert counted == 150 * (3 if kind == "multi_label" else 1)
        gap = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / counted
        assert gap == pytest.approx(entry(summary, name)["metrics"]["test"]["calibration_error"])


def test_values_have_a_scatter_instead_of_a_matrix(tmp_path):
    summary = folders(tmp_path, "value", rows={"validation": 30, "test": 1500}).evaluate().summary
    assert "confusion" not in summary
    assert "reliability" not in summary
    points = np.array(summary["scatter"]["full"])
    assert points.shape == (1000, 2)
    assert np.corrcoef(points.T)[0, 1] > 0.5


@every_kind
def test_disagreement_is_a_symmetric_share_and_the_oracle_is_at_least_the_best(kind: str, tmp_path):
    summary = folders(tmp_path, kind).evaluate().summary
    found = summary["disagreement"]
    matrix = np.array(found["matrix"])
    assert found["names"] == ["full", "lora", "prompt"]
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 0)
    assert matrix[0, 2] > matrix[0, 1]  # the noisiest member differs most
    assert found["all_agree_and_right"] <= found["all_agree"] <= 1 - matrix.max()
    assert found["all_agree_and_right"] <= found["some_right"] <= 1
    if kind != "value":
        assert found["some_right"] >= max(m["metrics"]["test"]["accuracy"] for m in summary["members"])


# -- trouble -------------------------------------------------------------------------------------------


def test_predictions_of_other_rows_are_named(tmp_path):
    found = folders(tmp_path)
    table = read_table(found.members["lora"]["test"] / "predictions.parquet")
    write_table(found.members["lora"]["test"] / "predictions.parquet", table.slice(1))
    with pytest.raises(ArtifactError, match=r"predict-lora-test.*1 missing"):
        found.evaluate()


def test_predictions_of_another_split_are_named(tmp_path):
    found = folders(tmp_path, fusions={})
    for folder in found.members.values():
        folder["test"] = folder["validation"]
    with pytest.raises(ArtifactError, match="predictions on test"):
        found.evaluate()


def test_a_fusion_of_other_validation_rows_is_named(tmp_path):
    found = folders(tmp_path)
    path = found.fusions["voting"][1] / "validation.parquet"
    write_table(path, read_table(path).slice(3))
    with pytest.raises(ArtifactError, match=r"fusion 'voting' on validation.*3 missing"):
        found.evaluate()


def test_a_checkpoint_that_does_not_say_its_size_is_named(tmp_path):
    found = folders(tmp_path, fusions={})
    write_json(found.checkpoints["full"] / "ftlib.json", {"num_parameters": 5})
    with pytest.raises(ArtifactError, match="inference_parameters"):
        found.evaluate()


def test_a_metric_that_test_leaves_undefined_is_left_out_not_nan(tmp_path):
    found = folders(tmp_path, "two_labels", rows={"validation": 60, "test": 12})
    table = read_table(found.splits / "test.parquet")
    same = table.set_column(table.column_names.index("label"), "label", pa.array(["no"] * 12))
    write_table(found.splits / "test.parquet", same)
    summary = found.evaluate(metric="roc_auc").summary
    assert summary["best"]["test"] is None
    assert summary["best"]["interval"] is None
    assert "roc_auc" not in entry(summary, "full")["metrics"]["test"]
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "value"])
def test_five_members_and_five_fusions_on_two_thousand_rows_take_seconds(kind: str, tmp_path):
    noise = {f"member{i}": 0.5 + 0.3 * i for i in range(5)}
    found = folders(tmp_path, kind, noise=noise, rows={"validation": 500, "test": 2000})
    started = time.perf_counter()
    found.evaluate()
    assert time.perf_counter() - started < 15  # about 2 s on a free core
