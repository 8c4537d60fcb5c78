"""Experiments of several tasks: which rows a stage reads, what its checkpoint answers, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows import graph
from ftlib.errors import ParamsError
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment

TASKS = """\
tasks:
  - name: corpus
    problem: masked_language_modeling
    data: {sources: {all: data/raw.csv}, columns: {text: line}}
  - name: pairs
    problem: text_pair_classification
    data: {sources: {train: data/pairs.tsv}}
    splitting: {test_ratio: 0.3}
"""

STAGES = """\
stages:
  - {name: read, task: corpus, strategy: {name: continued_pretraining, keep_head: false}}
  - {name: paired, task: pairs, strategy: full, start_from: read}
  - {name: kept, strategy: continual, start_from: paired}
  - {name: joint, strategy: {name: multi_task, others: [pairs]}}
fusions: [averaging]
"""

Write = Callable[[str | bytes], Path]


@pytest.fixture
def text(good: str) -> str:
    return good[: good.index("stages:")] + TASKS + STAGES


@pytest.fixture
def experiment(params_file: Write, text: str) -> Experiment:
    return load_experiment(params_file(text))


def told(params_file: Write, text: str) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load_experiment(params_file(text))
    return str(caught.value).splitlines()


def test_a_task_has_a_chain_of_its_own(experiment: Experiment) -> None:
    steps = {step.step_name: step for step in graph.steps(experiment)}
    assert steps["encode.pairs"].inputs == {"splits": "split.pairs", "checkpoint": "fetch"}
    assert steps["split.pairs"].inputs == {"rows": "clean.pairs"}
    assert steps["collect.corpus"].columns["text"] == "line"  # type: ignore[attr-defined]
    assert steps["split.pairs"].splitting.test_ratio == 0.3  # type: ignore[attr-defined]
    assert sum(name.startswith("fetch") for name in steps) == 1


def test_stages_read_their_own_task_the_named_and_the_earlier_ones(experiment: Experiment) -> None:
    steps = {step.step_name: step for step in graph.steps(experiment)}
    assert steps["train-paired"].inputs == {"start": "train-read", "encoded": "encode.pairs"}
    assert steps["train-kept"].inputs == {"start": "train-paired", "encoded": "encode", "task_0": "encode.pairs"}
    assert steps["train-joint"].inputs == {"start": "fetch", "encoded": "encode", "task_0": "encode.pairs"}
    assert steps["train-kept"].others == ("pairs",)  # type: ignore[attr-defined]
    assert steps["train-paired"].problem.name == "text_pair_classification"  # type: ignore[attr-defined]


def test_only_stages_of_the_main_task_are_members(experiment: Experiment) -> None:
    assert [member.name for member in experiment.members()] == ["kept", "joint"]


def test_each_stage_is_measured_on_every_task_that_it_answers(experiment: Experiment) -> None:
    steps = {step.step_name: step for step in graph.steps(experiment)}
    assert set(steps["transfer"].answers) == {  # type: ignore[attr-defined]
        ("read", "corpus"),
        ("paired", "pairs"),
        ("kept", "main"),
        ("kept", "pairs"),
        ("joint", "main"),
        ("joint", "pairs"),
    }
    assert steps["predict-kept.pairs-test"].inputs == {"checkpoint": "train-kept", "encoded": "encode.pairs"}
    names = [step.step_name for step in graph.steps(experiment)]
    assert len(names) == len(set(names))


def test_an_experiment_of_one_task_has_the_steps_it_had(params_file: Write, good: str) -> None:
    names = [step.step_name for step in graph.steps(load_experiment(params_file(good)))]
    assert "transfer" not in names
    assert not any("." in name for name in names)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("task: pairs", "task: pears", "stages.1.task: unknown task 'pears'. Did you mean 'pairs'?"),
        ("others: [pairs]", "others: [pear]", "stages.3.strategy: unknown task 'pear'. Did you mean 'pairs'?"),
        ("others: [pairs]", "others: [main]", "stages.3.strategy: 'main' is what the stage learns anyway;"),
        ("name: corpus", "name: main", "tasks.0.name: 'main' stands for the experiment's own problem;"),
        ("test_ratio: 0.3", "test_ratio: 0.9", "tasks.1.splitting: test_ratio 0.9, validation_ratio"),
        ("{text: line}", "{txt: line}", "tasks.0.data.columns.txt: unknown column 'txt'. Did you mean 'text'?"),
        ("start_from: paired", "start_from: base", "stages.2.strategy: continual keeps what was learned before,"),
        (
            "task: corpus, strategy: {name: continued_pretraining, keep_head: false}",
            "strategy: full",
            "tasks.0.name: no stage learns 'corpus';",
        ),
        ("task: pairs, strategy: full", "task: pairs, strategy: continued_pretraining", "stages.1.strategy:"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(params_file: Write, text: str, old: str, new: str, line: str) -> None:
    assert old in text
    assert any(line in told_line for told_line in told(params_file, text.replace(old, new))), told(
        params_file, text.replace(old, new)
    )


def test_a_template_may_follow_a_stage_that_has_learned_to_predict_words(params_file: Write, text: str) -> None:
    asked = "  - {name: asked, strategy: cloze, start_from: %s}\nfusions:"
    stage = load_experiment(params_file(text.replace("fusions:", asked % "read"))).stage("asked")
    assert stage.start_from == "read"
    (line,) = told(params_file, text.replace("fusions:", asked % "paired"))
    assert "cloze cannot start from stage 'paired', which has a head for labels" in line


def test_a_teacher_must_have_learned_the_same_task(params_file: Write, text: str) -> None:
    taught = text.replace("fusions:", "  - {name: small, strategy: {name: distillation, teacher: paired}}\nfusions:")
    (line,) = told(params_file, taught)
    assert "'paired' has learned pairs, not main; name a stage that has." in line
