"""Parts of a block that work position by position, or on a few: norm, GELU, MLP, short convolution.

Functions with gradients keep only their input, and compute the rest again.

N tokens, n tokens of a slice, D width, I inner width, K channel, B sequence, t position, j tap.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .products import add_product_, product
from .tiling import slices
from .workspace import Workspace

_CACHED = 1 << 18
_LINEAR, _CUBIC = 1.5957691216057308, 0.0713548162726009
"""2 sqrt(2 / pi), and 0.044715 times it."""


def layer_norm(norm: nn.LayerNorm, r: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute `backbone.normalise` in the norm's own precision, and return it in `dtype`."""
    x = r.to(norm.weight.dtype)
    return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)


class Norm:
    """`layer_norm` with what its gradient needs.

    Args:
        r: residuals (..., D), perhaps wider than the norm.
        weight: (D,).
        bias: (D,).
        eps: added to the variance.

    Attributes:
        out: the normalised values, in the weight's precision.
    """

    def __init__(self, r: Tensor, weight: Tensor, bias: Tensor, eps: float):
        self._x, self._weight, self._bias = r.to(weight.dtype), weight, bias
        self.out, self._mean, self._rstd = torch.native_layer_norm(self._x, weight.shape, weight, bias, eps)

    def backward(self, d_out: Tensor, needed: Sequence[bool]) -> Sequence[Tensor | None]:
        """Compute the gradients of r, weight and bias, None for those that are not needed."""
        weight, bias = self._weight, self._bias
        gradients: Sequence[Tensor | None] = torch.ops.aten.native_layer_norm_backward(
            d_out.to(weight.dtype), self._x, weight.shape, self._mean, self._rstd, weight, bias, list(needed)
        )
        return gradients


class NormGradients:
    """The gradients of residuals (N, D), weight and bias, from slice to slice.

    Args:
        r_ND: residuals.
        weight: (D,).
        bias: (D,).
        needed: which of the three are; the others stay None.

    Attributes:
        sums: the gradients; rows of the first are right once they have been given to `add`.
    """

    def __init__(self, r_ND: Tensor, weight: Tensor, bias: Tensor, needed: Sequence[bool]):
        self._needed = needed
        self.sums = [torch.empty_like(r_ND) if needed[0] else None, *zeros((weight, bias), needed[1:])]

    def add(self, norm: Norm, rows: slice, d_out_nD: Tensor) -> None:
        """Add the gradients of some residuals, given their norm and the gradient of its output."""
        (d_r_ND, *learned), (d_r_nD, *parts) = self.sums, norm.backward(d_out_nD, self._needed)
        if d_r_ND is not None and d_r_nD is not None:
            d_r_ND[rows] = d_r_nD
        for total_D, part_D in zip(learned, parts, strict=True):
            if total_D is not None and part_D is not None:
                total_D.add_(part_D)


def zeros(tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """Return zeros of these shapes to add gradients to, None where none is needed."""
    return [torch.zeros_like(t) if need else None for t, need in zip(tensors, needed, strict=True)]


def gelu(x: Tensor) -> Tensor:
    """Compute the tanh approximation of GELU of the rows of x, which may be overwritten.

    On a CPU through the identity 1 + tanh(y) = 2 sigmoid(2 y): torch's vector tanh costs four times its
    exponential there, and nearly as much as the matrix product before it. Half precision goes through
    float32 there, which takes half the time.
    """
    if x.device.type != "cpu":
        return functional.gelu(x, approximate="tanh")
    if x.dtype.itemsize < 4:
        return gelu(x.float()).to(x.dtype)
    linear = _linear(x)
    for rows in _cached_rows(x):
        part = x[rows]
        part.mul_(_gate(part, linear))
    return x


def gelu_with_slope(x: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute `gelu` and its derivative, which goes into `slope`; x may be overwritten."""
    if x.device.type != "cpu":
        slope = torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate="tanh")
        return functional.gelu(x, approximate="tanh"), slope
    if x.dtype.itemsize < 4:
        value, slope = gelu_with_slope(x.float())
        return value.to(x.dtype), slope.to(x.dtype)
    slope, linear = torch.empty_like(x) if slope is None else slope, _linear(x)
    for rows in _cached_rows(x):
        value, part = x[rows], slope[rows]
        gate = _gate(value, linear)
        # d/dx x s(z) = s + x s (1 - s) z',  z' = linear + 3 cubic x^2
        torch.addcmul(linear, value, value, value=3 * _CUBIC, out=part)
        part.mul_(value.mul_(gate))
        part.addcmul_(part, gate, value=-1).add_(gate)
    return x, slope


def _gate(x: Tensor, linear: Tensor) -> Tensor:
    return torch.addcmul(linear, x, x, value=_CUBIC).mul_(x).sigmoid_()


def _linear(x: Tensor) -> Tensor:
    return torch.full((), _LINEAR, dtype=x.dtype, device=x.device)


class MlpWithGradients(torch.autograd.Function):
    """fc2(gelu(fc1(norm(r)))) of tokens (N, D), equal to `backbone.Mlp` after its norm.

    The inner layer is four times as wide as the model; here it exists for a slice of tokens only, in the
    forward as in the backward pass, which computes it again.
    """

    @staticmethod
    def forward(ctx: Any, r_ND: Tensor, *arguments: Any) -> Tensor:
        """Compute the MLP's output in the precision of its matrices.

        Args:
            ctx: torch's.
            r_ND: residual stream.
            arguments: norm weight and bias, fc1 weight and bias, fc2 weight and bias, the norm's eps, the
                number of tokens in a slice, and whether the inner layer is kept for the backward pass.
        """
        norm_w, norm_b, fc1_w, fc1_b, fc2_w, fc2_b, eps, tokens, keep = arguments
        ctx.save_for_backward(r_ND, norm_w, norm_b, fc1_w, fc1_b, fc2_w)
        ctx.eps, ctx.tokens, ctx.inner = eps, tokens, None
        rows, keep = slices(len(r_ND), tokens), keep and any(ctx.needs_input_grad)
        out_ND = torch.empty(r_ND.shape, dtype=fc1_w.dtype, device=r_ND.device)
        work = Workspace()
        if keep:
            ctx.inner = [Inner(Workspace(), Norm(r_ND[n], norm_w, norm_b, eps), fc1_w, fc1_b) for n in rows]
        for i, n in enumerate(rows):
            if keep:
                inner_nI = ctx.inner[i].value_nI
            else:
                h_nD = Norm(r_ND[n], norm_w, norm_b, eps).out.to(fc1_w.dtype)
                inner_nI = gelu(_affine(h_nD, fc1_w, fc1_b, work))
            product(inner_nI, fc2_w, fc2_b, out_ND[n])
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_ND: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of those of the first seven arguments that need one."""
        r_ND, norm_w, norm_b, fc1_w, fc1_b, fc2_w = ctx.saved_tensors
        needed, work, kept = ctx.needs_input_grad, Workspace(), ctx.inner
        ctx.inner = None  # what is kept lasts for one backward pass
        norms = NormGradients(r_ND, norm_w, norm_b, needed[:3])
        d_fc1_w, d_fc1_b, d_fc2_w = zeros((fc1_w, fc1_b, fc2_w), needed[3:6])
        for i, rows in enumerate(slices(len(r_ND), ctx.tokens)):
            d_out_nD = d_out_ND[rows]
            inner = kept[i] if kept else Inner(work, Norm(r_ND[rows], norm_w, norm_b, ctx.eps), fc1_w, fc1_b)
            if d_fc2_w is not None:
                add_product_(d_fc2_w, d_out_nD.T, inner.value_nI.T)
            d_inner_nI = work.empty("d_inner", tuple(inner.slope_nI.shape), d_out_nD, d_out_nD.dtype)
            product(d_out_nD, fc2_w.T, out_MN=d_inner_nI).mul_(inner.slope_nI)
            if d_fc1_w is not None:
                # of a transposed pair oneDNN copies the first: the narrower one
                add_product_(d_fc1_w.T, inner.h_nD.T, d_inner_nI.T)
            if d_fc1_b is not None:
                d_fc1_b += d_inner_nI.sum(0)
            if any(needed[:3]):
                norms.add(inner.norm, rows, product(d_inner_nI, fc1_w.T))
        d_fc2_b = d_out_ND.sum(0) if needed[6] else None
        return *norms.sums, d_fc1_w, d_fc1_b, d_fc2_w, d_fc2_b, None, None, None


class Inner:
    """The inner layer of an MLP for a slice of tokens, with what its gradient needs.

    Attributes:
        norm: of the tokens, and `h_nD` its output in the precision of the matrices.
        value_nI: after the GELU, and `slope_nI` the GELU's derivative.

    Args:
        work: memory for it.
        norm: of the tokens.
        fc1_w: (I, D).
        fc1_b: (I,).
    """

    def __init__(self, work: Workspace, norm: Norm, fc1_w: Tensor, fc1_b: Tensor):
        self._work, self.norm, self.h_nD = work, norm, norm.out.to(fc1_w.dtype)
        x_nI = _affine(self.h_nD, fc1_w, fc1_b, work)
        self.value_nI, self.slope_nI = gelu_with_slope(
            x_nI, work.empty("slope", tuple(x_nI.shape), x_nI, x_nI.dtype)
        )


def _affine(h_nD: Tensor, weight_ID: Tensor, bias_I: Tensor, work: Workspace) -> Tensor:
    out_nI = work.empty("inner", (len(h_nD), len(weight_ID)), h_nD, h_nD.dtype)
    return product(h_nD, weight_ID, bias_I, out_nI)


def short_conv(
    u_KBt: Tensor, u_bias_K: Tensor, weight_Kj: Tensor, bias_K: Tensor, out_KBt: Tensor | None = None
) -> Tensor:
    """Compute the causal short convolution along the last axis, after zeros.

    Equals the published depthwise convolution, without its transposes and copies: the last tap meets the
    position itself.

    Args:
        u_KBt: input, to which `u_bias_K` is added in place.
        u_bias_K: the bias that the product which made u has left out.
        weight_Kj: taps.
        bias_K: added to the output.
        out_KBt: memory for the output.
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
    """Replace the gradient of `short_conv`'s output by that of u, and add that of its taps if needed.

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
    """Return slices of the first axis that stay in a core's cache from one operation to the next."""
    channels = len(x_KBt)
    size = max(1, _CACHED // x_KBt[0].numel()) if x_KBt.device.type == "cpu" else channels
    return slices(channels, size)


def _backs(u_KBt: Tensor, weight_Kj: Tensor) -> range:
    """Return how far back the taps before the last one reach, as far as there are positions."""
    return range(1, min(weight_Kj.shape[1], u_KBt.shape[2]))
