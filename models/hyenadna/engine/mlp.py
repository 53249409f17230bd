"""The MLP half of a block with gradients: in slices of tokens, keeping only its input.

n tokens of a slice, D width, I inner width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .norms import Norm
from .pointwise import gelu, gelu_with_slope
from .tiling import slices


class MlpWithGradients(torch.autograd.Function):
    """fc2(gelu(fc1(norm(r)))) of tokens (N, D), equal to `backbone.Mlp` after its norm.

    The inner layer is four times as wide as the model; here it exists for a slice of tokens only, in the
    forward as in the backward pass, which computes it again.
    """

    @staticmethod
    def forward(ctx: Any, r_ND: Tensor, *arguments: Any) -> Tensor:
        """The MLP's output in the precision of its matrices.

        Args:
            ctx: torch's.
            r_ND: residual stream.
            arguments: norm weight and bias, fc1 weight and bias, fc2 weight and bias, the norm's eps, and the
                number of tokens in a slice.
        """
        norm_w, norm_b, fc1_w, fc1_b, fc2_w, fc2_b, eps, tokens = arguments
        ctx.save_for_backward(r_ND, norm_w, norm_b, fc1_w, fc1_b, fc2_w)
        ctx.eps, ctx.tokens = eps, tokens
        out_ND = torch.empty(r_ND.shape, dtype=fc1_w.dtype, device=r_ND.device)
        for rows in slices(len(r_ND), tokens):
            h_nD = Norm(r_ND[rows], norm_w, norm_b, eps).out.to(fc1_w.dtype)
            inner_nI = gelu(torch.addmm(fc1_b, h_nD, fc1_w.T))
            torch.addmm(fc2_b, inner_nI, fc2_w.T, out=out_ND[rows])
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_ND: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the first seven arguments."""
        r_ND, norm_w, norm_b, fc1_w, fc1_b, fc2_w = ctx.saved_tensors
        d_r_ND = torch.empty_like(r_ND)
        d_norm_w, d_norm_b = torch.zeros_like(norm_w), torch.zeros_like(norm_b)
        d_fc1_w, d_fc2_w = torch.zeros_like(fc1_w), torch.zeros_like(fc2_w)
        d_fc1_b = torch.zeros_like(fc1_b)
        for rows in slices(len(r_ND), ctx.tokens):
            d_out_nD = d_out_ND[rows]
            norm = Norm(r_ND[rows], norm_w, norm_b, ctx.eps)
            h_nD = norm.out.to(fc1_w.dtype)
            inner_nI, slope_nI = gelu_with_slope(torch.addmm(fc1_b, h_nD, fc1_w.T))
            d_fc2_w.addmm_(d_out_nD.T, inner_nI)
            d_inner_nI = torch.mm(d_out_nD, fc2_w).mul_(slope_nI)
            d_fc1_w.addmm_(d_inner_nI.T, h_nD)
            d_fc1_b += d_inner_nI.sum(0)
            d_r_ND[rows], d_w, d_b = norm.backward(torch.mm(d_inner_nI, fc1_w))
            d_norm_w += d_w
            d_norm_b += d_b
        return d_r_ND, d_norm_w, d_norm_b, d_fc1_w, d_fc1_b, d_fc2_w, d_out_ND.sum(0), None, None
