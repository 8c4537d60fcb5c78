"""Conversations: whose turn it is, which tokens are learned, and answers as the model writes them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from ftlib.data.clean import Cleaning, clean
from ftlib.data.encode import encode
from ftlib.errors import CheckpointError
from ftlib.models.checkpoints import Checkpoint, load_tokenizer
from ftlib.prediction import predict
from ftlib.problems import _causal, _chat
from ftlib.problems.dialogue import Dialogue
from ftlib.strategies.base import Strategy
from ftlib.targets.losses import IGNORED
from tests.problems.language_models import TinyModel, batch_of, encoded, opened

PROBLEM = Dialogue(max_length=96, max_answer_tokens=12)
LONG = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Is my parcel lost?"},
    {"role": "assistant", "content": "No, it is late."},
    {"role": "user", "content": "When does it come?"},
    {"role": "assistant", "content": "On Monday."},
]
ROWS = [{"messages": LONG}, *PROBLEM.examples()]
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The ChatML template of many hub models: it marks no answers."""


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Checkpoint:
    return opened(PROBLEM, tiny_model("llama"))


def chatml(tiny_model: TinyModel, family: str = "gpt2"):
    """Return a tokenizer that has ChatML's tokens and template."""
    tokenizer = load_tokenizer(tiny_model(family))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = PLAIN
    return tokenizer


# -- whose turn it is ----------------------------------------------------------------------------------


def said(*turns: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant", "b": "bot"}
    return [{"role": roles[turn], "content": "Hello."} for turn in turns]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (said("u", "a", "a"), "out of turn: message 3 is the assistant's, expected the user's"),
        (said("u", "u", "a"), "out of turn: message 2 is the user's, expected the assistant's"),
        (said("a"), "out of turn: message 1 is the assistant's, expected the user's"),
        (said("u", "s", "a"), "out of turn: message 2 is the system's, expected the assistant's"),
        (said("u", "b"), "unknown role 'bot' in message 2"),
        (said("u"), "no answer: the user has the last word"),
        (said("s"), "no user's message"),
        ([], "no user's message"),
        ([*said("u"), {"role": "assistant", "content": "  "}], "empty message 2"),
        (None, "empty messages"),
    ],
)
def test_a_conversation_out_of_turn_is_rejected_with_its_reason(messages, reason: str):
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    rows = pa.table({
        "row_id": [0, 1, 2],
        "split": ["all"] * 3,
        "messages": pa.array([messages, said("s", "u", "a"), said("u", "a")], kind),
    })  # fmt: skip
    cleaned = clean(rows, PROBLEM, Cleaning())
    assert len(cleaned.table) == 2
    assert cleaned.rejected["reason"].to_pylist() == [reason]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not JSON", "messages are no JSON list"),
        ('{"role": "user"}', "messages are not a list of objects with role and content"),
        ("[1, 2]", "messages are not a list of objects with role and content"),
        (json.dumps(LONG), None),
    ],
)
def test_conversations_come_as_json_text_too(text: str, reason: str | None):
    messages, reasons = PROBLEM.read_labels(pa.table({"messages": [text]}))
    assert reasons.to_pylist() == [reason]
    if reason is None:
        assert messages.to_pylist() == [LONG]


# -- which tokens are learned --------------------------------------------------------------------------


def test_the_answers_tokens_are_learned_and_no_other_token_by_token(model: Checkpoint):
    row = encoded(PROBLEM, [{"messages": LONG}], model.tokenizer).to_pylist()[0]
    runs: list[tuple[bool, list[int]]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (token, IGNORED)
        learned = label != IGNORED
        if not runs or runs[-1][0] != learned:
            runs.append((learned, []))
        runs[-1][1].append(token)
    assert [(learned, model.tokenizer.decode(tokens)) for learned, tokens in runs] == [
        (False, "<s><|system|>Be kind.<|end|><|user|>Is my parcel lost?<|end|><|assistant|>"),
        (True, "No, it is late.<|end|>"),
        (False, "<|user|>When does it come?<|end|><|assistant|>"),
        (True, "On Monday.<|end|>"),
    ]


def test_the_tokens_are_those_of_the_tokenizer_s_own_template(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    for row, ids, prompt in zip(ROWS, rows["input_ids"].to_pylist(), rows["prompt_ids"].to_pylist(), strict=True):
        whole = model.tokenizer.apply_chat_template(row["messages"])["input_ids"]
        asked = model.tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True)["input_ids"]
        assert ids == whole
        assert prompt == asked
        assert whole[: len(asked)] == asked


def test_a_template_without_marks_is_told_apart_by_its_prompts(tiny_model: TinyModel):
    tokenizer = chatml(tiny_model)
    turns = _chat.lay_out(tokenizer, LONG, None)
    marked = PLAIN.replace(
        "{{ m.content }}<|im_end|>",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '' }}",  # Jinja drops the line break after a block
    )
    assert turns == _chat.lay_out(tokenizer, LONG, marked)
    learned = [token for token, answer in zip(turns.ids, turns.is_answer, strict=True) if answer]
    assert tokenizer.decode(learned) == "No, it is late.<|im_end|>On Monday.<|im_end|>"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in _chat.end_tokens(tokenizer, None)


def test_a_tokenizer_without_a_template_is_one_clear_line_unless_the_params_give_one(tiny_model: TinyModel):
    tokenizer = load_tokenizer(tiny_model("gpt2"))
    table = pa.table({"row_id": [1], "messages": [LONG]})
    with pytest.raises(CheckpointError, match=r"needs a tokenizer with a chat template.*problem\.template"):
        encode(table, PROBLEM, tokenizer)
    encode(table, Dialogue(template=PLAIN), tokenizer)
    with pytest.raises(CheckpointError, match=r"lays a message out otherwise when others follow"):
        encode(table, Dialogue(template="{{ messages | length }}{{ messages[-1].content }}"), tokenizer)


def test_a_long_conversation_loses_its_oldest_exchanges_and_keeps_the_system_s_word(model: Checkpoint):
    many = [LONG[0], *(LONG[1:3] * 6), *LONG[3:]]
    problem = Dialogue(max_length=48, max_answer_tokens=8)
    row = encoded(problem, [{"messages": many}], model.tokenizer).to_pylist()[0]
    text = model.tokenizer.decode(row["input_ids"])
    assert text.startswith("<s><|system|>Be kind.<|end|><|user|>Is my parcel lost?")
    assert text.endswith("<|assistant|>On Monday.<|end|>")
    assert 30 < len(row["input_ids"]) <= 48


def test_the_loss_is_transformers_own_on_these_labels(model: Checkpoint):
    batch = batch_of(encoded(PROBLEM, ROWS, model.tokenizer), model, PROBLEM)
    with torch.no_grad():
        found = PROBLEM.loss(PROBLEM.forward(model.model, batch), batch)
        inputs = {n: batch[n] for n in ("input_ids", "attention_mask", "labels")}
        torch.testing.assert_close(found, model.model(**inputs).loss)


def test_perplexity_is_of_all_answers_tokens(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    total, number = 0.0, 0
    for row in rows.to_pylist():
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.no_grad():
            loss = model.model(input_ids=ids, labels=labels).loss
        tokens = int((labels != IGNORED).sum())
        total, number = total + float(loss) * tokens, number + tokens
    expected = np.exp(total / number)
    assert PROBLEM.measure(model, rows)["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert PROBLEM.own_metrics(predict(model, rows, PROBLEM).table)["perplexity"] == pytest.approx(expected, rel=1e-5)


# -- writing -------------------------------------------------------------------------------------------


def by_hand(problem: Dialogue, checkpoint: Checkpoint, prompt: list[int], room: int, ends: list[int]) -> list[int]:
    """Write greedily, token by token, with the very forward pass that training uses: no cache, no padding."""
    written: list[int] = []
    while len(written) < room:
        ids = [*prompt, *written, 0]
        labels = [*[IGNORED] * (len(ids) - 1), 0]
        kind = pa.list_(pa.int32())
        table = pa.table({"input_ids": pa.array([ids], kind), "labels": pa.array([labels], kind)})
        with torch.no_grad():
            logits = problem.forward(checkpoint.model, batch_of(table, checkpoint, problem))
        written.append(int(logits[0].argmax()))
        if written[-1] in ends:
            break
    return written


@pytest.mark.parametrize("strategy", ["full", "prompt_tuning", "prefix"])
def test_greedy_answers_are_what_the_trained_forward_pass_says_token_by_token(strategy, tiny_model: TinyModel):
    checkpoint = opened(PROBLEM, tiny_model("llama"))
    if strategy != "full":
        adapted = Strategy.named(strategy)(num_virtual_tokens=4).adapt(checkpoint.model, PROBLEM)
        checkpoint = Checkpoint(adapted.eval(), checkpoint.tokenizer)
    rows = encoded(PROBLEM, ROWS, checkpoint.tokenizer)
    ends = _chat.end_tokens(checkpoint.tokenizer, None)
    found = predict(checkpoint, rows, PROBLEM).table
    for prompt, texts in zip(rows["prompt_ids"].to_pylist(), found["texts"].to_pylist(), strict=True):
        written = by_hand(PROBLEM, checkpoint, prompt, 12, ends)
        plain = [token for token in written if token not in ends]
        assert texts[0] == checkpoint.tokenizer.decode(plain, skip_special_tokens=True).strip()


def test_a_row_is_answered_alike_alone_and_among_others_and_without_its_gold_answer(model: Checkpoint):
    problem = PROBLEM.model_copy(
        update={"generation": PROBLEM.generation.model_copy(update={"num_beams": 3, "num_candidates": 3})}
    )
    together = predict(model, encoded(problem, ROWS, model.tokenizer), problem).table.to_pylist()
    for row, answered in zip(ROWS, together, strict=True):
        raw = pa.table({"messages": [row["messages"][:-1]]})
        alone = problem.encode(raw, model.tokenizer).append_column("row_id", pa.array([0], pa.int64()))
        found = predict(model, alone, problem).table.to_pylist()[0]
        assert found["texts"] == answered["texts"]
        assert found["support"] == pytest.approx(answered["support"], rel=1e-4)
        assert found[_causal.LOSS] is None


def test_a_client_gets_the_message_that_the_conversation_goes_on_with(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    values, layout = PROBLEM.align([predict(model, rows, PROBLEM).table], rows)
    told = PROBLEM.answers(values[0], rows, layout)
    assert told["message"][0] == {"role": "assistant", "content": told["prediction"][0]}


def test_a_student_learns_its_teacher_s_answers_beside_the_gold_ones(model: Checkpoint):
    rows = encoded(PROBLEM, ROWS, model.tokenizer)
    table = predict(model, rows, PROBLEM).table
    taught = PROBLEM.teach(rows, [table], model.tokenizer)
    batch = batch_of(taught, model, PROBLEM)
    with torch.no_grad():
        logits = PROBLEM.forward(model.model, batch)
        plain = {"input_ids": batch["teacher_input_ids"].clamp_min(0), "labels": batch["teacher_labels"]}
        mask = (batch["teacher_input_ids"] >= 0).long()
        expected = model.model(**plain, attention_mask=mask).loss
        torch.testing.assert_close(PROBLEM.distillation_loss(logits, batch, 2.0), expected)
        gold = PROBLEM.forward(model.model, {n: v for n, v in batch.items() if not n.startswith("teacher")})
        torch.testing.assert_close(PROBLEM.loss(logits, batch), PROBLEM.loss(gold, batch))
