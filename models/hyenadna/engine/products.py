"""Matrix products a b^T of float32 numbers, by the faster of the two libraries in torch.

torch's own path is MKL, which takes a generic path on processors that are not Intel's and reaches 40 % of
what AVX-512 can do there; the oneDNN in the same torch does not. Which library computes depends on the
processor and on a comparison of results, never on a timing: processes of one machine agree bit for bit.

M and N rows, K numbers of a row.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1 << 22
"""Multiplications from which on a call of oneDNN, which takes 50 us by itself, pays."""
_FAR = 1 << 13
"""Numbers between neighbours of a row from which on oneDNN loses more by copying a matrix than it gains."""
_CPUINFO = Path("/proc/cpuinfo")


def product(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None, out_MN: Tensor | None = None) -> Tensor:
    """Compute a b^T + bias without gradients, (M, N), in `out_MN` if it is given."""
    if not _is_large(a_MK, b_NK):
        if bias_N is None:
            return torch.mm(a_MK, b_NK.T, out=out_MN)
        return torch.addmm(bias_N, a_MK, b_NK.T, out=out_MN)
    y_MN = _onednn(a_MK, b_NK, bias_N, gelu=False)
    return y_MN if out_MN is None else out_MN.copy_(y_MN)


def add_product_(total_MN: Tensor, a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> None:
    """Add a b^T + bias to a matrix, without gradients."""
    if _is_large(a_MK, b_NK):
        total_MN += _onednn(a_MK, b_NK, bias_N, gelu=False)
        return
    total_MN.addmm_(a_MK, b_NK.T)
    if bias_N is not None:
        total_MN += bias_N


def activated_product(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor, gelu: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute gelu(a b^T + bias) without gradients, (M, N), by oneDNN's own GELU where it multiplies.

    torch itself multiplies bfloat16 by oneDNN, and then takes twice as long for the GELU alone.


    Args:
        a_MK: rows.
        b_NK: weight.
        bias_N: bias.
        gelu: the tanh approximation of GELU, which may overwrite its argument.
    """
    is_bfloat16 = a_MK.dtype == torch.bfloat16 and a_MK.device.type == "cpu" and _has_bfloat16()
    if is_bfloat16 or _is_large(a_MK, b_NK):
        return _onednn(a_MK, b_NK, bias_N, gelu=True)
    return gelu(product(a_MK, b_NK, bias_N))


def uses_onednn() -> bool:
    """Return whether large products go to oneDNN."""
    return library()[0] == "oneDNN"


@cache
def library() -> tuple[str, str]:
    """Return the library of large float32 products on this machine, and why it is this one."""
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return "torch", "built without MKL"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "MKL", "as fast as oneDNN without AVX-512"
    if "GenuineIntel" in _processor():
        return "MKL", "uses AVX-512 on this processor"
    if (problem := check(_onednn)) is not None:
        return "MKL", f"oneDNN cannot be used: {problem}"
    return "oneDNN", "MKL does not use AVX-512 on this processor"


def check(
    multiply: Callable[[Tensor, Tensor, Tensor | None, bool], Tensor],
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-5,
) -> str | None:
    """Return why results of a library cannot be used, or None: it is missing, or they are wrong.

    Args:
        multiply: computes a b^T + bias, or GELU of it.
        dtype: of the numbers.
        tolerance: largest error, as a part of the largest result.
    """
    g = torch.Generator().manual_seed(0)
    for m, n, k in ((300, 96, 64), (256, 33, 130), (1, 7, 3)):
        shapes = ((m, k), (n, k), (k, m), (n,))
        a_MK, b_NK, a_KM, bias_N = (torch.randn(shape, generator=g).to(dtype) for shape in shapes)
        for a, bias, gelu in ((a_MK, bias_N, False), (a_KM.T, None, False), (a_MK, bias_N, True)):
            exact_MN = functional.linear(a.double(), b_NK.double(), None if bias is None else bias.double())
            if gelu:
                exact_MN = functional.gelu(exact_MN, approximate="tanh")
            try:
                with torch.no_grad():
                    error = (multiply(a, b_NK, bias, gelu) - exact_MN).abs().amax() / exact_MN.abs().amax()
            except (RuntimeError, AttributeError, TypeError, NotImplementedError) as problem:
                return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            if not error <= tolerance:
                return f"a product is wrong by {error:.0e}"
    return None


@cache
def _has_bfloat16() -> bool:
    """Return whether oneDNN multiplies bfloat16 here, and rightly."""
    supports = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supports is not None and supports() and check(_onednn, torch.bfloat16, 1e-2) is None


def _is_large(a_MK: Tensor, b_NK: Tensor) -> bool:
    # the size first: a step of decoding asks this for products that take as long as the other questions
    return (
        a_MK.numel() * b_NK.shape[0] >= _LEAST
        and a_MK.dtype == torch.float32
        and a_MK.device.type == "cpu"
        and a_MK.stride(1) <= _FAR
        and uses_onednn()
    )


def _onednn(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None, gelu: bool) -> Tensor:
    # private: what torch's compiler emits for a linear layer
    linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    y_MN: Tensor = linear(a_MK, b_NK, bias_N, *(("gelu", [], "tanh") if gelu else ("none", [], "")))
    return y_MN


def _processor() -> str:
    try:
        return _CPUINFO.read_text()
    except OSError:
        return "GenuineIntel"  # unknown: what torch itself would use
