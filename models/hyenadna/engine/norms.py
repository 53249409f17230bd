"""LayerNorm of the residual stream, in the norm's own precision, also with what its gradient needs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def layer_norm(norm: nn.LayerNorm, r: Tensor, dtype: torch.dtype) -> Tensor:
    """`backbone.normalise`, in the norm's own precision, given in `dtype`."""
    x = r.to(norm.weight.dtype)
    return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)


class Norm:
    """`layer_norm` of which the gradient is wanted.

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

    def backward(self, d_out: Tensor, wanted: Sequence[bool]) -> Sequence[Tensor | None]:
        """Gradients of r, weight and bias, None for those that are not wanted."""
        weight, bias = self._weight, self._bias
        gradients: Sequence[Tensor | None] = torch.ops.aten.native_layer_norm_backward(
            d_out.to(weight.dtype), self._x, weight.shape, self._mean, self._rstd, weight, bias, list(wanted)
        )
        return gradients


class NormGradients:
    """The gradients of residuals (N, D), weight and bias, from slice to slice.

    Args:
        r_ND: residuals.
        weight: (D,).
        bias: (D,).
        wanted: which of the three are; the others stay None.

    Attributes:
        sums: the gradients; rows of the first are right once they have been given to `add`.
    """

    def __init__(self, r_ND: Tensor, weight: Tensor, bias: Tensor, wanted: Sequence[bool]):
        self._wanted = wanted
        self.sums = [torch.empty_like(r_ND) if wanted[0] else None, *zeros((weight, bias), wanted[1:])]

    def add(self, norm: Norm, rows: slice, d_out_nD: Tensor) -> None:
        """Add those of some residuals, given the norm of them and the gradient of its output."""
        (d_r_ND, *learned), (d_r_nD, *parts) = self.sums, norm.backward(d_out_nD, self._wanted)
        if d_r_ND is not None and d_r_nD is not None:
            d_r_ND[rows] = d_r_nD
        for total_D, part_D in zip(learned, parts, strict=True):
            if total_D is not None and part_D is not None:
                total_D.add_(part_D)


def zeros(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """Zeros of these shapes to add gradients to, None where none is wanted."""
    return [torch.zeros_like(t) if one else None for t, one in zip(tensors, wanted, strict=True)]
