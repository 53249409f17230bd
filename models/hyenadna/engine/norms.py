"""LayerNorm of the residual stream, in the norm's own precision, also with what its gradient needs."""

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

    def backward(self, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of r, weight and bias."""
        weight, bias = self._weight, self._bias
        d_r, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
            d_out.to(weight.dtype), self._x, weight.shape, self._mean, self._rstd, weight, bias, [True] * 3
        )
        return d_r, d_weight, d_bias
