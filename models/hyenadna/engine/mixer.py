"""The Hyena half of a block with gradients: a group of channels at a time, keeping only its input.

B sequence, L position, N tokens of a few sequences, D width, C channels of a group, K = 3 C rows of the
projection that they need, H filter width, F frequency. Channel-major (C, B, L) from projection to projection.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .convolution import Workspace, complex_dtype, fft_length
from .norms import Norm
from .pointwise import short_conv, short_conv_backward_
from .tiling import Tiling, slices


@dataclass(frozen=True)
class Fixed:
    """What a mixer has that is not learned.

    Attributes:
        eps: of its norm.
        t_L: positions of the filter's decay window, `rate_D` its rates and `shift` its floor.
        kept_DBL: true where dropout keeps a gated value, which it divides by `share`; None without dropout.
        sizes: of the pieces worked on at once.
    """

    eps: float
    t_L: Tensor
    rate_D: Tensor
    shift: float
    kept_DBL: Tensor | None
    share: float
    sizes: Tiling


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
            arguments: norm weight and bias, then the tensors of `Weights`, then a `Fixed`.
        """
        *tensors, fixed = arguments
        ctx.save_for_backward(r_BLD, *tensors)
        ctx.fixed = fixed
        norm_w, norm_b, *weights = tensors
        w, (_, length, d) = Weights(*weights), r_BLD.shape
        out_BLD, work = torch.empty(r_BLD.shape, dtype=w.in_w.dtype, device=r_BLD.device), Workspace()
        for rows in fixed.sizes.row_groups(*r_BLD.shape[:2]):
            h_ND = _normalised(r_BLD[rows], norm_w, norm_b, fixed, w.in_w.dtype)
            yx_DBL = h_ND.new_empty(d, len(h_ND) // length, length)
            for channels in fixed.sizes.channel_groups(d, len(h_ND)):
                group = Group(h_ND, w, fixed, (rows, channels), work)
                torch.mul(group.convolved().to(yx_DBL.dtype), group.x0, out=yx_DBL[channels])
            torch.addmm(w.out_b, yx_DBL.flatten(1).T, w.out_w.T, out=out_BLD[rows].view(-1, d))
        return out_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BLD: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of r, the norm and `Weights`."""
        r_BLD, norm_w, norm_b, *weights = ctx.saved_tensors
        fixed, work = ctx.fixed, Workspace()
        gradients = Weights(*(torch.zeros_like(tensor) for tensor in weights))
        d_norm_w, d_norm_b = torch.zeros_like(norm_w), torch.zeros_like(norm_b)
        d_r_BLD = torch.empty_like(r_BLD)
        for rows in fixed.sizes.row_groups(*r_BLD.shape[:2]):
            h_ND = _normalised(r_BLD[rows], norm_w, norm_b, fixed, weights[0].dtype)
            d_h_ND = torch.zeros_like(h_ND)
            d_out_ND = d_out_BLD[rows].reshape(h_ND.shape)
            gradients.out_b.add_(d_out_ND.sum(0))
            for channels in fixed.sizes.channel_groups(*h_ND.shape[::-1]):
                w = Weights(*weights)
                Group(h_ND, w, fixed, (rows, channels), work).backward(d_out_ND, d_h_ND, gradients)
            del h_ND  # a gigabyte for a million positions of width 256
            r_ND, d_r_ND = (t[rows].view(d_h_ND.shape) for t in (r_BLD, d_r_BLD))
            for some in slices(len(d_h_ND), fixed.sizes.tokens):
                norm = Norm(r_ND[some], norm_w, norm_b, fixed.eps)
                d_r_ND[some], d_w, d_b = norm.backward(d_h_ND[some])
                d_norm_w += d_w
                d_norm_b += d_b
        return d_r_BLD, d_norm_w, d_norm_b, *gradients.tensors(), None


def _normalised(r_BLD: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed, dtype: torch.dtype) -> Tensor:
    """The normalised tokens (N, D) of sequences."""
    r_ND = r_BLD.reshape(-1, r_BLD.shape[-1])
    h_ND = torch.empty(r_ND.shape, dtype=dtype, device=r_ND.device)
    for some in slices(len(r_ND), fixed.sizes.tokens):
        h_ND[some] = Norm(r_ND[some], weight, bias, fixed.eps).out
    return h_ND


@dataclass(frozen=True)
class Weights:
    """The learned tensors of a mixer, or their gradients.

    Attributes:
        in_w: (3 D, D), `in_b` (3 D): projection to x0, x1 and v.
        short_w: (3 D, taps), `short_b` (3 D): short convolution.
        features_LH: the filter MLP before its last layer, `last_w` (D, H) that layer.
        skip_D: weight of the unconvolved value.
        out_w: (D, D), `out_b` (D): projection back.
    """

    in_w: Tensor
    in_b: Tensor
    short_w: Tensor
    short_b: Tensor
    features_LH: Tensor
    last_w: Tensor
    skip_D: Tensor
    out_w: Tensor
    out_b: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in order."""
        return tuple(vars(self).values())


class Group:
    """A group of channels of a few sequences: everything up to the gated value; then the convolution.

    Attributes:
        x0: the outer gate (C, B, L).
    """

    def __init__(
        self, h_ND: Tensor, w: Weights, fixed: Fixed, part: tuple[slice, slice], work: Workspace
    ) -> None:
        self._h_ND, self._w, self._fixed, self._work = h_ND, w, fixed, work
        self._rows, self._channels = part
        self._length = len(fixed.t_L)
        self._n_fft = fft_length(2 * self._length - 1)
        self._in_w, self._short_w = self._three(w.in_w), self._three(w.short_w)
        self._u_KBL, s_KBL = self._like_u("u"), self._like_u("s")
        torch.mm(self._in_w, h_ND.T, out=self._u_KBL.flatten(1))
        short_conv(self._u_KBL, self._three(w.in_b), self._short_w, self._three(w.short_b), s_KBL)
        self.x0, self._x1, self._v = s_KBL.chunk(3)

    def convolved(self) -> Tensor:
        """The long convolution of the gated values, skip term included, (C, B, L), until the next call."""
        return self._inverse(self._gated_spectrum().mul_(self._filter()[1]), "y")

    def backward(self, d_out_ND: Tensor, d_h_ND: Tensor, gradients: Weights) -> None:
        """Add this group's part to the gradients of h and of the weights."""
        channels = self._channels
        window_CL, k_C1F = self._filter()
        x_CBF = self._gated_spectrum()
        product_CBF = torch.mul(x_CBF, k_C1F, out=self._spectrum("product"))
        y_CBL = self._inverse(product_CBF, "y").to(self.x0.dtype)
        d_s_KBL = self._like_u("d_s")
        d_x0, d_x1, d_v = d_s_KBL.chunk(3)
        # the gradient of y x0 first lies where that of v will be
        d_yx_CBL = d_v
        torch.mm(self._w.out_w[:, channels].T, d_out_ND.T, out=d_yx_CBL.flatten(1))
        torch.mul(d_yx_CBL, y_CBL, out=d_x0)
        gradients.out_w[:, channels] += torch.mm(d_out_ND.T, (y_CBL * self.x0).flatten(1).T)
        g_CBF = torch.fft.rfft(self._padded(d_yx_CBL, self.x0), out=product_CBF)
        self._filter_gradients(x_CBF.conj_physical_().mul_(g_CBF).sum(1), window_CL, gradients)
        d_gated_CBL = self._inverse(g_CBF.mul_(k_C1F.conj_physical_()), "y").to(d_s_KBL.dtype)
        self._dropped(d_gated_CBL)
        torch.mul(d_gated_CBL, self._v, out=d_x1)
        torch.mul(d_gated_CBL, self._x1, out=d_v)
        d_short_w, d_short_b = short_conv_backward_(d_s_KBL, self._u_KBL, self._short_w)
        d_u_KN = d_s_KBL.flatten(1)
        self._add(gradients.short_w, d_short_w)
        self._add(gradients.short_b, d_short_b)
        self._add(gradients.in_w, torch.mm(d_u_KN, self._h_ND))
        self._add(gradients.in_b, d_u_KN.sum(1))
        d_h_ND.addmm_(d_u_KN.T, self._in_w)

    def _filter(self) -> tuple[Tensor, Tensor]:
        """The decay window (C, L), and the spectrum (C, 1, F) with the skip term in tap 0."""
        fixed, w, channels = self._fixed, self._w, self._channels
        window_CL = torch.exp(-fixed.t_L * fixed.rate_D[channels, None]).add_(fixed.shift)
        k_CL = torch.mm(w.last_w[channels], w.features_LH.T).mul_(window_CL)
        k_CL[:, 0] += w.skip_D[channels]
        return window_CL, torch.fft.rfft(k_CL, n=self._n_fft, norm="forward")[:, None]

    def _filter_gradients(self, product_CF: Tensor, window_CL: Tensor, gradients: Weights) -> None:
        channels = self._channels
        d_k_CL = torch.fft.irfft(product_CF, n=self._n_fft)[:, : self._length]
        gradients.skip_D[channels] += d_k_CL[:, 0]
        d_k_CL = window_CL.mul_(d_k_CL)
        gradients.last_w[channels] += torch.mm(d_k_CL, self._w.features_LH)
        gradients.features_LH.addmm_(d_k_CL.T, self._w.last_w[channels])

    def _three(self, tensor: Tensor) -> Tensor:
        """This group's rows for x0, x1 and v, of a tensor with a row for each of the 3 D."""
        return tensor.view(3, -1, *tensor.shape[1:])[:, self._channels].flatten(0, 1)

    def _add(self, gradient: Tensor, part: Tensor) -> None:
        """Add to the rows that `_three` takes."""
        rest = part.shape[1:]
        gradient.view(3, -1, *rest)[:, self._channels] += part.view(3, -1, *rest)

    def _like_u(self, name: str) -> Tensor:
        """Room for the three parts of the projection, (K, B, L)."""
        shape = (len(self._in_w), len(self._h_ND) // self._length, self._length)
        return self._work.empty(name, shape, self._h_ND, self._h_ND.dtype)

    def _spectrum(self, name: str) -> Tensor:
        """Room for the spectra of all sequences, (C, B, F)."""
        skip_D, (c, b, _) = self._w.skip_D, self.x0.shape
        shape = (c, b, self._n_fft // 2 + 1)
        return self._work.empty(name, shape, skip_D, complex_dtype(skip_D.dtype))

    def _gated_spectrum(self) -> Tensor:
        gated_CBn = self._padded(self._v, self._x1)
        self._dropped(gated_CBn[..., : self._length])
        spectrum_CBF: Tensor = torch.fft.rfft(gated_CBn, out=self._spectrum("gated"))
        return spectrum_CBF

    def _padded(self, x_CBL: Tensor, y_CBL: Tensor) -> Tensor:
        """The product x y in the filter's precision, with zeros up to the transform's length."""
        shape, skip_D = (*x_CBL.shape[:2], self._n_fft), self._w.skip_D
        out_CBn = self._work.empty("padded", shape, skip_D, skip_D.dtype)
        torch.mul(x_CBL, y_CBL, out=out_CBn[..., : self._length])
        out_CBn[..., self._length :] = 0
        return out_CBn

    def _dropped(self, x_CBL: Tensor) -> Tensor:
        """Dropout of gated values, or of their gradient; x is overwritten."""
        if self._fixed.kept_DBL is None:
            return x_CBL
        return x_CBL.mul_(self._fixed.kept_DBL[self._channels, self._rows]).div_(self._fixed.share)

    def _inverse(self, x_CBF: Tensor, name: str) -> Tensor:
        shape = (*x_CBF.shape[:2], self._n_fft)
        out_CBn = self._work.empty(name, shape, x_CBF, self._w.skip_D.dtype)
        torch.fft.irfft(x_CBF, n=self._n_fft, norm="forward", out=out_CBn)
        return out_CBn[..., : self._length]
