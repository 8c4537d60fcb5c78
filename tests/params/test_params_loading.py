"""Loading experiments from files, text and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftlib.errors import CheckpointError, DataError, ParamsError, UnsupportedError
from ftlib.params import loading
from ftlib.params.loading import check_inputs, load_experiment
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy

Write = Callable[[str | bytes], Path]
PARAMS = sorted((Path(__file__).parents[2] / "params").glob("*.yaml"))


def test_file_text_and_value_give_the_same_experiment(good: str, params_file: Write):
    experiment = load_experiment(params_file(good))
    assert load_experiment(good) == experiment
    assert load_experiment("p.yaml") == experiment
    assert load_experiment(experiment.model_dump(mode="json")) == experiment


def test_a_value_is_not_changed_by_overrides(good: str):
    value = load_experiment(good).model_dump(mode="json")
    assert load_experiment(value, ["stages.lora.strategy.r=9"]).stages[1].strategy.r == 9  # type: ignore[attr-defined]
    assert value["stages"][1]["strategy"]["r"] == 4


def test_problems_of_a_value_have_paths_without_lines(good: str):
    value = load_experiment(good).model_dump(mode="json")
    value["seed"] = "x"
    with pytest.raises(ParamsError, match=r"^params: seed: 'x' is text; expected an integer"):
        load_experiment(value)


def test_labels_that_yaml_1_1_takes_for_booleans_stay_text(good: str):
    assert load_experiment(good).problem.labels == ("no", "yes")  # type: ignore[attr-defined]


def test_a_stage_lays_its_own_training_over_the_shared_one(good: str):
    lora = load_experiment(good).stage("lora").training
    assert (lora.learning_rate, lora.num_train_epochs) == (5e-5, 2)


def test_a_strategy_that_cannot_do_the_problem_is_told_with_its_line(good: str, params_file: Write, monkeypatch):
    def refuse(self: Strategy, problem: Problem) -> None:
        raise UnsupportedError(f"{self.name} cannot train {problem.name}. Choose another strategy.")

    monkeypatch.setattr(Strategy.named("lora"), "check", refuse)
    with pytest.raises(ParamsError) as caught:
        load_experiment(params_file(good.replace("C: 2", "C: -2")))
    assert caught.value.problems[0] == (
        "p.yaml:19: stages.1.strategy: lora cannot train text_classification. Choose another strategy."
    )
    assert caught.value.problems[1].startswith("p.yaml:27: fusions.1.method.C: is -2; expected a number")


def starting_from_prefix(good: str, strategy: str, between: str = "") -> str:
    """Return an experiment whose stage `late` starts from a stage with a prefix, perhaps by way of another."""
    prefixed = good.replace("strategy: full\n", "strategy: prefix\n").replace("name: lora, r: 4", "name: full")
    start = "lora" if between else "full"
    return prefixed.replace("fusions:", f"  - name: late\n    strategy: {strategy}\n    start_from: {start}\nfusions:")


@pytest.mark.parametrize("between", ["", "full"])
@pytest.mark.parametrize(
    ("strategy", "remedy"),
    [
        ("lora", "start from base, or from a stage without one."),
        ("prefix", "start from base, or from a stage without one."),
        (
            "{name: distillation, teacher: small, student_blocks: 2}",
            "leave student_blocks out, or start from base or a stage without one.",
        ),
    ],
)
def test_a_stage_that_cannot_start_from_a_prefix_is_told_before_any_work(
    strategy: str, remedy: str, between: str, good: str, params_file: Write
):
    with pytest.raises(ParamsError) as caught:
        load_experiment(params_file(starting_from_prefix(good, strategy, between)))
    name = strategy.strip("{").partition(",")[0].removeprefix("name: ")
    start = "lora" if between else "full"
    assert caught.value.problems == (
        f"p.yaml:26: stages.3.start_from: stage 'late': {name} cannot start from a checkpoint with a prefix, "
        f"which stage {start!r} leaves; {remedy}",
    )


@pytest.mark.parametrize("strategy", ["full", "prompt_tuning", "{name: distillation, teacher: small}"])
def test_a_stage_that_can_start_from_a_prefix_is_fine(strategy: str, good: str):
    assert load_experiment(starting_from_prefix(good, strategy)).stage("late").start_from == "full"


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_every_params_file_of_the_project_loads(path: Path):
    assert load_experiment(path).name


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_every_params_file_survives_dump_and_load(path: Path):
    experiment = load_experiment(path)
    assert load_experiment(experiment.model_dump(mode="json")) == experiment


# -- inputs ------------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: str) -> SimpleNamespace:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/train.tsv").write_text("sentence\tlabel\nfine\tyes\n")
    Path("data/test.csv").write_text("sentence,label\nfine,yes\n")
    had: list[str] = []
    monkeypatch.setattr("ftlib.models.pretrained.fingerprint", lambda model: had.append(model) or "digest")
    return SimpleNamespace(text=good.replace("label: 1", "label: label"), had=had)


def test_files_columns_and_models_that_are_there_are_fine(inputs: SimpleNamespace):
    check_inputs(load_experiment(inputs.text))
    assert inputs.had == ["models/tiny"]


def test_every_missing_input_is_told_at_once(inputs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    def nowhere(model: str) -> str:
        raise CheckpointError(f"base_model {model!r}: there is no such folder.")

    monkeypatch.setattr("ftlib.models.pretrained.fingerprint", nowhere)
    Path("data/train.tsv").unlink()
    Path("data/test.csv").write_text("sentense,label\nfine,yes\n")
    with pytest.raises(DataError) as caught:
        loading.check_inputs(load_experiment(inputs.text))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "data/train.tsv" in lines[0]
    assert "'sentense'" in lines[1]
    assert lines[2] == "base_model 'models/tiny': there is no such folder."


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("csv", "csv needs a path; write {name: csv, path: data/train.csv}."),
        ("{name: huggingface}", "huggingface needs a path; write {name: huggingface, path: nyu-mll/glue}."),
        ("support_requests", None),
    ],
)
def test_a_source_without_the_path_that_it_needs_is_told_with_its_line(
    source: str, needed: str | None, good: str, params_file: Write
):
    text = good.replace("train: data/train.tsv", f"train: {source}")
    if needed is None:
        load_experiment(params_file(text))
        return
    with pytest.raises(ParamsError) as caught:
        load_experiment(params_file(text))
    assert list(caught.value.problems) == [f"p.yaml:10: data.sources.train: {needed}"]
