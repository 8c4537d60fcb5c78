"""Training keeps the best weights, stops early, is reproducible, and tells how far it is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ftlib import progress
from ftlib.errors import CheckpointError, DataError, FtlibError
from ftlib.files import write_table
from ftlib.models import checkpoints
from ftlib.prediction import predict, with_teachers
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.record import Record
from ftlib.training.stage import Training
from tests import contracts


@pytest.fixture
def problem() -> Problem:
    return contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 32})


@pytest.fixture
def run_stage(tiny_model, problem, tmp_path):
    """Return a function that trains a tiny stage with any settings."""

    def run(scratch: str = "scratch", strategy: str = "full", **settings):
        start = tiny_model("bert", 0.1)  # building it draws random numbers: seed afterwards
        stage.set_seed(2)
        checkpoint = checkpoints.load(start, problem)
        rows = contracts.encoded_rows(problem, checkpoint.tokenizer, limit=None)
        defaults = {"learning_rate": 2e-3, "num_train_epochs": 3.0, "batch_size": 4, "precision": "float32"}
        return stage.train(checkpoint, rows, rows, problem=problem, strategy=Strategy.named(strategy)(),
                              settings=Training(**{**defaults, **settings}), seed=2, scratch=tmp_path / scratch,
                              name="train-test")  # fmt: skip

    return run


def files(result, folder) -> dict[str, bytes]:
    checkpoints.save(result.checkpoint, folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bytes_and_history(precision, run_stage, tmp_path):
    first, second = run_stage("a", precision=precision), run_stage("b", precision=precision)
    assert files(first, tmp_path / "first") == files(second, tmp_path / "second")
    assert first.history == second.history
    assert json.dumps(first.history)


def test_the_best_weights_of_all_validation_passes_are_kept(run_stage, problem, tiny_model):
    result = run_stage(num_train_epochs=6.0, learning_rate=3e-2, early_stopping_patience=None)
    passes = [row for row in result.history if "validation_loss" in row]
    best = max(passes, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert result.figures["best_step"] == best["step"]
    rows = contracts.encoded_rows(problem, result.checkpoint.tokenizer, limit=None)
    answers = contracts.logits(result.checkpoint, rows, problem).argmax(1)
    assert (answers == rows.column("labels").to_numpy()).mean() == pytest.approx(best["validation_accuracy"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["full", "partial", "lora", "ia3", "prefix", "prompt_tuning", "p_tuning"])
def test_strategies_learn_with_dropout_in_either_precision(name, precision, run_stage):
    """Prefixes are float32 beside keys and values in bfloat16."""
    result = run_stage(name, strategy=name, precision=precision, num_train_epochs=1.0)
    assert result.figures["steps"] == 3
    assert all(np.isfinite(row["loss"]) for row in result.history if "loss" in row)


def test_the_last_weights_are_kept_where_that_is_asked_for(run_stage, problem):
    settings = {"num_train_epochs": 6.0, "early_stopping_patience": None}
    settings |= {"learning_rate": 0.3, "warmup_ratio": 0.99}  # a rate that rises until it spoils what was learned
    result = run_stage(load_best_model_at_end=False, **settings)
    last = [row for row in result.history if "validation_loss" in row][-1]
    assert run_stage("other", **settings).figures["best_step"] < result.figures["best_step"] == last["step"] == 18
    assert result.figures["best_validation_loss"] == last["validation_loss"]
    rows = contracts.encoded_rows(problem, result.checkpoint.tokenizer, limit=None)
    answers = contracts.logits(result.checkpoint, rows, problem).argmax(1)
    assert (answers == rows.column("labels").to_numpy()).mean() == pytest.approx(last["validation_accuracy"])


def test_training_stops_when_patience_is_over(run_stage):
    result = run_stage(num_train_epochs=30.0, learning_rate=5e-2, early_stopping_patience=2)
    assert result.figures["steps"] < 90


def test_validation_runs_as_often_as_asked_and_at_the_end(run_stage):
    result = run_stage(num_train_epochs=1.5, evaluations_per_epoch=3, early_stopping_patience=None)
    steps = [row["step"] for row in result.history if "validation_loss" in row]
    assert steps == [1, 2, 3, 4, 5]
    assert result.figures["epochs"] == pytest.approx(5 / 3)


def test_asked_for_none_validation_runs_once_at_the_end(run_stage):
    result = run_stage(num_train_epochs=2.0, evaluations_per_epoch=0)
    steps = [row["step"] for row in result.history if "validation_loss" in row]
    assert steps == [result.figures["steps"]] == [result.figures["best_step"]]


def test_a_stage_steps_through_batches_of_at_most_so_many_tokens(run_stage, problem, tiny_model, monkeypatch):
    read = []
    forward = type(problem).forward

    def watched(self, model, batch):
        if model.training:
            read.append(batch["input_ids"].numel())
        return forward(self, model, batch)

    monkeypatch.setattr(type(problem), "forward", watched)
    lengths = contracts.encoded_rows(problem, checkpoints.load_tokenizer(tiny_model("bert")), limit=None)["length"]
    longest = max(lengths.to_pylist())
    result = run_stage(num_train_epochs=2.0, batch_size=64, batch_tokens=2 * longest)
    assert result.figures["steps"] == len(read)
    assert result.figures["epochs"] == 2
    assert longest <= max(read) <= 2 * longest
    assert 2 * sum(lengths.to_pylist()) <= sum(read)


def test_the_history_has_no_times_and_ends_at_the_last_step(run_stage):
    result = run_stage()
    assert {"step", "epoch", "loss", "learning_rate"} == set(result.history[0])
    assert max(row["step"] for row in result.history) == 9
    assert not any("second" in key or "time" in key for row in result.history for key in row)


def test_progress_is_told_and_nothing_is_printed(run_stage, capfd):
    events = []
    with progress.listen(events.append):
        run_stage()
    assert events[-1].done == events[-1].total == 9
    assert events[-1].step == "train-test"
    assert "validation_accuracy" in events[-1].metrics
    assert capfd.readouterr() == ("", "")


def test_a_loss_that_is_not_a_number_says_what_to_do(run_stage):
    with pytest.raises(FtlibError, match=r"lower training\.learning_rate"):
        run_stage(learning_rate=1e30, max_grad_norm=1e30, num_train_epochs=9.0)


def test_predictions_come_in_the_order_of_the_rows(run_stage, problem):
    result = run_stage()
    rows = contracts.encoded_rows(problem, result.checkpoint.tokenizer, limit=None)
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    straight = dict(zip(rows["row_id"].to_pylist(), contracts.logits(result.checkpoint, rows, problem), strict=True))
    table = predict(result.checkpoint, shuffled, problem).table
    assert table["row_id"].equals(shuffled["row_id"])
    for row_id, logits in zip(table["row_id"].to_pylist(), table["logits"].to_pylist(), strict=True):
        np.testing.assert_allclose(logits, straight[row_id], atol=1e-5)


def test_several_teachers_give_their_mean_scores_by_row_id(run_stage, problem, tmp_path):
    result = run_stage()
    rows = contracts.encoded_rows(problem, result.checkpoint.tokenizer, limit=None)
    table = predict(result.checkpoint, rows, problem).table
    for name, part in (("a", table), ("b", table.take(np.arange(len(table))[::-1]))):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name / "predictions.parquet", part)
    taught = with_teachers(rows, [tmp_path / "a", tmp_path / "b"], problem)
    target = problem.target
    ours = target.scores(np.stack(taught["teacher_logits"].to_numpy()))
    np.testing.assert_allclose(ours, target.scores(contracts.logits(result.checkpoint, rows, problem)), atol=1e-6)
    write_table(tmp_path / "b" / "predictions.parquet", table.slice(1))
    with pytest.raises(DataError, match="no predictions"):
        with_teachers(rows, [tmp_path / "b"], problem)


def test_equal_scores_are_decided_by_the_loss():
    record = Record("accuracy", 2)
    assert record.log_validation(1, 0.1, {"validation_loss": 0.5, "validation_accuracy": 0.8})
    assert record.log_validation(2, 0.2, {"validation_loss": 0.4, "validation_accuracy": 0.8})
    assert not record.log_validation(3, 0.3, {"validation_loss": 0.1, "validation_accuracy": 0.7})
    assert record.best_step == 2
    assert not record.should_stop
    assert not record.log_validation(4, 0.4, {"validation_loss": 0.4, "validation_accuracy": 0.8})
    assert record.should_stop


def test_an_undefined_metric_counts_as_the_worst():
    record = Record("spearman", 3)
    assert record.log_validation(1, 0.1, {"validation_loss": 0.5})
    assert record.log_validation(2, 0.2, {"validation_loss": 0.9, "validation_spearman": -0.2})
    assert not record.log_validation(3, 0.3, {"validation_loss": 0.1})


def test_a_stage_for_other_labels_is_not_opened(run_stage, problem, tmp_path):
    checkpoints.save(run_stage().checkpoint, tmp_path / "saved")
    other = Problem.named("text_classification")(labels=("x", "y"))
    with pytest.raises(CheckpointError, match="labels"):
        checkpoints.load(tmp_path / "saved", other)
