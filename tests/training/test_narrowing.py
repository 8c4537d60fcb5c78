"""The last block works only at the place that the head reads; logits, gradients and training stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ftlib.models import checkpoints, narrowing
from ftlib.models.forward import forward_rows
from ftlib.models.layers import backbone, block_list
from ftlib.models.narrowing import Narrowing
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.batches import Lists, Rows
from ftlib.training.dropout import cheap_dropout
from ftlib.training.stage import Training
from tests import contracts
from tests.problems.language_models import TinyModel

PADDING = 1
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 60,
    "pad_token_id": PADDING, "num_labels": 3, "initializer_range": 0.3,
}  # fmt: skip
READ: dict[str, tuple[dict[str, Any], str | None]] = {
    "bert": ({}, "first"),
    "roberta": ({}, "first"),
    "distilbert": ({"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, "first"),
    "electra": ({"embedding_size": 16}, "first"),
    "modernbert": ({"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}, "first"),
    "gpt2": ({"bos_token_id": 2, "eos_token_id": 3}, "last"),
    "llama": ({"num_key_value_heads": 2}, "last"),
    "albert": ({"embedding_size": 16}, None),  # one block, run twice
    "deberta-v2": ({}, None),  # attention of its own
}


def model_of(kind: str, task: str = "SequenceClassification", **settings: Any) -> Any:
    import transformers

    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **READ[kind][0], **settings})
    return getattr(transformers, f"AutoModelFor{task}").from_config(config).eval()


def rows_of(num_rows: int = 12, longest: int = 15, *, lowest: int = 6) -> Rows:
    random = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(random.integers(3, longest, num_rows))])
    ids = random.integers(lowest, 59, starts[-1])
    return Rows({"input_ids": Lists(ids, starts, PADDING)}, {}, frozenset(), padding_id=PADDING)


def reading(model: Any) -> narrowing.Run:
    return lambda batch: model(**batch).logits


def gradients(model: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (logits * torch.linspace(-1, 2, logits.numel()).view(logits.shape)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", READ)
def test_logits_and_gradients_are_those_of_the_whole_block(kind: str):
    model, rows = model_of(kind), rows_of()
    found = narrowing.found(model, rows, reading(model), list(model.parameters()))
    assert (found.place if found else None) == READ[kind][1]
    if found is None:
        return
    for chosen in (np.arange(12), np.array([4])):  # with padding, and without
        batch = rows.batch(chosen)
        expected = model(**batch).logits
        wanted = gradients(model, expected)
        with found.applied():
            logits = model(**batch).logits
            torch.testing.assert_close(logits, expected, atol=2e-6, rtol=1e-5)
            got = gradients(model, logits)
        assert got.keys() == wanted.keys()
        largest = max(float(g.abs().max()) for g in wanted.values())
        for name, gradient in got.items():
            torch.testing.assert_close(gradient, wanted[name], atol=2e-6 * largest, rtol=1e-4, msg=name)
    assert "forward" not in vars(block_list(model)[-1])


def test_what_follows_attention_is_computed_at_one_place_only():
    model, rows = model_of("bert"), rows_of()
    found = narrowing.found(model, rows, reading(model))
    assert found is not None
    seen: dict[str, int] = {}
    for name in ("attention.output.dense", "intermediate.dense", "output.LayerNorm"):
        part = block_list(model)[-1].get_submodule(name)
        part.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.shape[1]}))
    batch = rows.batch(np.arange(12))
    with found.applied():
        model(**batch)
    assert seen == {"attention.output.dense": 1, "intermediate.dense": 1, "output.LayerNorm": 1}


EVERY_PLACE = [("bert", "TokenClassification"), ("bert", "QuestionAnswering"), ("gpt2", "CausalLM")]


@pytest.mark.parametrize(("kind", "task"), EVERY_PLACE)
def test_heads_that_read_every_place_keep_the_whole_block(kind: str, task: str):
    model = model_of(kind, task)

    def run(batch: dict[str, Tensor]) -> Tensor:
        output = model(**batch)
        return output.start_logits if task == "QuestionAnswering" else output.logits

    assert narrowing.found(model, rows_of(), run) is None


def test_a_head_that_averages_keeps_the_whole_block_even_before_its_weights_say_anything():
    model = model_of("modernbert", classifier_pooling="mean")
    assert narrowing.found(model, rows_of(), reading(model), list(model.parameters())) is None
    nn.init.zeros_(model.classifier.weight)
    assert narrowing.found(model, rows_of(), reading(model)) is None
    assert narrowing.found(model, rows_of(), reading(model), list(model.parameters())) is None


def test_a_text_that_holds_the_token_of_padding_keeps_the_whole_block_of_a_causal_model():
    model = model_of("gpt2", bos_token_id=2, eos_token_id=3)
    assert narrowing.found(model, rows_of(40, lowest=PADDING), reading(model)) is None


def test_where_someone_listens_to_hidden_states_they_are_whole():
    model, rows = model_of("bert"), rows_of()
    handle = backbone(model).register_forward_hook(lambda module, inputs, output: None)
    assert narrowing.found(model, rows, reading(model)) is None
    handle.remove()
    assert narrowing.found(model, rows, reading(model)) is not None


def test_dropout_of_the_one_place_is_drawn_from_the_cheap_stream():
    model, rows = model_of("bert", attention_probs_dropout_prob=0.3, hidden_dropout_prob=0.3), rows_of()
    batch = rows.batch(np.arange(12))
    with cheap_dropout(model, 1) as masks:
        found = narrowing.found(model, rows, reading(model))
        assert found is not None
        expected = model(**batch).logits
        with found.applied():
            model.train()
            drawn = []
            for step in (0, 0, 1):
                masks.at_step(step)
                drawn.append(model(**batch).logits)
            model.eval()
            torch.testing.assert_close(model(**batch).logits, expected)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])
    assert not torch.allclose(drawn[0], expected)


# -- in use ----------------------------------------------------------------------------------------------


def trained(patch: Any, start: Path, scratch: Path, strategy: dict[str, Any], *, is_narrowed: bool, **settings: Any):
    """Train a stage; return its result and how often the last block was narrowed."""
    found = narrowing.found
    times: list[str] = []

    def watched(*arguments: Any) -> Narrowing | None:
        one = found(*arguments) if is_narrowed else None
        times.extend([one.place] if one else [])
        return one

    patch.setattr(narrowing, "found", watched)
    patch.setattr(narrowing, "FEWEST_ROWS", 1)
    problem = contracts.bound(Problem.named("text_classification")())
    stage.set_seed(3)
    checkpoint = checkpoints.load(start, problem)
    rows = contracts.repeated(contracts.encoded_rows(problem, checkpoint.tokenizer), 4)
    result = stage.train(
        checkpoint, rows, rows.slice(0, 8), problem=problem, strategy=Strategy.model_validate(strategy),
        settings=Training(learning_rate=1e-2, num_train_epochs=2, batch_size=8, precision="float32", **settings),
        seed=3, scratch=scratch, name="train-test",
    )  # fmt: skip
    return result, times


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": ({"name": "lora"}, {"regularization": {"dropout": 0.0}}),
    "prefix": ({"name": "prefix"}, {}),
    "prompt tuning": ({"name": "prompt_tuning"}, {}),
    "upon a trunk": ({"name": "partial", "last_blocks": 1}, {}),
    "gradient checkpointing, in parts": ({"name": "full"}, {"gradient_checkpointing": True, "micro_batch_size": 3}),
    "R-Drop, averages and noise": (
        {"name": "full"}, {"regularization": {"r_drop": 0.5, "averaging": "ema", "adversarial": 0.1}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_stage_learns_what_it_learns_with_the_whole_block(case: str, tiny_model: TinyModel, tmp_path: Path):
    strategy, settings = CASES[case]
    results = []
    for is_narrowed in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            results.append(trained(patch, tiny_model("bert"), tmp_path / str(is_narrowed), strategy,
                                   is_narrowed=is_narrowed, **settings))  # fmt: skip
    (narrowed, times), (whole, _) = results
    assert set(times) == {"first"}
    for one, other in zip(narrowed.history, whole.history, strict=True):
        for name in {"loss", "validation_loss"} & other.keys():
            assert one[name] == pytest.approx(other[name], rel=2e-3), name


def test_reading_many_rows_gives_the_same_logits(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch):
    problem = contracts.bound(Problem.named("text_classification")())
    checkpoint = checkpoints.load(tiny_model("roberta"), problem)
    table = contracts.repeated(contracts.encoded_rows(problem, checkpoint.tokenizer), 3)
    rows = Rows.from_table(table, checkpoint.tokenizer, problem)

    def logits() -> np.ndarray:
        parts = list(forward_rows(checkpoint.model, rows, problem))
        return np.concatenate([part for _, part in parts])[np.argsort(np.concatenate([places for places, _ in parts]))]

    expected = logits()
    monkeypatch.setattr(narrowing, "FEWEST_ROWS", 1)
    applied: list[int] = []
    apply = Narrowing.apply
    monkeypatch.setattr(Narrowing, "apply", lambda self: (applied.append(1), apply(self))[1])
    np.testing.assert_allclose(logits(), expected, rtol=1e-5, atol=1e-6)
    assert len(applied) > 1  # once to look, then for each batch
    assert "forward" not in vars(block_list(checkpoint.model)[-1])
