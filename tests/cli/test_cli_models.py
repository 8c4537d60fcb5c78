"""`ftlib predict`, `evaluate` and `compare`, with a model that answers by the first word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ftlib import state
from ftlib.artifacts import Store
from ftlib.problems.base import Problem
from ftlib.serving.answering import Scored

PROBLEM = {"name": "text_classification", "labels": ["bad", "good"]}


class Oracle:
    """Says what the text's first word says."""

    name = "oracle"
    problem = Problem.model_validate(PROBLEM)

    def predict(self, rows: Any) -> Any:
        import pandas as pd

        texts = rows["text"].to_pylist()
        good = [None if not t else 0.9 if t.startswith("good") else 0.2 for t in texts]
        return pd.DataFrame(
            {
                "prediction": [None if g is None else "good" if g > 0.5 else "bad" for g in good],
                "confidence": [None if g is None else max(g, 1 - g) for g in good],
                "score:bad": [None if g is None else 1 - g for g in good],
                "score:good": good,
                "reason": pd.Series([None if t else "missing text" for t in texts], dtype=object),
            }
        )

    def score(self, rows: Any) -> Scored:
        answers = self.predict(rows)
        answered = answers["reason"].isna().to_numpy()
        scores = answers[["score:bad", "score:good"]].to_numpy(dtype=float)[answered]
        reasons = pa.array(answers["reason"].tolist(), pa.string())
        table = pa.table({"text": rows["text"].combine_chunks()})
        return Scored(table, reasons, answered, scores, None, None)


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.serving.finding.resolve", lambda model: model)
    monkeypatch.setattr("ftlib.serving.answering.load", lambda folder: Oracle())


@pytest.fixture
def tickets() -> Path:
    path = Path("tickets.csv")
    path.write_text("id,message,intent\n7,good day,good\n8,what a mess,bad\n9,,bad\n10,good grief,bad\n11,so so,meh\n")
    return path


def test_predict_puts_answers_beside_the_files_own_columns(ftlib, tickets: Path):
    result = ftlib(
        "predict", "models:/x@champion", str(tickets), "-o", "out/answers.jsonl", "--columns", "text=message"
    )
    assert result.code == 0
    assert result.out.splitlines()[-1] == "out/answers.jsonl"
    assert "4 rows predicted. 1 without a prediction: 1 missing text" in result.out
    rows = [json.loads(line) for line in Path("out/answers.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["good", "bad", None, "good", "bad"]
    assert list(rows[0])[:4] == ["id", "message", "intent", "prediction"]
    assert rows[2]["reason"] == "missing text"


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_predict_writes_and_reads_every_ending(ftlib, tickets: Path, ending: str):
    assert ftlib("predict", "m", str(tickets), "-o", f"first.{ending}", "--columns", "text=message").code == 0
    assert ftlib("predict", "m", f"first.{ending}", "-o", "second.jsonl", "--columns", "text=message").code == 0
    assert len(Path("second.jsonl").read_text().splitlines()) == 5


def test_predict_without_output_prints_json_lines_only(ftlib, tickets: Path):
    result = ftlib("predict", "m", str(tickets), "--columns", "text=message")
    assert [json.loads(line)["prediction"] for line in result.out.splitlines()][:2] == ["good", "bad"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tickets.csv"], "tickets.csv: unknown column 'text'."),
        (["tickets.csv", "--columns", "message"], "--columns message: expected COLUMN=SOURCE, such as --columns text="),
        (["tickets.csv", "--columns", "txt=message"], "--columns txt=message: unknown column of the model 'txt'."),
        (["nowhere.csv"], "nowhere.csv: no such file."),
        (["tickets.xlsx"], "tickets.xlsx: no source"),
        (["tickets.pkl"], "tickets.pkl: "),
    ],
)
def test_predict_answers_wrong_input_in_a_line(ftlib, tickets: Path, arguments: list[str], line: str):
    result = ftlib("predict", "m", *arguments)
    assert result.code == 2
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


def test_a_row_that_cannot_be_read_has_its_reason(ftlib):
    Path("rows.jsonl").write_text('{"text": "good"}\n{broken\n{"text": "worse"}\n')
    assert ftlib("predict", "m", "rows.jsonl", "-o", "out.jsonl").code == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert sorted(str(row["prediction"]) for row in rows) == ["None", "bad", "good"]
    [bad] = [row for row in rows if row["prediction"] is None]
    assert bad["reason"] not in (None, "missing text")


def test_evaluate_measures_with_intervals_and_counts_what_it_could_not(ftlib, tickets: Path):
    arguments = ["--columns", "text=message", "--columns", "label=intent", "--json", "metrics.json"]
    result = ftlib("evaluate", "m", str(tickets), *arguments)
    assert result.code == 0
    accuracy = next(line.split() for line in result.out.splitlines() if line.startswith("accuracy"))
    assert accuracy[1] == "0.6667"
    assert "oracle on 3 rows" in result.out
    assert "Rejected 2 rows" in result.out
    measured = json.loads(Path("metrics.json").read_text())
    assert measured["metrics"]["accuracy"] == pytest.approx(2 / 3)
    low, high = measured["intervals"]["accuracy"]
    assert 0 <= low <= 2 / 3 <= high <= 1


def test_evaluate_without_a_usable_row_says_why(ftlib):
    Path("rows.csv").write_text("text,label\ngood,meh\nbad,meh\n")
    result = ftlib("evaluate", "m", "rows.csv")
    assert result.code == 2
    assert result.err == "no row can be measured: 2 unknown label 'meh'.\n"
    Path("rows.csv").write_text("text,label\n" + "".join(f"good,label{i}\n" for i in range(9)))
    assert ftlib("evaluate", "m", "rows.csv").err == "no row can be measured: 9 unknown label.\n"


# -- compare -----------------------------------------------------------------------------------------


def kept(store: Store, files: dict[str, Any]) -> str:
    from ftlib.files import write_json, write_table

    with store.draft() as draft:
        for name, content in files.items():
            (write_json if name.endswith(".json") else write_table)(draft.folder / name, content)
        return store.commit(draft).digest


def run_of(name: str, summary: dict[str, Any], texts: list[str], gold: list[str], right: list[bool]) -> dict[str, Any]:
    """Keep a run whose only member answers so; return its summary."""
    import pyarrow as pa

    answers = [g if r else ("bad" if g == "good" else "good") for g, r in zip(gold, right, strict=True)]
    logits = pa.FixedSizeListArray.from_arrays(
        pa.array([x for a in answers for x in ((2.0, -2.0) if a == "bad" else (-2.0, 2.0))], pa.float32()), 2
    )
    ids = pa.array(range(len(texts)), pa.int64())
    evaluation = {"members": [{"name": "full"}], "fusions": [], "best": {"name": "full"}}
    test = pa.table({"row_id": ids, "text": texts, "label": gold})
    store = state.store()
    steps = {
        "split": kept(store, {"problem.json": PROBLEM, "test.parquet": test}),
        "predict-full-test": kept(store, {"predictions.parquet": pa.table({"row_id": ids, "logits": logits})}),
        "evaluate": kept(store, {"evaluation.json": evaluation}),
    }
    listed = [{"name": n, "state": "computed", "seconds": 1.0, "artifact": d} for n, d in steps.items()]
    best = {**summary["best"], "name": "full", "kind": "member"}
    return {**summary, "name": name, "steps": listed, "best": best, "fusions": []}


def test_compare_tests_the_best_models_on_the_rows_that_both_have(ftlib, summary: dict[str, Any], keep: Any):
    texts, gold = [f"text {i}" for i in range(12)], ["good", "bad"] * 6
    one = run_of("one", summary, texts, gold, [True] * 12)
    other = run_of("other", summary, texts[::-1][:10], gold[::-1][:10], [False] * 8 + [True] * 2)
    result = ftlib("compare", str(keep(one, "one.json")), str(keep(other, "other.json")))
    assert result.code == 0
    assert result.out.splitlines()[-1] == (
        "other (full) against one (full): 0.2000 against 1.0000 accuracy on the 10 test rows they share, p = 0.008."
    )


def test_compare_says_why_there_is_no_paired_test(ftlib, summary: dict[str, Any], keep: Any):
    one = run_of("one", summary, ["a", "b"], ["good", "bad"], [True, True])
    other = run_of("other", summary, ["c", "d"], ["good", "bad"], [True, True])
    gone = {**one, "name": "gone", "steps": [{**s, "artifact": "0" * 64} for s in one["steps"]]}
    files = [str(keep(s, f"{s['name']}.json")) for s in (one, other, gone)]
    lines = ftlib("compare", *files).out.splitlines()
    assert lines[-2].startswith("other (full) against one (full): no paired test: the runs share no test row")
    assert lines[-1].startswith("gone (full) against one (full): no paired test: artifact of split of gone is missing")


def test_compare_shows_settings_that_differ(ftlib, summary: dict[str, Any], keep: Any):
    one = run_of("one", summary, ["a", "b"], ["good", "bad"], [True, True])
    other = {**one, "name": "other", "params": {"experiment": {"seed": 8, "training": {"learning_rate": 5e-5}}}}
    out = ftlib("compare", str(keep(one, "one.json")), str(keep(other, "other.json"))).out
    assert any(line.split() == ["seed", "7", "8"] for line in out.splitlines())
    assert "learning_rate" not in out


def test_compare_answers_an_unknown_run_in_a_line(ftlib, summary: dict[str, Any], keep: Any):
    Path("broken.json").write_text("[]")
    for run in ("nothing", "broken.json"):
        result = ftlib("compare", run, run)
        assert result.code == 2
        assert result.err.count("\n") == 1
