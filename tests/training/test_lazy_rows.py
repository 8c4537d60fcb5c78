"""Rows of the word embeddings that wait until a batch reads them end where the dense AdamW has them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ftlib.training import trainer
from ftlib.training.embeddings import RowEmbedding
from ftlib.training.lazy_rows import WINDOW, LazyAdamW
from tests.training.test_resumption import differing, finish, interrupt_after, newest

NUM_ROWS, WIDTH = 40, 8


def embedding(lazy: bool, *, eps: float, max_steps: int, dtype: torch.dtype = torch.float64):
    """Return an embedding all of whose rows learn, and its optimizer."""
    torch.manual_seed(0)
    found = RowEmbedding(nn.Embedding(NUM_ROWS, WIDTH, padding_idx=0, dtype=dtype), torch.arange(NUM_ROWS))
    found.covers_all = True
    groups = [{"params": [found.rows], "lr": 1e-2, "weight_decay": 0.1, "eps": eps}]
    return found, LazyAdamW(groups, 1e-2, found, max_steps) if lazy else torch.optim.AdamW(groups, fused=True)


def learn(found: RowEmbedding, optimizer: torch.optim.Optimizer, read: list[list[Tensor]]) -> None:
    """Take steps, each of some forward passes, with falling rates and clipped gradients."""
    generator = torch.Generator().manual_seed(1)
    for number, passes in enumerate(read):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - number / len(read))
        found.train().begin_step()
        for ids in passes:
            weights = torch.randn(*ids.shape, WIDTH, generator=generator, dtype=found.rows.dtype)
            (found(ids) * weights).sum().backward()
        nn.utils.clip_grad_norm_([found.rows, *found.in_their_stead()], 0.5)
        optimizer.step()
        optimizer.zero_grad()


def batches(steps: int, passes: int = 1) -> list[list[Tensor]]:
    """Return ids for each pass of each step: low ones at nearly all, the highest at few; 0 is padding."""
    generator = torch.Generator().manual_seed(2)
    draws = torch.rand(steps, passes, 3, 4, generator=generator)
    return [list((draw**4 * (NUM_ROWS - 1)).long()) for draw in draws]


def both(read: list[list[Tensor]], **kind) -> tuple[Tensor, Tensor]:
    """Return all rows as dense and as lazy steps leave them."""
    found = []
    for lazy in (False, True):
        model, optimizer = embedding(lazy, max_steps=len(read), **kind)
        learn(model, optimizer, read)
        found.append(model.merged())
    return found[0], found[1]


@pytest.mark.parametrize("passes", [1, 3])
def test_lazy_rows_end_where_dense_ones_do(passes):
    dense, lazy = both(batches(50, passes), eps=1e-30)
    torch.testing.assert_close(lazy, dense, rtol=1e-12, atol=1e-12)


def test_eps_is_met_but_for_what_is_of_second_order():
    dense, lazy = both(batches(50), eps=1e-8)
    torch.testing.assert_close(lazy, dense, rtol=1e-9, atol=1e-9)
    dense, lazy = both(batches(50), eps=1e-4)  # against gradients of 0.05 and their square roots of moments of 0.002
    torch.testing.assert_close(lazy, dense, rtol=0, atol=1e-4)
    assert not torch.allclose(lazy, both(batches(50), eps=1e-30)[1], rtol=0, atol=1e-4)


def test_float32_differs_by_rounding_alone():
    dense, lazy = both(batches(50), eps=1e-8, dtype=torch.float32)
    torch.testing.assert_close(lazy, dense, rtol=1e-5, atol=2e-6)


def test_a_row_can_wait_longer_than_its_moments_last():
    first, last = [torch.tensor([[1, 2, 3]])], [torch.tensor([[3]])]
    read = [first, *[[torch.tensor([[1]])]] * (WINDOW + 100), last]
    dense, lazy = both(read, eps=1e-30)
    torch.testing.assert_close(lazy, dense, rtol=1e-10, atol=1e-10)


def test_looking_at_rows_changes_nothing_and_shows_them_as_they_are_by_now():
    read = batches(30)
    model, optimizer = embedding(True, eps=1e-8, max_steps=60)
    other, others = embedding(True, eps=1e-8, max_steps=60)
    dense, denses = embedding(False, eps=1e-8, max_steps=60)
    for one, two in ((model, optimizer), (other, others), (dense, denses)):
        learn(one, two, read)
    ids = torch.arange(NUM_ROWS).view(4, -1)
    shown = model.eval()(ids)
    torch.testing.assert_close(shown, dense.eval()(ids), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shown.detach().flatten(0, 1), model.weight, rtol=0, atol=0)
    gradient = torch.autograd.grad(shown.sum(), model.rows)[0]
    assert (gradient[0] == 0).all()  # padding
    assert (gradient[1:] > 0.9).all()  # one, but for decay
    for one, two in ((model, optimizer), (other, others)):
        learn(one, two, read)
    assert torch.equal(model.rows, other.rows)
    model.lazy.catch_up()
    torch.testing.assert_close(model.rows, other.merged(), rtol=1e-12, atol=1e-12)


def test_a_step_without_rows_counts_as_one():
    nothing = [torch.zeros(1, 0, dtype=torch.long)]
    dense, lazy = both([*batches(5), nothing, *batches(5)], eps=1e-30)
    torch.testing.assert_close(lazy, dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strategy", ["full", "gradual_unfreezing"])
def test_a_stage_of_lazy_rows_ends_as_a_dense_one_and_resumes(strategy, tiny_model, tmp_path, monkeypatch):
    start = tiny_model("bert", 0.1)
    finish(start, tmp_path / "scratch-dense", tmp_path / "dense", strategy)
    monkeypatch.setattr(trainer, "FEWEST", 0)
    lazy = finish(start, tmp_path / "scratch-lazy", tmp_path / "lazy", strategy)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("dense", "lazy")]
    for name, value in weights[0].items():
        if name.endswith("key.bias"):  # its gradient is zero but for rounding, which Adam makes full steps of
            continue
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
    interrupt_after(7, start, tmp_path / "scratch", tmp_path / "resumed", strategy)
    kept = load_file(newest(tmp_path / "scratch") / "weights.safetensors")
    assert any(name.endswith("lazy.owed") for name in kept)
    assert differing(finish(start, tmp_path / "scratch", tmp_path / "resumed", strategy), lazy) == []
