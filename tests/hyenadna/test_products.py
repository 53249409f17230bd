"""Which library computes products, and that both compute the same."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hyenadna import HyenaDNA
from hyenadna.engine import products
from hyenadna.engine.pointwise import gelu
from hyenadna.engine.products import activated_product, add_product_, check, library, product
from hyenadna.engine.training import next_token_loss


@pytest.fixture(autouse=True)
def decided_anew() -> Iterator[None]:
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every product go to oneDNN, and count them."""
    calls: list[int] = []
    multiply = products._onednn
    monkeypatch.setattr(products, "_LEAST", 0)
    monkeypatch.setattr(products, "uses_onednn", lambda: True)
    monkeypatch.setattr(products, "_onednn", lambda *a, **k: calls.append(1) or multiply(*a, **k))
    if (problem := check(multiply)) is not None:
        pytest.skip(f"this torch has no oneDNN: {problem}")
    return calls


def set_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, capability: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nvendor_id : {vendor}\n")
    monkeypatch.setattr(products, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)


def by_torch(a: Tensor, b: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    y = functional.linear(a, b, bias)
    return functional.gelu(y, approximate="tanh") if gelu else y


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", "oneDNN"),
        ("AuthenticAMD", "AVX2", "MKL"),
        ("GenuineIntel", "AVX512", "MKL"),
        ("GenuineIntel", "DEFAULT", "MKL"),
    ],
)
def test_the_processor_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, capability: str, expected: str
) -> None:
    set_machine(monkeypatch, tmp_path, vendor, capability)
    monkeypatch.setattr(products, "_onednn", by_torch)
    assert library()[0] == expected


@pytest.mark.parametrize("problem", ["missing", "wrong", "nan", "wrong gelu"])
def test_a_library_that_is_missing_or_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: str
) -> None:
    set_machine(monkeypatch, tmp_path, "AuthenticAMD", "AVX512")
    if problem == "missing":
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    else:
        factor = {"wrong": 1.001, "nan": float("nan"), "wrong gelu": 1}[problem]
        monkeypatch.setattr(
            products,
            "_onednn",
            lambda a, b, bias, gelu: factor * by_torch(a, b, bias, gelu and problem != "wrong gelu"),
        )
    name, why = library()
    assert name == "MKL"
    assert "oneDNN cannot be used" in why
    a, b = torch.randn(600, 256), torch.randn(128, 256)
    torch.testing.assert_close(product(a, b), a @ b.T)


@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_those_of_the_definition(onednn: list[int], transposed: bool) -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(50, 30, generator=g).T if transposed else torch.randn(30, 50, generator=g)
    b, bias = torch.randn(20, 50, generator=g), torch.randn(20, generator=g)
    wide = torch.zeros(30, 40)
    product(a, b, bias, wide[:, :20])
    exact = functional.linear(a, b, bias)
    total, biased = wide[:, :20].clone(), wide[:, :20].clone()
    add_product_(total, a, b)
    add_product_(biased, a, b, bias)
    for ours, expected in (
        (product(a, b, bias), exact),
        (wide[:, :20], exact),
        (total, exact + a @ b.T),
        (biased, 2 * exact),
        (activated_product(a, b, bias, gelu), functional.gelu(exact, approximate="tanh")),
    ):
        torch.testing.assert_close(ours, expected)
    assert not wide[:, 20:].any()
    assert len(onednn) == 5
    product(a.double(), b.double())
    assert len(onednn) == 5


def test_a_model_is_the_same_by_both(
    model: HyenaDNA, onednn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(7, 11, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(ids).logits, model.plain(ids).logits, rtol=0, atol=1e-5)
    n = len(onednn)
    assert n
    gradients = []
    for uses in (True, False):
        monkeypatch.setattr(products, "uses_onednn", lambda uses=uses: uses)
        model.zero_grad()
        next_token_loss(model, ids[:, :-1], ids[:, 1:].contiguous()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(onednn) > 2 * n
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    if not products._has_bfloat16():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    a, b, bias = (torch.randn(shape).bfloat16() for shape in ((300, 64), (96, 64), (96,)))
    exact = functional.gelu(functional.linear(a.double(), b.double(), bias.double()), approximate="tanh")
    torch.testing.assert_close(activated_product(a, b, bias, gelu).double(), exact, rtol=0.01, atol=0.01)
    monkeypatch.setattr(products, "_has_bfloat16", lambda: False)
    torch.testing.assert_close(activated_product(a, b, bias, gelu).double(), exact, rtol=0.02, atol=0.03)
