"""Instructions: what is learned of them, what is cut, and what a fusion may choose among."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from ftlib.fusion.base import Fusion
from ftlib.models.checkpoints import Checkpoint
from ftlib.prediction import predict
from ftlib.problems._generation import Generation
from ftlib.problems.text_generation import TextGeneration
from ftlib.targets.losses import IGNORED
from tests.problems.language_models import TinyModel, batch_of, encoded, opened

PROBLEM = TextGeneration(max_length=64, max_answer_tokens=10)
ROWS = PROBLEM.examples()


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Checkpoint:
    return opened(PROBLEM, tiny_model("llama"))


def test_the_completion_and_its_end_are_learned_and_no_token_of_the_prompt(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    for row, ids, labels in zip(ROWS, rows["input_ids"].to_pylist(), rows["labels"].to_pylist(), strict=True):
        learned = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
        read = [token for token, label in zip(ids, labels, strict=True) if label == IGNORED]
        assert learned == [label for label in labels if label != IGNORED]
        assert learned[-1] == model.tokenizer.eos_token_id
        assert model.tokenizer.decode(learned[:-1]) == row["completion"]
        assert model.tokenizer.decode(read, skip_special_tokens=True) == row["prompt"] + "\n"
        assert ids == [*read, *learned]


def test_the_loss_is_transformers_own_on_these_labels(model: Checkpoint):
    batch = batch_of(encoded(PROBLEM, ROWS, model.tokenizer), model, PROBLEM)
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        logits = PROBLEM.forward(model.model, batch)
        assert len(logits) == int((batch["labels"] != IGNORED).sum())  # none is made for the prompts
        torch.testing.assert_close(PROBLEM.loss(logits, batch), model.model(**inputs).loss)


def test_a_long_prompt_keeps_its_end_and_leaves_room_for_the_completion(model: Checkpoint):
    problem = TextGeneration(max_length=24, max_answer_tokens=8)
    long = {"prompt": " ".join(["please"] * 60) + " Ask for the order number.", "completion": "What is its number?"}
    row = encoded(problem, [long], model.tokenizer).to_pylist()[0]
    assert len(row["prompt_ids"]) == 16
    assert len(row["input_ids"]) <= 24
    assert model.tokenizer.decode(row["prompt_ids"]).endswith("Ask for the order number.\n")
    served = problem.encode(pa.table({"prompt": [long["prompt"]]}), model.tokenizer)
    assert served["prompt_ids"].to_pylist() == [row["prompt_ids"]]


def test_every_fusion_of_texts_answers_with_one_of_the_members_texts(model: Checkpoint, tiny_model: TinyModel):
    problem = TextGeneration(max_length=64, max_answer_tokens=6, generation=Generation(num_beams=2, num_candidates=2))
    members = [model, opened(problem, tiny_model("llama"), seed=4)]
    rows = encoded(problem, ROWS, model.tokenizer)
    tables = [predict(member, rows, problem).table for member in members]
    values, layout = problem.align(tables, rows)
    target = problem.target.over(layout)
    gold = pa.chunked_array([[row["completion"] for row in ROWS]])
    references = target.encode(gold)
    written = [set(a) | set(b) for a, b in zip(*(t["texts"].to_pylist() for t in tables), strict=True)]
    for name in ("averaging", "voting", "minimum_bayes_risk", "greedy"):
        fused = Fusion.named(name)().fit(values, references, target, seed=0)(values, layout)
        answers = problem.answers(fused, rows, layout)["prediction"]
        assert all(text in among for text, among in zip(answers, written, strict=True)), name
