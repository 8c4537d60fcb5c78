"""Rows of two lengths laid end to end: the same logits and gradients as padded rows, on many architectures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.models.layers import block_list
from ftlib.models.observing import Observer
from ftlib.training import unpadding
from ftlib.training.batches import BatchSize, training_batches
from ftlib.training.dropout import cheap_dropout
from ftlib.training.unpadding import Unpadding, parts_of
from tests.training.test_narrowing import gradients, model_of, reading, rows_of


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_parts_hold_every_row_and_the_fewest_places(lengths):
    parts = parts_of(torch.tensor(lengths))
    assert (parts[0].start, parts[-1].stop) == (0, len(lengths))
    assert all(one.stop == other.start for one, other in pairwise(parts))
    assert all(max(lengths[p.start : p.stop]) == p.length for p in parts)
    whole = len(lengths) * max(lengths)
    cuts = [c * max(lengths[:c]) + (len(lengths) - c) * max(lengths[c:]) for c in range(1, len(lengths))]
    assert sum((p.stop - p.start) * p.length for p in parts) == min([whole, *cuts])


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(2, 9), st.integers(0, 5), st.integers(0, 3))
def test_batches_of_two_lengths_hold_every_row_once(count, num_rows, seed, epoch):
    lengths = np.random.default_rng(count).integers(3, 60, count)
    batches = training_batches(lengths, BatchSize(num_rows, num_lengths=2), seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert len(batches) == BatchSize(num_rows).number(lengths)
    assert sorted(map(len, batches))[1:] == [num_rows] * (len(batches) - 1)


def test_batches_of_two_lengths_carry_little_padding_and_their_mean_lengths_are_alike():
    lengths = np.random.default_rng(0).gamma(2.0, 12.0, 4000).astype(int).clip(3, 128)
    batches = training_batches(lengths, BatchSize(32, num_lengths=2), seed=1, epoch=0)
    places = sum(sum((p.stop - p.start) * p.length for p in parts_of(torch.from_numpy(lengths[b]))) for b in batches)
    assert places < 1.12 * lengths.sum()
    alone = training_batches(lengths, BatchSize(32), seed=1, epoch=0)
    spread, spread_alone = (np.std([lengths[b].mean() for b in found]) for found in (batches, alone))
    assert spread < 0.75 * spread_alone


USED = {
    "bert": True, "roberta": True, "distilbert": True, "electra": True, "modernbert": True, "gpt2": True, "llama": True,
    "albert": True, "deberta-v2": False,
}  # fmt: skip
TASKS = [(kind, "SequenceClassification", False) for kind in USED]
TASKS += [("bert", "TokenClassification", side) for side in (False, True)]
TASKS += [(kind, task, True) for kind in ("gpt2", "llama") for task in ("SequenceClassification", "CausalLM")]


@pytest.mark.parametrize(("kind", "task", "pad_left"), TASKS)
def test_logits_and_gradients_are_those_of_padded_rows(kind: str, task: str, pad_left: bool):
    model, rows = model_of(kind, task), replace(rows_of(), pad_left=pad_left)
    order = np.argsort(rows.lengths, kind="stable")
    batch = rows.batch(np.concatenate([order[:5], order[8:]]))

    def read(batch):
        logits = model(**batch).logits
        return logits[batch["attention_mask"].bool()] if logits.shape[:2] == batch["input_ids"].shape else logits

    with cheap_dropout(model, 1) as masks, masks.off():
        is_used = unpadding.is_right(model, rows, read, list(model.parameters()))
        assert is_used == USED[kind]
        if not is_used:
            return
        expected = read(batch)
        wanted = gradients(model, expected)
        seen: list[tuple[int, ...]] = []
        blocks = block_list(model)
        parts = Unpadding(blocks, pad_left=pad_left)
        parts.take(batch)
        parts.apply()
        watching = blocks[-1].register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[:2])))
        logits = read(batch)
        got = gradients(model, logits)
        parts.lift()
        watching.remove()
    lengths = batch["attention_mask"].sum(1)
    assert set(seen) == {(1, sum((p.stop - p.start) * p.length for p in parts_of(lengths)))}
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, wanted[name], atol=2e-6 * largest, rtol=1e-4, msg=name)
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in blocks)


def test_a_head_that_reads_padding_and_a_block_that_is_watched_keep_padded_rows():
    model = model_of("bert")
    with cheap_dropout(model, 1) as masks, masks.off():
        assert not unpadding.is_right(model, replace(rows_of(), pad_left=True), reading(model), [])
        assert unpadding.is_right(model, rows_of(), reading(model), [])
        with Observer(model, hidden=[1]):
            assert not unpadding.is_right(model, rows_of(), reading(model), [])
