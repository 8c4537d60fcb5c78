"""Raw texts token by token: nothing lost in long ones, and perplexity as transformers has it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from ftlib.models.checkpoints import Checkpoint
from ftlib.prediction import predict
from ftlib.problems.causal_language_modeling import CausalLanguageModeling
from ftlib.targets.losses import IGNORED
from tests.problems.language_models import TinyModel, batch_of, encoded, opened

PROBLEM = CausalLanguageModeling(max_length=16)
ROWS = PROBLEM.examples()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Checkpoint:
    return opened(PROBLEM, tiny_model(request.param))


def test_long_texts_go_on_in_further_lines_and_every_token_is_predicted_once(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    assert len(rows) > len(ROWS)
    assert max(map(len, rows["input_ids"].to_pylist())) <= 16
    learned: dict[int, list[int]] = {}
    for row_id, labels in zip(rows["row_id"].to_pylist(), rows["labels"].to_pylist(), strict=True):
        learned.setdefault(row_id, []).extend(label for label in labels if label != IGNORED)
    for row, tokens in zip(ROWS, learned.values(), strict=True):
        assert model.tokenizer.decode(tokens, skip_special_tokens=True) == row["text"]
        assert tokens[-1] == model.tokenizer.eos_token_id


def test_the_loss_is_transformers_own(model: Checkpoint):
    batch = batch_of(encoded(PROBLEM, ROWS, model.tokenizer), model, PROBLEM)
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        found = PROBLEM.loss(PROBLEM.forward(model.model, batch), batch)
        torch.testing.assert_close(found, model.model(**inputs).loss)


def test_a_text_s_perplexity_is_what_its_own_tokens_say(model: Checkpoint):
    problem = PROBLEM.model_copy(update={"max_length": 64})
    rows = encoded(problem, ROWS, model.tokenizer)
    values, layout = problem.align([predict(model, rows, problem).table], rows)
    told = problem.answers(values[0], rows, layout)
    for ids, perplexity, number in zip(
        rows["input_ids"].to_pylist(), told["prediction"], told["num_tokens"], strict=True
    ):
        given = torch.tensor([ids])
        with torch.no_grad():
            loss = model.model(input_ids=given, labels=given).loss
        assert perplexity == pytest.approx(float(torch.exp(loss)), rel=1e-4)
        assert number == len(ids) - 1


def test_predictions_have_one_line_a_row_and_teach_each_line_its_own_places(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    table = predict(model, rows, PROBLEM).table
    assert table["row_id"].to_pylist() == list(dict.fromkeys(rows["row_id"].to_pylist()))
    places = {row: i for i, row in enumerate(table["row_id"].to_pylist())}
    taught = PROBLEM.teach(rows, [table.take(pa.array([places[r] for r in rows["row_id"].to_pylist()]))])
    batch = batch_of(taught, model, PROBLEM)
    with torch.no_grad():
        logits = PROBLEM.forward(model.model, batch)
    top = logits.log_softmax(-1).topk(PROBLEM.num_candidates)
    counts = (batch["labels"] != IGNORED).sum(1) * PROBLEM.num_candidates
    flat = [row[:n] for row, n in zip(batch["teacher_log_probabilities"], counts.tolist(), strict=True)]
    torch.testing.assert_close(torch.cat(flat), top.values.flatten(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["prompt_tuning", "prefix"])
def test_virtual_tokens_come_before_what_they_are_to_change(strategy: str, tiny_model: TinyModel, tmp_path):
    """The logits of a text behind virtual tokens are those of plain transformers that is given them by hand."""
    from ftlib.models.virtual_tokens import attached, detach
    from ftlib.strategies.base import Strategy

    checkpoint = opened(PROBLEM, tiny_model("llama"))
    model = Strategy.named(strategy)(num_virtual_tokens=3).adapt(checkpoint.model, PROBLEM).eval()
    batch = batch_of(encoded(PROBLEM, ROWS[:4], checkpoint.tokenizer), checkpoint, PROBLEM)
    with torch.no_grad():
        found = PROBLEM.forward(model, batch)
        labels = batch["labels"]
        if strategy == "prefix":
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            expected = logits[:, :-1][labels[:, 1:] != IGNORED]
        else:
            virtual = attached(model)
            detach(model)
            ids = torch.tensor(virtual.ids).expand(len(labels), -1)
            at = virtual.position
            whole = torch.cat((batch["input_ids"][:, :at], ids, batch["input_ids"][:, at:]), 1)
            mask = torch.cat((torch.ones_like(ids), batch["attention_mask"]), 1)
            logits = model(input_ids=whole, attention_mask=mask).logits[:, len(virtual.ids) :]
            # the token at `position` is predicted from the last virtual token, those after it from the one before
            expected = logits[:, :-1][labels[:, 1:] != IGNORED]
            expected[:, list(virtual.ids)] = found[:, list(virtual.ids)]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
