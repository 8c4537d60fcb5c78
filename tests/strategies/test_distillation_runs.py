"""Distillation in whole runs: fusions and other tokenizers teach, rows without labels are read, mistakes are told."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flows.graph import steps
from ftlib.artifacts import Artifact, Store
from ftlib.data.collect import check_columns, collect
from ftlib.data.encode import encode
from ftlib.data.sources.base import Source
from ftlib.data.split import Splitting, split
from ftlib.ensembling import read_rows, read_scores
from ftlib.errors import DataError, ParamsError, UnsupportedError
from ftlib.files import read_json, read_table
from ftlib.models import checkpoints
from ftlib.models.layers import block_list
from ftlib.params.loading import load_experiment
from ftlib.prediction import training_rows
from ftlib.problems.base import Problem
from ftlib.steps import execute
from ftlib.strategies.base import Strategy
from tests import contracts

NEW = [f"please tell me how invoice number {i} was paid" for i in range(12)]
STUDENT = {
    "name": "student",
    "strategy": {
        "name": "distillation",
        "teacher": ["teacher", "blend"],
        "layer_teacher": "teacher",
        "hidden_weight": 1.0,
        "student_blocks": 1,
    },
}
PARAMS: dict[str, Any] = {
    "name": "taught",
    "base_model": "random:bert",
    "problem": "text_classification",
    "data": {"sources": {"all": {"name": "support_requests", "num_rows": 100}}},
    "training": {"num_train_epochs": 1.0, "learning_rate": 1e-3},
    "stages": [
        {"name": "teacher", "strategy": "full"},
        {"name": "other", "strategy": "full", "base_model": "random:roberta"},
        STUDENT,
    ],
    "fusions": [{"name": "blend", "method": "averaging"}],
}


def written(folder: Path, texts: list[str]) -> str:
    path = folder / "unlabelled.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    return str(path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> dict[str, Path]:
    """Return the folders of a run whose student learns from a stage and a fusion, also of rows without labels."""
    known = Source.named("support_requests")(num_rows=100).read({"text": "text"})["text"].to_pylist()  # type: ignore
    texts = [*NEW, *(text for text in known if text)][:50]
    store = Store(tmp_path_factory.mktemp("store"))
    sources = {**PARAMS["data"]["sources"], "unlabelled": written(tmp_path_factory.mktemp("rows"), [*texts, NEW[0]])}
    stages = [PARAMS["stages"][0], {**PARAMS["stages"][1], "base_model": str(tiny_model("roberta"))}, STUDENT]
    given = {**PARAMS, "data": {"sources": sources}, "base_model": str(tiny_model("bert")), "stages": stages}
    done: dict[str, Artifact] = {}
    for step in steps(load_experiment(given)):
        outcome = execute(step, {k: done[v] for k, v in step.inputs.items()}, store, scope="t")
        done[step.step_name] = outcome.artifact
        if step.step_name == "train-student":
            FIGURES.update(outcome.record.metrics)
            break
    return {name: store.open(artifact) for name, artifact in done.items()}


FIGURES: dict[str, float] = {}


def problem_in(ran: Mapping[str, Path]) -> Problem:
    return Problem.model_validate(read_json(ran["split"] / "problem.json"))


def scores(folder: Path, rows: pa.Table, problem: Problem) -> np.ndarray:
    return read_scores([folder], rows, problem).values[0]


def test_a_fusion_teaches_what_its_members_say_that_learn_from_none(ran: dict[str, Path]):
    problem = problem_in(ran)
    for name in ("train", "unlabelled"):
        rows = read_rows(ran["split"] / f"{name}.parquet")
        told = scores(ran[f"predict-blend-{name}"], rows, problem)
        members = [scores(ran[f"predict-{m}-{name}"], rows, problem) for m in ("teacher", "other")]
        np.testing.assert_allclose(told, np.mean(members, axis=0), atol=1e-5)
    found = {step.step_name: step for step in steps(load_experiment(PARAMS))}
    assert found["teach-blend"].members == ("teacher", "other")
    assert found["fuse-blend"].members == ("teacher", "other", "student")
    order = list(found)
    assert order.index("predict-other-validation") < order.index("teach-blend") < order.index("train-student")


def test_a_student_reads_the_mean_of_its_teachers_on_rows_with_and_without_labels(ran: dict[str, Path]):
    problem = problem_in(ran)
    inputs = {
        "teacher_0": ran["describe-student"],
        "unlabelled_0": ran["describe-student"],
        "teacher_1": ran["predict-blend-train"],
        "unlabelled_1": ran["predict-blend-unlabelled"],
    }
    tokenizer = checkpoints.load_tokenizer(ran["fetch"])
    rows = training_rows(ran["encode"], ("train", "unlabelled"), inputs, problem, tokenizer)
    kept = [read_rows(ran["split"] / f"{name}.parquet") for name in ("train", "unlabelled")]
    assert rows["row_id"].to_pylist() == [i for part in kept for i in part["row_id"].to_pylist()]
    assert set(rows["labels"].to_numpy()[len(kept[0]) :]) == {-100}
    taught = problem.target.scores(np.stack(rows["teacher_logits"].to_numpy(zero_copy_only=False)))
    for part, name, at in ((kept[0], "train", 0), (kept[1], "unlabelled", len(kept[0]))):
        mine = [scores(ran[f"predict-{who}-{name}"], part, problem) for who in ("teacher", "blend")]
        np.testing.assert_allclose(taught[at : at + len(part)], np.mean(mine, axis=0), atol=2**-8)  # bfloat16's own
    assert FIGURES["num_unlabelled_rows"] == len(kept[1])


def test_unlabelled_rows_that_another_split_has_are_left_out_with_their_reason(ran: dict[str, Path]):
    kept = {
        name: read_table(ran["split"] / f"{name}.parquet")["text"].to_pylist()
        for name in ("unlabelled", "train", "test")
    }
    assert set(NEW) <= set(kept["unlabelled"])
    assert not set(kept["unlabelled"]) & {*kept["train"], *kept["test"]}
    rejected = read_table(ran["split"] / "rejected.parquet")
    assert set(rejected["split"].to_pylist()) == {"unlabelled"}
    assert all(reason.startswith("leak: its input is in ") for reason in rejected["reason"].to_pylist())
    summary = read_json(ran["split"] / "splits.json")
    assert summary["rows"]["unlabelled"] == len(kept["unlabelled"])
    assert "unlabelled" not in summary["labels"]
    assert len(block_list(checkpoints.load(ran["train-student"], problem_in(ran)).model)) == 1


def test_what_was_kept_of_a_teacher_is_told_in_bytes(ran: dict[str, Path]):
    rows = sum(len(ids) for name in ("train", "unlabelled")
               for ids in read_table(ran["encode"] / f"{name}.parquet")["input_ids"].to_pylist())  # fmt: skip
    assert (ran["describe-student"] / "hidden.bin").stat().st_size == rows * 2 * 32 * 2  # two layers, bfloat16
    assert not (ran["describe-student"] / "attention.bin").exists()


# -- rows without labels -------------------------------------------------------------------------------


def test_a_row_without_a_label_adds_the_teacher_s_part_alone():
    problem, torch_seed = contracts.bound(Problem.named("text_classification")()), torch.manual_seed(0)
    assert torch_seed
    logits, taught, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, -100, 2, -100])
    chosen = Strategy.named("distillation")(alpha=0.4)
    batch = {"labels": labels, "teacher_logits": taught}
    soft = problem.distillation_loss(logits, batch, 2.0)
    gold = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / 4
    torch.testing.assert_close(chosen.loss(logits, batch, problem), 0.4 * soft + 0.6 * gold)
    nobody = {"labels": torch.full((4,), -100), "teacher_logits": taught}
    torch.testing.assert_close(chosen.loss(logits, nobody, problem), 0.4 * soft)


@pytest.mark.parametrize(("name", "fields"), [("text_classification", {"multi_label": True}), ("text_regression", {})])
def test_rows_without_several_labels_or_a_number_are_left_out_of_the_gold_loss(name, fields, tiny_model):
    problem = contracts.bound(Problem.named(name)(**fields))
    tokenizer = checkpoints.load_tokenizer(tiny_model("bert"))
    rows = contracts.labelled_rows(problem, 4) if not fields else None
    if rows is None:
        rows = pa.table(
            {"row_id": [1, 2, 3, 4], "text": list("abcd"), "label": [["bug"], ["bug", "billing"], [], ["bug"]]}
        )
        problem = problem.bind(("billing", "bug"))
    known = encode(rows.slice(0, 2), problem, tokenizer)[0]
    unknown = encode(rows.slice(2), problem, tokenizer, is_labelled=False)[0]
    assert unknown.schema.equals(known.schema)
    both = pa.concat_tables([known, unknown])["labels"].to_numpy(zero_copy_only=False)
    labels = torch.from_numpy(np.stack(both).astype(np.float32))
    logits = torch.randn(4, problem.target.num_outputs)
    found = Strategy.named("distillation")(alpha=0.0).loss(
        logits, {"labels": labels, "teacher_logits": logits}, problem
    )
    torch.testing.assert_close(found, problem.loss(logits[:2], {"labels": labels[:2]}) / 2)
    if problem.target.can_be_weighted:
        assert problem.target.balanced_weights(labels.numpy()) == problem.target.balanced_weights(labels[:2].numpy())


def test_unlabelled_rows_need_no_label_column_and_their_own_labels_are_not_read(tmp_path):
    source = Source.model_validate(written(tmp_path, NEW))
    rows = Source.named("support_requests")(num_rows=20)  # type: ignore[call-arg]
    sources, columns = {"train": rows, "unlabelled": source}, {"text": "text", "label": "label"}
    check_columns(sources, columns, ("text",))
    with pytest.raises(DataError, match="label"):
        check_columns({"train": source}, columns)
    table = collect({"unlabelled": rows, "train": rows}, columns, unlabelled=("text",)).table
    assert table["split"].to_pylist() == ["train"] * 20 + ["unlabelled"] * 20
    assert table["label"].slice(20).null_count == 20


def test_unlabelled_rows_may_share_a_group_with_train_but_not_with_test():
    problem = Problem.named("text_classification")(labels=("a", "b"))  # type: ignore[call-arg]
    given = [
        ("train", "t1", "a", "g1"),
        ("train", "t2", "b", "g2"),
        ("validation", "v", "a", "g3"),
        ("test", "x", "b", "g4"),
        ("unlabelled", "u1", None, "g1"),
        ("unlabelled", "u2", None, "g4"),
        ("unlabelled", "t1", None, "g1"),
    ]
    names = ("split", "text", "label", "group")
    rows = pa.table({"row_id": range(len(given)), **{n: [row[i] for row in given] for i, n in enumerate(names)}})
    found = split(rows, problem, Splitting(group_column="group"), seed=0)
    assert found.tables["unlabelled"]["text"].to_pylist() == ["u1"]
    assert found.summary["leaks"] == {"unlabelled in test": 1, "unlabelled in train": 1}


# -- mistakes ------------------------------------------------------------------------------------------


def student(**fields: Any) -> dict[str, Any]:
    chosen = {"name": "distillation", "teacher": "teacher", **fields}
    return {"stages": [*PARAMS["stages"][:2], {"name": "student", "strategy": chosen}]}


UNLABELLED = {"data": {"sources": {**PARAMS["data"]["sources"], "unlabelled": "u.csv"}}}
TAGS = {"problem": "token_classification", "data": {"sources": {"all": {"name": "sample_entities", "num_rows": 60}}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (student(teacher="blnd"), "unknown stage 'blnd'"),
        (student(layer_teacher="tacher", hidden_weight=1), "strategy.layer_teacher: unknown stage 'tacher'.*'teacher'"),
        (student(teacher="blend", hidden_weight=1), "the fusion 'blend' has no layers to be imitated; name a stage"),
        (student(teacher="student"), "student -> student is a cycle"),
        ({**student(teacher="blend"), "fusions": [{"name": "blend", "method": "uniform_soup"}]},
         "blend .uniform_soup. cannot teach: its members make one model.*teacher: .teacher, other."),
        ({**student(teacher="greedy"), **TAGS}, "greedy cannot teach token_classification"),
        ({**UNLABELLED, "stages": PARAMS["stages"][:2]}, "unlabelled: no stage learns from rows without labels"),
        ({**student(unlabelled=False), **UNLABELLED}, "no stage learns from rows without labels"),
        ({**student(), **TAGS, "data": {"sources": {**TAGS["data"]["sources"], "unlabelled": "u.jsonl"}}},  # type: ignore
         "cannot learn token_classification from rows without labels"),
        ({"stages": [{"name": "student", "strategy": {"name": "distillation", "teacher": "greedy"}}]},
         "the fusion 'greedy' has no member that learns from no fusion"),
    ],
)  # fmt: skip
def test_teachers_and_rows_that_cannot_be_learned_from_are_refused_before_any_work(changes, message):
    with pytest.raises(ParamsError, match=message):
        load_experiment({**PARAMS, **changes})


def test_students_of_two_fusions_do_not_wait_for_each_other():
    stages = [
        *PARAMS["stages"][:2],
        {"name": "one", "strategy": {"name": "distillation", "teacher": "blend"}},
        {"name": "two", "strategy": {"name": "distillation", "teacher": "greedy"}},
        {"name": "three", "strategy": "full", "start_from": "two"},
    ]
    found = {step.step_name: step for step in steps(load_experiment({**PARAMS, "stages": stages}))}
    assert found["teach-blend"].members == found["teach-greedy"].members == ("teacher", "other")


def test_a_student_larger_than_its_teacher_is_warned_of(tmp_path, tiny_model, caplog: pytest.LogCaptureFixture):
    small = {"name": "small", "strategy": {"name": "distillation", "student_blocks": 1}, "start_from": "teacher"}
    large = {"name": "large", "strategy": {"name": "distillation", "teacher": "small"}}
    with caplog.at_level(logging.WARNING):
        load_experiment({**PARAMS, "base_model": str(tiny_model("bert")), "fusions": [],
                         "stages": [PARAMS["stages"][0], small, large]})  # fmt: skip
    lines = [r.getMessage() for r in caplog.records]
    assert lines == ["stage 'large': the student's blocks have 16,384 weights, more than its teacher's 8,192; it costs "
                     "more than what it learns from."]  # fmt: skip


def test_layers_are_learned_only_of_the_same_tokens_which_is_found_out_before_training(tmp_path, tiny_model):
    stages = [PARAMS["stages"][0], {"name": "student", "base_model": str(tiny_model("roberta")),
                                    "strategy": {"name": "distillation", "hidden_weight": 1.0}}]  # fmt: skip
    given = {**PARAMS, "base_model": str(tiny_model("bert")), "stages": stages, "fusions": []}
    planned = steps(load_experiment(given))
    store, done = Store(tmp_path), {}
    names = [step.step_name for step in planned]
    compared = names.index("compare-teacher.student")
    assert compared < names.index("train-teacher")
    for step in planned[:compared]:
        done[step.step_name] = execute(step, {k: done[v] for k, v in step.inputs.items()}, store, scope="t").artifact
    compare = planned[compared]
    with pytest.raises(UnsupportedError, match="student cannot learn what its teacher teacher makes of each token"):
        execute(compare, {k: done[v] for k, v in compare.inputs.items()}, store, scope="t")
