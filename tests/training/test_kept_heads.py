"""A checkpoint keeps the heads of the tasks that were learned before, or beside, its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.models import checkpoints, virtual_tokens
from ftlib.models.checkpoints import Checkpoint
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.stage import Training
from tests import contracts

TinyModel = Callable[..., Path]

SINGLE = contracts.bound(Problem.named("text_classification")()).model_copy(update={"max_length": 32})
PAIRS = contracts.bound(Problem.named("text_pair_classification")()).model_copy(update={"max_length": 32})
WORDS = contracts.bound(Problem.named("token_classification")()).model_copy(update={"max_length": 32})
SETTINGS = {"learning_rate": 2e-3, "num_train_epochs": 1.0, "batch_size": 8, "precision": "float32"}


def learned(
    start: Path, out: Path, problem: Problem, task: str, strategy: str = "full", **settings: Any
) -> tuple[Checkpoint, pa.Table]:
    """Train a task from a folder, save it, and return what was trained with its rows."""
    stage.set_seed(4)
    plugin = Strategy.named(strategy)()
    checkpoint = plugin.open(start, problem, task)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    result = stage.train(
        checkpoint,
        rows,
        rows,
        problem=problem,
        strategy=plugin,
        settings=Training(**SETTINGS, **settings),
        seed=4,
        scratch=out / "scratch",
        name="train-test",
        task=task,
    )
    checkpoints.save(result.checkpoint, out)
    return result.checkpoint, rows


def relabelled(labels: list[str]) -> Problem:
    return SINGLE.model_copy(update={"labels": tuple(labels)})


def predicted(checkpoint: Checkpoint, rows: pa.Table, problem: Problem) -> pa.Table:
    return problem.predict(checkpoint, rows)


def with_head_of(checkpoint: Checkpoint, folder: Path, problem: Problem, task: str) -> Checkpoint:
    """Return the old head on the new encoder, put together by hand."""
    old = checkpoints.load(folder, problem, task)
    backbone = dict(checkpoint.model.base_model.named_parameters())
    with torch.no_grad():
        for name, parameter in old.model.base_model.named_parameters():
            if not name.startswith("pooler."):
                parameter.copy_(backbone[name])
    return old


@pytest.mark.parametrize("second", [PAIRS, WORDS], ids=lambda p: p.name)
def test_the_next_task_keeps_the_head_of_the_one_before_over_its_own_encoder(
    second: Problem, tiny_model: TinyModel, tmp_path: Path
):
    _, rows = learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    after, own_rows = learned(tmp_path / "a", tmp_path / "b", second, "second")
    kept = checkpoints.load(tmp_path / "b", SINGLE, "main")
    expected = with_head_of(after, tmp_path / "a", SINGLE, "main")
    assert predicted(kept, rows, SINGLE).equals(predicted(expected, rows, SINGLE))
    own = checkpoints.load(tmp_path / "b", second, "second")
    assert predicted(own, own_rows, second).equals(predicted(after, own_rows, second))
    assert own.settings["task"] == "second"
    assert set(own.heads) == {"main"}
    assert set(kept.heads) == {"second"}


def test_heads_are_handed_on_from_stage_to_stage_and_back(tiny_model: TinyModel, tmp_path: Path):
    _, rows = learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    learned(tmp_path / "a", tmp_path / "b", PAIRS, "pairs")
    third, _ = learned(tmp_path / "b", tmp_path / "c", WORDS, "words")
    assert set(third.heads) == {"main", "pairs"}
    untouched = checkpoints.load(tmp_path / "c", SINGLE, "main")
    checkpoints.save(untouched, tmp_path / "d")
    again = checkpoints.load(tmp_path / "d", SINGLE, "main")
    assert predicted(again, rows, SINGLE).equals(predicted(untouched, rows, SINGLE))
    for task, problem in (("pairs", PAIRS), ("words", WORDS)):
        others = contracts.encoded_rows(problem, again.tokenizer)
        found = (predicted(checkpoints.load(tmp_path / n, problem, task), others, problem) for n in ("c", "d"))
        assert next(found).equals(next(found))


def test_saving_a_checkpoint_with_heads_again_gives_the_same_bytes(tiny_model: TinyModel, tmp_path: Path):
    learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    learned(tmp_path / "a", tmp_path / "b", PAIRS, "pairs")
    checkpoints.save(checkpoints.load(tmp_path / "b", PAIRS, "pairs"), tmp_path / "again")
    first, second = (
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file() and "scratch" not in p.parts}
        for f in (tmp_path / "b", tmp_path / "again")
    )
    assert first == second
    assert "heads/main.safetensors" in first


def test_a_task_without_a_head_gets_a_new_one_although_the_old_one_would_fit(tiny_model: TinyModel, tmp_path: Path):
    """Three labels here, three labels there: the shapes do not say whose they are."""
    first, _ = learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    other = relabelled([f"x-{label}" for label in SINGLE.target.labels])
    stage.set_seed(1)
    opened = checkpoints.load(tmp_path / "a", other, "other")
    new, old = opened.model.state_dict(), first.model.state_dict()
    assert not torch.equal(new["classifier.weight"], old["classifier.weight"])
    assert new["classifier.weight"].std() == pytest.approx(0.4, rel=0.4)  # as the model's config draws weights
    assert torch.equal(new["bert.encoder.layer.1.output.dense.weight"], old["bert.encoder.layer.1.output.dense.weight"])
    stage.set_seed(1)
    again = checkpoints.load(tmp_path / "a", other, "other").model.state_dict()
    assert all(torch.equal(new[name], again[name]) for name in new)


def test_labels_are_held_to_their_own_task(tiny_model: TinyModel, tmp_path: Path):
    learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    learned(tmp_path / "a", tmp_path / "b", PAIRS, "pairs")
    other = relabelled(["one", "two"])
    with pytest.raises(CheckpointError, match="was trained for the labels"):
        checkpoints.load(tmp_path / "b", other, "main")
    assert checkpoints.load(tmp_path / "b", other, "third").model.config.num_labels == 2


def test_plain_transformers_opens_what_keeps_heads(tiny_model: TinyModel, tmp_path: Path):
    learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    after, rows = learned(tmp_path / "a", tmp_path / "b", PAIRS, "pairs")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b").eval()
    first, second = (contracts.raw_rows(PAIRS, 8)[name].to_pylist() for name in PAIRS.text_columns)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    batch = tokenizer(first, second, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        found = model(**batch).logits.numpy()
    np.testing.assert_allclose(found, contracts.logits(after, rows, PAIRS), atol=1e-5)


def test_a_head_that_writes_is_kept_beside_one_that_tells_labels(tiny_model: TinyModel, tmp_path: Path):
    writing = Problem.named("summarization")().model_copy(update={"max_length": 32})
    _, rows = learned(tiny_model("t5"), tmp_path / "a", writing, "main")
    labels, _ = learned(tmp_path / "a", tmp_path / "b", SINGLE, "labels")
    kept = checkpoints.load(tmp_path / "b", writing, "main")
    before = checkpoints.load(tmp_path / "a", writing, "main")
    for name in ("encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"):
        assert torch.equal(kept.model.get_parameter(name), before.model.get_parameter(name)), name
    for name in ("encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.block.1.layer.1.EncDecAttention.q.weight"):
        assert torch.equal(kept.model.get_parameter(name), labels.model.get_parameter(f"transformer.{name}")), name
    assert np.isfinite(writing.measure(kept, rows)["loss"])


def test_virtual_tokens_stand_before_the_texts_of_every_task(tiny_model: TinyModel, tmp_path: Path):
    _, rows = learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    after, _ = learned(tmp_path / "a", tmp_path / "b", PAIRS, "pairs", "prompt_tuning")
    assert set(after.heads) == {"main"}
    kept, before = (checkpoints.load(tmp_path / name, SINGLE, "main") for name in ("b", "a"))
    with_tokens, without = (contracts.logits(c, rows, SINGLE) for c in (kept, before))
    assert not np.allclose(with_tokens, without, atol=1e-3)
    virtual_tokens.detach(kept.model)
    np.testing.assert_allclose(contracts.logits(kept, rows, SINGLE), without, atol=1e-5)


def test_a_stage_that_leaves_no_plain_model_keeps_no_heads(tiny_model: TinyModel, tmp_path: Path):
    learned(tiny_model("bert"), tmp_path / "a", SINGLE, "main")
    after, _ = learned(tmp_path / "a", tmp_path / "b", PAIRS, "pairs", "prefix")
    assert after.heads == {}
    with pytest.raises(UnsupportedError, match="with a prefix answers its own task alone; start task 'words'"):
        checkpoints.load(tmp_path / "b", WORDS, "words")
