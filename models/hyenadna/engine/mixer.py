"""The Hyena half of a block with gradients: a group of channels at a time, keeping only its input.

B sequence, L position, N tokens of a few sequences, D width, C channels of a group, K = 3 C rows of the
projection that they need, H filter width, F frequency. Channel-major (C, B, L) from projection to projection.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .convolution import Workspace
from .gated import Convolutions, Fixed, Group, add_to_three, three
from .norms import Norm
from .tiling import slices


class MixerWithGradients(torch.autograd.Function):
    """Norm, `operator.HyenaOperator` and its filter's last layer, (B, L, D) to (B, L, D).

    Nothing but the arguments is kept for the backward pass, which computes projections, filters and spectra
    again, a group of channels at a time.
    """

    @staticmethod
    def forward(ctx: Any, r_BLD: Tensor, *arguments: Any) -> Tensor:
        """The mixer's output in the precision of its matrices.

        Args:
            ctx: torch's.
            r_BLD: residual stream.
            arguments: norm weight and bias, the projection in, the tensors of `Convolutions`, the projection
                out with its bias, then a `Fixed`.
        """
        *tensors, fixed = arguments
        ctx.save_for_backward(r_BLD, *tensors)
        ctx.fixed = fixed
        norm_w, norm_b, in_w, *weights, out_w, out_b = tensors
        w, (_, length, d) = Convolutions(*weights), r_BLD.shape
        out_BLD, work = torch.empty(r_BLD.shape, dtype=in_w.dtype, device=r_BLD.device), Workspace()
        for rows in fixed.sizes.row_groups(*r_BLD.shape[:2]):
            h_ND = _normalised(r_BLD[rows], norm_w, norm_b, fixed, in_w.dtype)
            yx_DBL = h_ND.new_empty(d, len(h_ND) // length, length)
            for channels in fixed.sizes.channel_groups(d, len(h_ND)):
                group = Group(
                    _projected(h_ND, in_w, channels, length, work), w, fixed, (rows, channels), work
                )
                torch.mul(group.convolved().to(yx_DBL.dtype), group.x0, out=yx_DBL[channels])
            torch.addmm(out_b, yx_DBL.flatten(1).T, out_w.T, out=out_BLD[rows].view(-1, d))
        return out_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BLD: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of r, the norm, the projections and `Convolutions`."""
        r_BLD, norm_w, norm_b, in_w, *weights, out_w, out_b = ctx.saved_tensors
        fixed, work, w = ctx.fixed, Workspace(), Convolutions(*weights)
        gradients = w.zeros()
        d_norm_w, d_norm_b, d_in_w, d_out_w, d_out_b = map(
            torch.zeros_like, (norm_w, norm_b, in_w, out_w, out_b)
        )
        d_r_BLD, length = torch.empty_like(r_BLD), r_BLD.shape[1]
        for rows in fixed.sizes.row_groups(*r_BLD.shape[:2]):
            h_ND = _normalised(r_BLD[rows], norm_w, norm_b, fixed, in_w.dtype)
            d_h_ND = torch.zeros_like(h_ND)
            d_out_ND = d_out_BLD[rows].reshape(h_ND.shape)
            d_out_b.add_(d_out_ND.sum(0))
            for channels in fixed.sizes.channel_groups(*h_ND.shape[::-1]):
                u_KBL = _projected(h_ND, in_w, channels, length, work)
                group = Group(u_KBL, w, fixed, (rows, channels), work)
                y_CBL, d_yx_CBL = group.convolved_again(), group.room()
                torch.mm(out_w[:, channels].T, d_out_ND.T, out=d_yx_CBL.flatten(1))
                d_out_w[:, channels] += torch.mm(d_out_ND.T, (y_CBL * group.x0).flatten(1).T)
                d_u_KN = group.backward(y_CBL, d_yx_CBL, gradients).flatten(1)
                add_to_three(d_in_w, channels, torch.mm(d_u_KN, h_ND))
                d_h_ND.addmm_(d_u_KN.T, three(in_w, channels))
            del h_ND  # a gigabyte for a million positions of width 256
            r_ND, d_r_ND = (t[rows].view(d_h_ND.shape) for t in (r_BLD, d_r_BLD))
            for some in slices(len(d_h_ND), fixed.sizes.tokens):
                norm = Norm(r_ND[some], norm_w, norm_b, fixed.eps)
                d_r_ND[some], d_w, d_b = norm.backward(d_h_ND[some])
                d_norm_w += d_w
                d_norm_b += d_b
        return d_r_BLD, d_norm_w, d_norm_b, d_in_w, *gradients.tensors(), d_out_w, d_out_b, None


def _projected(h_ND: Tensor, in_w: Tensor, channels: slice, length: int, work: Workspace) -> Tensor:
    """The projection in of a group of channels, (K, B, L), without its bias."""
    in_w = three(in_w, channels)
    u_KBL = work.empty("u", (len(in_w), len(h_ND) // length, length), h_ND, h_ND.dtype)
    torch.mm(in_w, h_ND.T, out=u_KBL.flatten(1))
    return u_KBL


def _normalised(r_BLD: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed, dtype: torch.dtype) -> Tensor:
    """The normalised tokens (N, D) of sequences."""
    r_ND = r_BLD.reshape(-1, r_BLD.shape[-1])
    h_ND = torch.empty(r_ND.shape, dtype=dtype, device=r_ND.device)
    for some in slices(len(r_ND), fixed.sizes.tokens):
        h_ND[some] = Norm(r_ND[some], weight, bias, fixed.eps).out
    return h_ND
