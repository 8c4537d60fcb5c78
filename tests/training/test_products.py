"""Float32 products in oneDNN: the same linear layers, when nothing learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ftlib.training import precision, products
from ftlib.training.products import QuickProducts

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of every linear layer whether it was taken over."""
    noted: list[bool] = []
    is_for_onednn = products._is_for_onednn

    def noting(*args, **kwargs) -> bool:
        noted.append(is_for_onednn(*args, **kwargs))
        return noted[-1]

    monkeypatch.setattr(products, "_is_for_onednn", noting)
    return noted


@pytest.mark.parametrize("shape", [(16, 64), (3, 7, 96), (2, 3, 4, 128)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_those_of_float64(shape, has_bias, calls):
    torch.manual_seed(0)
    layer = torch.nn.Linear(shape[-1], 80, bias=has_bias)
    values = torch.randn(shape)
    with torch.inference_mode(), QuickProducts():
        found = layer(values)
    assert calls == [True]
    torch.testing.assert_close(found.double(), layer.double()(values.double()).detach(), atol=2e-6, rtol=1e-5)


def test_what_learns_or_is_small_or_in_another_format_is_left_alone(calls):
    values, weight = torch.randn(32, 64), torch.randn(64, 64)
    with QuickProducts():
        F.linear(values, weight.requires_grad_())  # gradients may be asked for
        with torch.inference_mode():
            F.linear(values[:8], weight)
            F.linear(values, weight[:2])
            F.linear(values.double(), weight.double())
            with torch.autocast("cpu", torch.bfloat16):
                assert F.linear(values, weight).dtype == torch.bfloat16
    assert calls == [False] * 5


@pytest.mark.parametrize(("vendor", "flags", "expected"), [
    ("AuthenticAMD", {"avx2", "avx512f"}, True), ("AuthenticAMD", {"avx2"}, False),
    ("GenuineIntel", {"avx2", "avx512f"}, False), ("", set(), False),
])  # fmt: skip
def test_the_processor_decides(vendor, flags, expected, monkeypatch):
    monkeypatch.setattr(products, "processor_facts", lambda: (vendor, frozenset(flags)))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products.is_onednn_faster.__wrapped__() is expected


@pytest.mark.parametrize(("is_faster", "asked", "expected"), [
    (True, "float32", [True]), (False, "float32", []), (True, "bfloat16", []),
])  # fmt: skip
def test_reading_takes_products_over_in_float32_on_such_machines(is_faster, asked, expected, monkeypatch, calls):
    monkeypatch.setattr(products, "is_onednn_faster", lambda: is_faster)
    values, weight = torch.randn(32, 64), torch.randn(64, 64)
    with precision.reading(asked, values.device):
        F.linear(values, weight)
    assert calls == expected
