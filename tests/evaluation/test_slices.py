"""Slices of the test rows: how they are cut, what is measured on them, and which gaps are named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from ftlib.artifacts import Draft
from ftlib.errors import DataError
from ftlib.evaluation.slices import COLUMN, LENGTH, MISSING, OTHERS, SCRIPT, Slice, divide, holm, measured
from ftlib.files import read_table
from ftlib.problems.base import Problem
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

TEXT = Problem.model_validate({"name": "text_classification", "labels": ["no", "yes"]})
SETTINGS = {"confidence": 0.95, "num_samples": 500, "seed": 3}


def cut(**columns: list) -> dict[tuple[str, str], list[int]]:
    given = {name if name == "text" else f"{COLUMN}{name}": values for name, values in columns.items()}
    number = len(next(iter(given.values())))
    rows = pa.table({"row_id": list(range(number)), "text": ["same"] * number, "label": ["yes"] * number} | given)
    return {(piece.column, piece.value): np.flatnonzero(piece.rows).tolist() for piece in divide(rows, TEXT)}


def test_rows_are_divided_by_the_named_columns():
    found = cut(channel=["mail", "chat", "mail", None, ""])
    assert found == {("channel", "mail"): [0, 2], ("channel", MISSING): [3, 4], ("channel", "chat"): [1]}


def test_numbers_of_many_values_are_divided_in_quarters_and_of_few_by_value():
    found = cut(age=list(range(20, 60)), paid=[True, False] * 20)
    assert [value for column, value in found if column == "age"] == ["20 to 29", "30 to 39", "40 to 49", "50 to 59"]
    assert {value for column, value in found if column == "paid"} == {"true", "false"}


def test_rare_values_of_a_column_are_put_together():
    found = cut(user=["many"] * 5 + [f"u{i}" for i in range(40)])
    assert len(found) == 20
    assert len(found["user", OTHERS]) == 45 - 5 - 18


def test_a_column_of_one_value_divides_nothing():
    assert cut(channel=["mail"] * 5) == {}


def test_texts_are_divided_by_length_and_by_script():
    texts = ["a" * n for n in range(1, 9)] + ["отмена заказа", "退款", "123"]
    found = cut(text=texts)
    assert found[SCRIPT, "Latin"] == list(range(8))
    assert found[SCRIPT, "Cyrillic"] == [8]
    assert found[SCRIPT, "Han"] == [9]
    assert found[SCRIPT, MISSING] == [10]
    lengths = [value for column, value in found if column == LENGTH]
    assert lengths[0].endswith(" characters")
    assert sorted(i for (column, _), rows in found.items() if column == LENGTH for i in rows) == list(range(11))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_every_division_holds_each_row_once(lengths: list[int]):
    found = cut(text=["x" * n for n in lengths], n=[n % 3 for n in lengths])
    for column in {column for column, _ in found}:
        assert sorted(i for (c, _), rows in found.items() if c == column for i in rows) == list(range(len(lengths)))


# -- figures -------------------------------------------------------------------------------------------


def right_and_wrong(right: np.ndarray) -> tuple[np.ndarray, np.ndarray, SingleLabel]:
    gold = np.arange(len(right)) % 2
    return np.eye(2)[np.where(right, gold, 1 - gold)] * 0.8 + 0.1, gold, SingleLabel(("no", "yes"))


def test_a_slice_has_the_metric_of_its_rows_the_rest_that_of_theirs_and_the_test_is_scipys():
    random = np.random.default_rng(0)
    inside = random.random(200) < 0.3
    right = random.random(200) < np.where(inside, 0.6, 0.75)
    scores, gold, target = right_and_wrong(right)
    [found] = measured([Slice("c", "v", inside)], scores, gold, target, metric="accuracy",
                       confidence=0.95, num_samples=4000, seed=3)  # fmt: skip
    assert found["rows"] == inside.sum()
    assert found["metric"] == pytest.approx(right[inside].mean())
    assert found["rest"] == pytest.approx(right[~inside].mean())
    assert found["gap"] == pytest.approx(right[inside].mean() - right[~inside].mean())
    assert found["interval"][0] <= found["metric"] <= found["interval"][1]
    asked = permutation_test(
        (right[inside].astype(float), right[~inside].astype(float)),
        lambda a, b, axis: abs(a.mean(axis) - b.mean(axis)), vectorized=True, n_resamples=4000,
        alternative="greater", rng=1,
    )  # fmt: skip
    assert found["p_value"] == pytest.approx(asked.pvalue, abs=0.03)


def test_the_interval_is_that_of_the_slices_own_rows():
    from ftlib.evaluation.assessment import assess

    random = np.random.default_rng(1)
    right, inside = random.random(150) < 0.7, np.arange(150) < 60
    scores, gold, target = right_and_wrong(right)
    [found] = measured([Slice("c", "v", inside)], scores, gold, target, metric="f1_macro", **SETTINGS)
    alone = assess(scores[inside], gold[inside], target, num_samples=500, seed=3)
    assert found["metric"] == pytest.approx(alone.metrics["f1_macro"])
    assert found["interval"] == pytest.approx(alone.intervals["f1_macro"])


def test_gaps_beyond_luck_are_named_and_come_first():
    inside = np.arange(300) < 60
    scores, gold, target = right_and_wrong(np.where(inside, np.arange(300) % 3 == 0, np.arange(300) % 20 != 0))
    other = np.arange(300) % 2 == 0
    slices = [Slice("o", "x", other), Slice("c", "v", inside)]
    found = measured(slices, scores, gold, target, metric="accuracy", **SETTINGS)
    assert [(e["column"], e["is_named"]) for e in found] == [("c", True), ("o", False)]
    assert found[0]["gap"] < -0.5


def test_lower_is_better_turns_the_gap():
    inside = np.arange(100) < 50
    scores, gold = np.where(inside, 2.0, 0.1)[:, None] + np.arange(100)[:, None] / 10, np.arange(100) / 10
    [found] = measured([Slice("c", "v", inside)], scores, gold, Value(), metric="rmse", **SETTINGS)
    assert found["metric"] == pytest.approx(2.0)
    assert found["gap"] == pytest.approx(-1.9)


def test_a_small_slice_is_measured_and_not_tested():
    inside = np.arange(100) < 5
    scores, gold, target = right_and_wrong(~inside)
    [found] = measured([Slice("c", "v", inside)], scores, gold, target, metric="accuracy", **SETTINGS)
    assert (found["rows"], found["metric"], found["p_value"], found["is_named"]) == (5, 0.0, None, False)


def test_luck_is_named_in_no_more_than_its_share_of_experiments():
    random = np.random.default_rng(5)
    named = 0
    for _ in range(60):
        scores, gold, target = right_and_wrong(random.random(80) < 0.7)
        slices = [Slice("c", str(i), random.random(80) < 0.5) for i in range(5)]
        found = measured(slices, scores, gold, target, metric="accuracy", confidence=0.95, num_samples=200, seed=2)
        named += any(e["is_named"] for e in found)
    assert named <= 8  # 5 % of 60 are 3; 8 or more would come about once in 100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_p_values_are_adjusted_as_holm_says(values: list[float]):
    assert holm(values) == pytest.approx(holm_by_definition(values))
    assert holm([None, *values])[0] is None


def holm_by_definition(values: list[float]) -> list[float]:
    """Holm (1979): the largest, over all not larger p-values, of what each is times how many are not smaller."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    rank = {i: place for place, i in enumerate(order)}
    return [
        min(1.0, max(values[j] * (len(values) - rank[j]) for j in order[: rank[i] + 1])) for i in range(len(values))
    ]


# -- on the way through the pipeline -------------------------------------------------------------------


def test_columns_that_are_named_travel_from_the_source_to_the_splits(tmp_path):
    from flows.graph import steps
    from ftlib.params.experiment import Experiment

    lines = [f"request number {i} is bad,{'yes' if i % 2 else 'no'},{'mail' if i % 3 else 'chat'}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,channel", *lines]))
    experiment = Experiment.model_validate({
        "name": "x", "base_model": "random:bert", "problem": "text_classification",
        "stages": [{"name": "a", "strategy": "full"}],
        "data": {"sources": {"all": str(tmp_path / "rows.csv")}}, "evaluation": {"slices": ["channel"]},
    })  # fmt: skip
    folders: dict[str, object] = {}
    for step in steps(experiment)[:3]:
        folder = tmp_path / step.step_name
        folder.mkdir()
        step.run(Draft(folder, folder), **{name: folders[before] for name, before in step.inputs.items()})
        folders[step.step_name] = folder
    rows = read_table(tmp_path / "split" / "test.parquet")
    assert set(rows[f"{COLUMN}channel"].to_pylist()) <= {"mail", "chat"}
    assert {piece.column for piece in divide(rows, TEXT)} >= {"channel"}


def test_a_column_that_the_source_lacks_is_named_with_where_it_was_asked_for(tmp_path):
    from ftlib.data.collect import check_columns
    from ftlib.data.sources.base import Source

    (tmp_path / "rows.csv").write_text("text,label,channel\na,b,c\n")
    columns = {"text": "text", "label": "label", f"{COLUMN}chanel": "chanel"}
    with pytest.raises(DataError, match=r"unknown column 'chanel'\. Did you mean 'channel'.* evaluation\.slices\."):
        check_columns({"all": Source.model_validate(str(tmp_path / "rows.csv"))}, columns)
