"""Batches hold every row once, go by length, and are a function of seed and epoch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.problems.base import Problem
from ftlib.training.batches import BatchSize, Rows, SimilarLengthSampler, reading_batches, training_batches
from tests.conftest import tiny_tokenizer

TOKENIZER = tiny_tokenizer("bert")
LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(np.array)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_holds_every_row_once_in_batches_of_the_size_asked_for(lengths, batch_size, seed, epoch):
    batches = training_batches(lengths, BatchSize(batch_size), seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    sizes = sorted(map(len, batches), reverse=True)
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= batch_size
    assert len(batches) == len(SimilarLengthSampler(lengths, BatchSize(batch_size), seed))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(1, 2000), st.integers(0, 9))
def test_batches_within_a_number_of_tokens_hold_every_row_once_and_are_as_many_in_every_epoch(
    lengths, rows, tokens, seed
):
    size = BatchSize(rows, tokens)
    for epoch in range(3):
        batches = training_batches(lengths, size, seed=seed, epoch=epoch)
        assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
        assert all(len(b) == 1 or len(b) * lengths[b].max() <= tokens for b in batches)
        assert all(len(b) <= rows for b in batches)
        assert len(batches) == size.number(lengths)


def test_batches_within_a_number_of_tokens_are_nearly_full():
    lengths = np.random.default_rng(0).gamma(2.0, 12.0, 4000).astype(int).clip(3, 128)
    batches = training_batches(lengths, BatchSize(10_000, 1024), seed=1, epoch=0)
    assert lengths.sum() / len(batches) > 0.83 * 1024
    assert max(map(len, batches)) > 4 * min(map(len, batches))


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(64, 2000))
def test_reading_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = reading_batches(lengths, budget)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= budget for b in batches)


def test_batches_are_the_same_for_the_same_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    draw = [training_batches(lengths, BatchSize(32), seed=s, epoch=e) for s, e in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert all(np.array_equal(a, b) for a, b in zip(draw[0], draw[1], strict=True))
    composition = [{tuple(sorted(batch)) for batch in batches} for batches in draw]
    assert len(composition[0] & composition[2]) < 3
    assert len(composition[0] & composition[3]) < 3


def test_batches_of_similar_length_carry_little_padding():
    lengths = np.random.default_rng(0).gamma(2.0, 12.0, 4000).astype(int).clip(3, 128)
    batches = training_batches(lengths, BatchSize(32), seed=1, epoch=0)
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded < 1.08 * lengths.sum()


def test_the_order_of_batches_does_not_follow_their_length():
    lengths = np.arange(3200) // 10 + 1
    first = [lengths[b].mean() for b in training_batches(lengths, BatchSize(32), seed=1, epoch=0)]
    assert abs(np.corrcoef(first, range(len(first)))[0, 1]) < 0.35


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(5, 90), min_size=1, max_size=12), min_size=1, max_size=9), st.booleans())
def test_a_padded_batch_holds_each_rows_tokens_and_marks_them(rows, left):
    tokenizer = TOKENIZER
    tokenizer.padding_side = "left" if left else "right"
    table = pa.table({
        "row_id": range(len(rows)),
        "input_ids": pa.array(rows, pa.list_(pa.int32())),
        "token_type_ids": pa.array([[1] * len(r) for r in rows], pa.list_(pa.int8())),
        "labels": np.arange(len(rows)),
    })  # fmt: skip
    chosen = np.arange(len(rows))[::-1]
    batch = Rows.from_table(table, tokenizer, Problem.named("text_classification")()).batch(chosen)
    width = max(map(len, rows))
    assert batch["input_ids"].shape == (len(rows), width)
    for i, index in enumerate(chosen):
        mask = batch["attention_mask"][i].bool()
        assert batch["input_ids"][i][mask].tolist() == rows[index]
        assert set(batch["input_ids"][i][~mask].tolist()) <= {tokenizer.pad_token_id}
        assert batch["token_type_ids"][i][mask].tolist() == [1] * len(rows[index])
        assert bool(mask[0]) if not left else bool(mask[-1])
    assert batch["labels"].tolist() == chosen.tolist()
