"""What makes training fast changes nothing else: rows of the embedding, masks, precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ftlib.models.layers import block_list
from ftlib.training import precision
from ftlib.training.dropout import Attention, Masks, attend, cheap_dropout, drop
from ftlib.training.embeddings import BLOCK, RowEmbedding, append_rows, learn_rows, restore


def tiny_bert(dropout: float = 0.0):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    return BertForSequenceClassification(
        BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                   hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, initializer_range=0.3)
    )  # fmt: skip


@pytest.mark.parametrize("keeps_gradient", [False, True])
def test_learning_only_the_rows_in_use_gives_what_a_dense_gradient_gives(keeps_gradient):
    dense, sparse = tiny_bert(), tiny_bert()
    used = torch.tensor([0, *range(5, 30)])
    embedding = learn_rows(sparse, used)
    embedding.covers_all = True
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2, weight_decay=0.1) for m in (dense, sparse)]
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        ids = torch.randint(5, 30, (4, 7), generator=generator)
        ids[0, 5:] = 0  # padding: the row's gradient is zero by torch's padding_idx
        labels = torch.randint(0, 2, (4,), generator=generator)
        for model, optimizer in zip((dense, sparse), optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (step + 1)
            if keeps_gradient:
                embedding.begin_step()
            for part in (slice(0, 1), slice(1, 4)):  # gradients add up
                seen = {"input_ids": ids[part], "attention_mask": (ids[part] > 0).long(), "labels": labels[part]}
                model.train()(**seen).loss.backward()
            memory = embedding.rows.grad.data_ptr() if embedding.rows.grad is not None else None
            optimizer.step()
            optimizer.zero_grad()
        if keeps_gradient:
            assert memory == embedding._gradient.data_ptr()
        embedding.decay(1e-2 / (step + 1), 0.1)
    sparse.eval(), dense.eval()
    unseen = torch.tensor([[2, 40, 7, 59]])
    torch.testing.assert_close(sparse(unseen).logits, dense(unseen).logits, atol=2e-5, rtol=1e-4)
    restore(sparse)
    for (name, a), b in zip(dense.named_parameters(), sparse.state_dict(keep_vars=True).values(), strict=False):
        if name.endswith("key.bias"):  # its gradient is zero but for rounding, which Adam makes full steps of
            continue
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)


def test_what_was_learned_is_merged_into_a_table_of_many_blocks():
    torch.manual_seed(0)
    table = nn.Embedding(2 * BLOCK + 7, 8)
    before, ids = table.weight.detach().clone(), torch.tensor([0, 5, BLOCK, 2 * BLOCK + 6])
    embedding = RowEmbedding(table, ids)
    with torch.no_grad():
        embedding.rows.add_(1)
    embedding.decay(0.5, 0.1)
    embedding.decay(0.5, 0.2)
    expected = before.double() * (0.95 * 0.9)
    expected[ids] = before[ids].double() + 1
    torch.testing.assert_close(embedding.merged().double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(table.weight, before, rtol=0, atol=0)
    for _ in range(2):  # again changes nothing
        embedding.settle()
        torch.testing.assert_close(table.weight.double(), expected, rtol=1e-6, atol=1e-6)


def test_appended_rows_leave_the_others_and_grow_the_config():
    model = tiny_bert()
    before = model.get_input_embeddings().weight.detach().clone()
    append_rows(model, 63)
    assert model.config.vocab_size == 63
    torch.testing.assert_close(model.get_input_embeddings().weight[:60], before)
    append_rows(model, 10)
    assert model.config.vocab_size == 63


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.5])
def test_cheap_masks_drop_the_share_asked_for_and_keep_the_mean(ratio):
    values = torch.ones(400, 1000)
    dropped = drop(values, ratio, Masks(3))
    share = (dropped == 0).float().mean().item()
    error = 4 * np.sqrt(ratio * (1 - ratio) / values.numel())
    assert abs(share - ratio) < error + 1 / 65536
    assert abs(dropped.mean().item() - 1) < error / (1 - ratio) + 1e-4
    rows = (dropped == 0).float()
    assert abs(np.corrcoef(rows[0], rows[1])[0, 1]) < 0.15
    assert abs((rows.mean(0).std() / np.sqrt(ratio * (1 - ratio) / 400)).item() - 1) < 0.1


def test_masks_are_a_function_of_seed_and_step():
    def mask(seed: int, step: int) -> torch.Tensor:
        masks = Masks(seed)
        masks.at_step(step)
        return masks.keep(torch.Size((64, 64)), 0.5, torch.float32)

    assert torch.equal(mask(1, 4), mask(1, 4))
    assert not torch.equal(mask(1, 4), mask(1, 5))
    assert not torch.equal(mask(1, 4), mask(2, 4))


def test_the_backward_pass_uses_the_mask_of_the_forward_pass():
    values = torch.randn(50, 40, requires_grad=True)
    dropped = drop(values, 0.3, Masks(1))
    dropped.sum().backward()
    torch.testing.assert_close(values.grad * values.detach(), dropped.detach())


def test_cheap_dropout_leaves_the_model_as_it_was_and_is_off_in_evaluation():
    model = tiny_bert(0.3)
    ids = torch.randint(5, 59, (3, 9))
    expected = model.eval()(ids).logits
    with cheap_dropout(model, 1) as masks:
        assert torch.equal(model.eval()(ids).logits, expected)
        model.train()
        masks.at_step(0)
        first = model(ids).logits
        masks.at_step(0)
        assert torch.equal(model(ids).logits, first)
        assert not torch.allclose(first, expected)
        with masks.off():
            torch.testing.assert_close(model(ids).logits, expected)
    assert torch.equal(model.eval()(ids).logits, expected)
    assert model.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(m) for m in model.modules())


def test_attention_with_cheap_dropout_is_torchs_own_where_nothing_is_dropped():
    query, key, value = (torch.randn(2, 4, 6, 8) for _ in range(3))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[1, :, :, 4:] = False
    ours, _ = attend(nn.Module(), query, key, value, mask, masks=Masks(0), dropout=1e-9)
    theirs = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mask", [None, "bool", "added"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_gradients_are_those_of_the_formula(mask, dtype):
    torch.manual_seed(0)
    states = [torch.randn(2, 6, 4, 8, dtype=dtype).requires_grad_() for _ in range(3)]
    allowed = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    allowed[1, :, :, 4:] = False
    given = {None: None, "bool": allowed, "added": torch.zeros(allowed.shape).masked_fill(~allowed, -1e4)}[mask]
    kept = Masks(5).keep(torch.Size((2, 4, 6, 6)), 0.3, dtype)
    found = Attention.apply(*(s.transpose(1, 2) for s in states), given, kept, 0.4)
    exact = [s.detach().double().requires_grad_() for s in states]
    query, key, value = (s.transpose(1, 2) for s in exact)
    scores = 0.4 * query @ key.transpose(2, 3)
    scores = scores if mask is None else scores.masked_fill(~allowed, -torch.inf)
    expected = (scores.softmax(-1) * kept.double()) @ value
    weights = torch.randn(expected.shape, dtype=torch.float64)
    (found.double() * weights).sum().backward()
    (expected * weights).sum().backward()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip([found, *(s.grad for s in states)], [expected, *(s.grad for s in exact)], strict=True):
        assert (one.double() - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_hidden_states_in_bfloat16_cost_little_more_than_autocast_alone(kind):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 128}
    config = AutoConfig.for_model(kind, vocab_size=60, pad_token_id=1, initializer_range=0.1, **sizes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 59, (8, 12))
    seen: set[torch.dtype] = set()
    block_list(model)[-1].register_forward_pre_hook(lambda block, arguments: seen.add(arguments[0].dtype))

    def gradient(kind: precision.Precision) -> torch.Tensor:
        model.zero_grad()
        with precision.autocast(precision.resolve(kind)):
            model(ids, labels=torch.arange(8) % 2).loss.float().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, alone = gradient("float32"), gradient("bfloat16")
    assert seen == {torch.float32}
    with precision.bfloat16_states(model):
        assert torch.equal(gradient("float32"), exact)
        assert seen == {torch.float32}
        lowered = gradient("bfloat16")
    assert torch.bfloat16 in seen
    assert (lowered - exact).norm() < 2 * (alone - exact).norm() + 1e-3 * exact.norm()
    assert torch.equal(gradient("bfloat16"), alone)


def test_precision_auto_is_a_property_of_the_machine():
    assert precision.resolve("float32") == "float32"
    assert precision.resolve("bfloat16") == "bfloat16"
    assert precision.resolve("auto") == precision.resolve("auto")
    with precision.autocast("bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with precision.autocast("float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_copied_model_trains_alone():
    model = tiny_bert()
    other = copy.deepcopy(model)
    learn_rows(other, torch.arange(5))
    assert isinstance(model.get_input_embeddings(), nn.Embedding)
