"""Rows of several lengths laid end to end: the same logits and gradients as padded rows, on many architectures."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PrefixTuningConfig, get_peft_model

from ftlib.models.layers import block_list
from ftlib.models.observing import Observer
from ftlib.models.peft_models import keep_hooks
from ftlib.training import unpadding
from ftlib.training.batches import BatchSize, training_batches
from ftlib.training.dropout import cheap_dropout
from ftlib.training.unpadding import Unpadding, parts_of
from tests.training.test_narrowing import gradients, model_of, reading, rows_of


def cost(groups, part_cost):
    """Return what parts cost: places, and as many as `part_cost` a part."""
    return sum(len(group) * max(group) + part_cost for group in groups)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(0, 20))
def test_parts_hold_every_row_and_cost_least(tokens, part_cost):
    parts = parts_of(torch.tensor(tokens), part_cost)
    lengths = [max(1, number) for number in tokens]
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(len(lengths)))
    groups = [[lengths[row] for row in part.rows] for part in parts]
    assert [max(group) for group in groups] == [part.length for part in parts]
    ordered = sorted(lengths)
    cuts = chain.from_iterable(combinations(range(1, len(lengths)), n) for n in range(len(lengths)))
    ways = ([ordered[i:j] for i, j in pairwise((0, *cut, len(lengths)))] for cut in cuts)
    assert cost(groups, part_cost) == min(cost(way, part_cost) for way in ways)


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
    places = sum(sum(part.num_places for part in parts_of(torch.from_numpy(lengths[b]))) for b in batches)
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
    batch = rows.batch(np.random.default_rng(1).permutation(np.concatenate([order[:5], order[8:]])))

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
        parts = Unpadding(blocks, pad_left=pad_left, part_cost=2)
        parts.take(batch)
        assert len(parts.taken) > 2
        parts.apply()
        watching = blocks[-1].register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[:2])))
        logits = read(batch)
        got = gradients(model, logits)
        parts.lift()
        watching.remove()
    lengths = batch["attention_mask"].sum(1)
    assert set(seen) == {(1, sum(part.num_places for part in parts_of(lengths, 2)))}
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, wanted[name], atol=2e-6 * largest, rtol=1e-4, msg=name)
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in blocks)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("kind", "pad_left"), [("bert", False), ("roberta", False), ("gpt2", True), ("llama", False)])
def test_a_prefix_stands_before_each_row_of_a_part(kind: str, pad_left: bool, first: int):
    inner, rows = model_of(kind), replace(rows_of(), pad_left=pad_left)
    config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    model = keep_hooks(inner, lambda plain: get_peft_model(plain, config)).eval()
    torch.nn.init.normal_(model.prompt_encoder.default.embedding.weight)
    learning, batch = [p for p in model.parameters() if p.requires_grad], rows.batch(np.arange(12))
    with cheap_dropout(model, 1) as masks, masks.off():
        assert unpadding.is_right(model, rows, reading(model), learning)
        expected = model(**batch).logits
        wanted = gradients(model, expected)
        parts = Unpadding(block_list(inner)[first:], pad_left=pad_left, first=first, part_cost=2)
        parts.take(batch)
        parts.apply()
        logits = model(**batch).logits
        got = gradients(model, logits)
        parts.lift()
    assert parts.is_used
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert got.keys() == wanted.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, wanted[name], atol=2e-5, rtol=1e-4, msg=name)
    assert any(float(gradient.abs().max()) > 0.01 for name, gradient in got.items() if "prompt_encoder" in name)


def test_a_head_that_reads_padding_and_a_block_that_is_watched_keep_padded_rows():
    model = model_of("bert")
    with cheap_dropout(model, 1) as masks, masks.off():
        assert not unpadding.is_right(model, replace(rows_of(), pad_left=True), reading(model), [])
        assert unpadding.is_right(model, rows_of(), reading(model), [])
        with Observer(model, hidden=[1]):
            assert not unpadding.is_right(model, rows_of(), reading(model), [])
