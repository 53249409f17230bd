"""The MLP half of a block with gradients: in slices of tokens, keeping only its input.

n tokens of a slice, D width, I inner width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .norms import Norm, NormGradients, zeros
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
        """Gradients of those of the first seven arguments that need one."""
        r_ND, norm_w, norm_b, fc1_w, fc1_b, fc2_w = ctx.saved_tensors
        needed = ctx.needs_input_grad
        norms = NormGradients(r_ND, norm_w, norm_b, needed[:3])
        d_fc1_w, d_fc1_b, d_fc2_w = zeros((fc1_w, fc1_b, fc2_w), needed[3:6])
        for rows in slices(len(r_ND), ctx.tokens):
            d_out_nD = d_out_ND[rows]
            norm = Norm(r_ND[rows], norm_w, norm_b, ctx.eps)
            h_nD = norm.out.to(fc1_w.dtype)
            inner_nI, slope_nI = gelu_with_slope(torch.addmm(fc1_b, h_nD, fc1_w.T))
            if d_fc2_w is not None:
                d_fc2_w.addmm_(d_out_nD.T, inner_nI)
            d_inner_nI = torch.mm(d_out_nD, fc2_w).mul_(slope_nI)
            if d_fc1_w is not None:
                d_fc1_w.addmm_(d_inner_nI.T, h_nD)
            if d_fc1_b is not None:
                d_fc1_b += d_inner_nI.sum(0)
            if any(needed[:3]):
                norms.add(norm, rows, torch.mm(d_inner_nI, fc1_w))
        d_fc2_b = d_out_ND.sum(0) if needed[6] else None
        return *norms.sums, d_fc1_w, d_fc1_b, d_fc2_w, d_fc2_b, None, None
