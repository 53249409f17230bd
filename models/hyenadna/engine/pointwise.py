"""What happens to each number by itself, or along a short stretch: GELU and the short convolution.

K channel, B sequence, t position, j tap.
"""

import torch
from torch import Tensor
from torch.nn import functional

from .tiling import slices

_CACHED = 1 << 18
_LINEAR, _CUBIC = 1.5957691216057308, 0.0713548162726009
"""2 sqrt(2 / pi), and 0.044715 times it."""


def gelu(x: Tensor) -> Tensor:
    """The tanh approximation of GELU; x may be overwritten.

    On a CPU through the identity 1 + tanh(y) = 2 sigmoid(2 y): torch's vector tanh costs four times its
    exponential there, and nearly as much as the matrix product before it.
    """
    if _has_fast_gelu(x):
        return functional.gelu(x, approximate="tanh")
    return x.mul_(_gate(x))


def gelu_with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """`gelu` and its derivative; x may be overwritten."""
    if _has_fast_gelu(x):
        slope = torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate="tanh")
        return functional.gelu(x, approximate="tanh"), slope
    gate = _gate(x)
    # d/dx x s(z) = s + x s (1 - s) z',  z' = linear + 3 cubic x^2
    slope = torch.addcmul(_linear(x), x, x, value=3 * _CUBIC)
    value = x.mul_(gate)
    slope.mul_(value)
    return value, slope.addcmul_(slope, gate, value=-1).add_(gate)


def _gate(x: Tensor) -> Tensor:
    return torch.addcmul(_linear(x), x, x, value=_CUBIC).mul_(x).sigmoid_()


def _linear(x: Tensor) -> Tensor:
    return torch.full((), _LINEAR, dtype=x.dtype, device=x.device)


def _has_fast_gelu(x: Tensor) -> bool:
    return x.device.type != "cpu" or x.dtype.itemsize < 4


def short_conv(
    u_KBt: Tensor, u_bias_K: Tensor, weight_Kj: Tensor, bias_K: Tensor, out_KBt: Tensor | None = None
) -> Tensor:
    """The causal short convolution along the last axis, from a history of zeros; the last tap meets now.

    Equals the published depthwise convolution, without its transposes and copies.

    Args:
        u_KBt: input, to which `u_bias_K` is added in place.
        u_bias_K: what the product that made u has left out.
        weight_Kj: taps.
        bias_K: added to the output.
        out_KBt: where the output goes.
    """
    s_KBt = torch.empty_like(u_KBt) if out_KBt is None else out_KBt
    for rows in _cached_rows(u_KBt):
        u, s, weight_kj = u_KBt[rows], s_KBt[rows], weight_Kj[rows, :, None, None]
        u += u_bias_K[rows, None, None]
        torch.addcmul(bias_K[rows, None, None], u, weight_kj[:, -1], out=s)
        for back in _backs(u_KBt, weight_Kj):
            s[..., back:].addcmul_(u[..., :-back], weight_kj[:, -1 - back])
    return s_KBt


def short_conv_backward_(
    d_s_KBt: Tensor, u_KBt: Tensor, weight_Kj: Tensor, d_weight_Kj: Tensor | None
) -> None:
    """Put the gradient of `short_conv`'s u in the place of that of s, and add that of its taps where wanted.

    Args:
        d_s_KBt: gradient of the output; overwritten.
        u_KBt: input.
        weight_Kj: taps.
        d_weight_Kj: zeros for their gradient, or None.
    """
    for rows in _cached_rows(u_KBt):
        u, d_s, weight_kj = u_KBt[rows], d_s_KBt[rows], weight_Kj[rows, :, None, None]
        d_u = d_s * weight_kj[:, -1]
        for back in _backs(u_KBt, weight_Kj):
            d_u[..., :-back].addcmul_(d_s[..., back:], weight_kj[:, -1 - back])
        if d_weight_Kj is not None:
            d_weight_Kj[rows, -1] = (d_s * u).sum((1, 2))
            for back in _backs(u_KBt, weight_Kj):
                d_weight_Kj[rows, -1 - back] = (d_s[..., back:] * u[..., :-back]).sum((1, 2))
        d_s.copy_(d_u)


def _cached_rows(x_KBt: Tensor) -> list[slice]:
    """Slices of channels that stay in a core's cache between one tap and the next."""
    channels = len(x_KBt)
    size = max(1, _CACHED // x_KBt[0].numel()) if x_KBt.device.type == "cpu" else channels
    return slices(channels, size)


def _backs(u_KBt: Tensor, weight_Kj: Tensor) -> range:
    """How far back the taps before the last one reach, as far as there are positions."""
    return range(1, min(weight_Kj.shape[1], u_KBt.shape[2]))
