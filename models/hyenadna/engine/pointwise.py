"""What happens to each number by itself, or along a short stretch: GELU and the short convolution.

K channel, B sequence, t position, j tap.
"""

import torch
from torch import Tensor
from torch.nn import functional

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
    slope = torch.mul(x, x).mul_(3 * _CUBIC).add_(_LINEAR)
    value = x.mul_(gate)
    slope.mul_(value).mul_(1 - gate).add_(gate)
    return value, slope


def _gate(x: Tensor) -> Tensor:
    return torch.mul(x, x).mul_(_CUBIC).add_(_LINEAR).mul_(x).sigmoid_()


def _has_fast_gelu(x: Tensor) -> bool:
    return x.device.type != "cpu" or x.dtype.itemsize < 4


def short_conv(u_KBt: Tensor, weight_Kj: Tensor, bias_K: Tensor) -> Tensor:
    """The causal short convolution along the last axis, from a history of zeros; the last tap meets now.

    Equals the published depthwise convolution, without its transposes and copies.
    """
    s_KBt = torch.addcmul(bias_K[:, None, None], u_KBt, weight_Kj[:, -1, None, None])
    for back in range(1, min(weight_Kj.shape[1], u_KBt.shape[2])):
        s_KBt[..., back:].addcmul_(u_KBt[..., :-back], weight_Kj[:, -1 - back, None, None])
    return s_KBt


def short_conv_backward(d_s_KBt: Tensor, u_KBt: Tensor, weight_Kj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of u, weight and bias of `short_conv`."""
    d_u_KBt = d_s_KBt * weight_Kj[:, -1, None, None]
    d_weight_Kj = torch.empty_like(weight_Kj)
    for back in range(weight_Kj.shape[1]):
        later, earlier = d_s_KBt[..., back:], u_KBt[..., : max(0, u_KBt.shape[2] - back)]
        if back:
            d_u_KBt[..., : earlier.shape[2]].addcmul_(later, weight_Kj[:, -1 - back, None, None])
        d_weight_Kj[:, -1 - back] = _dots(later, earlier)
    return d_u_KBt, d_weight_Kj, d_s_KBt.sum((1, 2))


def _dots(x_KBt: Tensor, y_KBt: Tensor) -> Tensor:
    """The sum over B and t of x y, without their product in memory."""
    k, b, t = x_KBt.shape
    return torch.bmm(x_KBt.reshape(k * b, 1, t), y_KBt.reshape(k * b, t, 1)).view(k, b).sum(1)
