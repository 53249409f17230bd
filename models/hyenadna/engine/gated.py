"""Gate, long convolution, gate with gradients: one group of channels of a few whole sequences.

B sequence, L position, D width, C channels of a group, K = 3 C rows of the projection that they need, H
filter width, F frequency. Everything is channel-major (C, B, L).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .convolution import complex_dtype, fft_length
from .pointwise import short_conv, short_conv_backward_
from .tiling import Tiling
from .workspace import Workspace

if TYPE_CHECKING:
    from .mixer import ContextGroup

_OF_THE_FILTER = {"features_LH", "last_w", "skip_D"}


@dataclass(frozen=True)
class Fixed:
    """Everything of a mixer that is not learned.

    Attributes:
        eps: of its norm.
        t_L: positions of the filter's decay window, `rate_D` its rates and `shift` its floor.
        kept_DBL: true where dropout keeps a gated value, which it divides by `share`; None without dropout.
        sizes: of the pieces worked on at once.
        keep: keep what the backward pass needs, instead of computing it again.
        context: the processes that share the sequences; the D of all above are then this one's channels.
    """

    eps: float
    t_L: Tensor
    rate_D: Tensor
    shift: float
    kept_DBL: Tensor | None
    share: float
    sizes: Tiling
    keep: bool = False
    context: "ContextGroup | None" = None


@dataclass(frozen=True)
class Convolutions:
    """The learned tensors of a mixer between its matrix products.

    Attributes:
        in_b: (3 D), bias of the projection to x0, x1 and v.
        short_w: (3 D, taps), `short_b` (3 D): short convolution.
        features_LH: the filter MLP before its last layer, `last_w` (D, H) that layer.
        skip_D: weight of the unconvolved value.
    """

    in_b: Tensor
    short_w: Tensor
    short_b: Tensor
    features_LH: Tensor
    last_w: Tensor
    skip_D: Tensor

    def zeros(self, needed: Sequence[bool]) -> "Gradients":
        """Return zeros to add gradients to, for the tensors, in order, that need one."""
        pairs = zip(vars(self).items(), needed, strict=True)
        return {name: torch.zeros_like(tensor) for (name, tensor), need in pairs if need}

    def in_order(self, gradients: "Gradients") -> list[Tensor | None]:
        """Return the gradients of all tensors, None for those that need none."""
        return [gradients.get(name) for name in vars(self)]


Gradients = dict[str, Tensor]
"""By the names of `Convolutions`, of those tensors that need a gradient."""


def three(tensor: Tensor, channels: slice) -> Tensor:
    """Return the rows (3 C, ...) for x0, x1 and v of a tensor with a row for each of the 3 D."""
    return tensor.view(3, -1, *tensor.shape[1:])[:, channels].flatten(0, 1)


def add_to_three(tensor: Tensor, channels: slice, part: Tensor) -> None:
    """Add to the rows that `three` returns."""
    rows = tensor.view(3, -1, *tensor.shape[1:])[:, channels]
    rows += part.view(rows.shape)


class Group:
    """A group of channels of a few sequences: everything between the projections.

    Attributes:
        x0: the outer gate (C, B, L).
        y: the long convolution of the gated values with skip term, (C, B, L), in the filter's precision.

    Args:
        u_KBL: projection without its bias, which is added in place.
        w: all channels' weights.
        fixed: what is not learned.
        part: the sequences and the channels.
        kept: memory of what `backward` needs, y included.
        work: memory of the rest, which the next group may use.
    """

    def __init__(
        self,
        u_KBL: Tensor,
        w: Convolutions,
        fixed: Fixed,
        part: tuple[slice, slice],
        kept: Workspace,
        work: Workspace,
    ) -> None:
        self._u_KBL, self._w, self._fixed, self._kept, self._work = u_KBL, w, fixed, kept, work
        self._rows, self._channels = part
        self._length = u_KBL.shape[-1]
        self._n_fft = fft_length(2 * self._length - 1)
        self._short_w = three(w.short_w, self._channels)
        s_KBL = self._like_u(kept, "s")
        in_b, short_b = three(w.in_b, self._channels), three(w.short_b, self._channels)
        short_conv(u_KBL, in_b, self._short_w, short_b, s_KBL)
        self.x0, self._x1, self._v = s_KBL.chunk(3)
        self._window_CL, self._k_C1F = self._filter()
        self._x_CBF = self._gated_spectrum()
        product_CBF = torch.mul(self._x_CBF, self._k_C1F, out=self._spectrum(work, "product"))
        self.y = self._inverse(product_CBF)

    def room(self) -> Tensor:
        """Return memory for the gradient of the output, (C, B, L), which `backward` overwrites."""
        return self._like_u(self._work, "d_s").chunk(3)[2]

    def backward(self, d_yx_CBL: Tensor, gradients: Gradients) -> Tensor:
        """Compute the gradient of u (K, B, L), until the next call, and add those of this group's weights.

        It can be called once, since it overwrites what has been kept, y included.

        Args:
            d_yx_CBL: gradient of the product y x0, in `room`.
            gradients: of all channels.
        """
        d_s_KBL = self._like_u(self._work, "d_s")
        d_x0, d_x1, d_v = d_s_KBL.chunk(3)
        torch.mul(d_yx_CBL, self.y, out=d_x0)
        g_CBF = torch.fft.rfft(self._padded(d_yx_CBL, self.x0), out=self._spectrum(self._work, "product"))
        if gradients.keys() & _OF_THE_FILTER:
            self._filter_gradients(self._x_CBF.conj_physical_().mul_(g_CBF).sum(1), gradients)
        d_gated_CBL = self._inverse(g_CBF.mul_(self._k_C1F.conj_physical_())).to(d_s_KBL.dtype)
        self._dropped(d_gated_CBL)
        torch.mul(d_gated_CBL, self._v, out=d_x1)
        torch.mul(d_gated_CBL, self._x1, out=d_v)
        self._short_backward_(d_s_KBL, gradients)
        return d_s_KBL

    def _short_backward_(self, d_s_KBL: Tensor, gradients: Gradients) -> None:
        """Replace the gradient of s by that of u."""
        channels, d_short_w = self._channels, None
        if "short_b" in gradients:
            add_to_three(gradients["short_b"], channels, d_s_KBL.sum((1, 2)))
        if "short_w" in gradients:
            d_short_w = torch.zeros_like(self._short_w)
        short_conv_backward_(d_s_KBL, self._u_KBL, self._short_w, d_short_w)
        if d_short_w is not None:
            add_to_three(gradients["short_w"], channels, d_short_w)
        if "in_b" in gradients:
            add_to_three(gradients["in_b"], channels, d_s_KBL.flatten(1).sum(1))

    def _filter(self) -> tuple[Tensor, Tensor]:
        """Compute the decay window (C, L), and the spectrum (C, 1, F) with the skip term in tap 0."""
        fixed, w, channels = self._fixed, self._w, self._channels
        window_CL = torch.exp(-fixed.t_L * fixed.rate_D[channels, None]).add_(fixed.shift)
        k_CL = torch.mm(w.last_w[channels], w.features_LH.T).mul_(window_CL)
        k_CL[:, 0] += w.skip_D[channels]
        return window_CL, torch.fft.rfft(k_CL, n=self._n_fft, norm="forward")[:, None]

    def _filter_gradients(self, product_CF: Tensor, gradients: Gradients) -> None:
        channels = self._channels
        d_k_CL = torch.fft.irfft(product_CF, n=self._n_fft)[:, : self._length]
        if "skip_D" in gradients:
            gradients["skip_D"][channels] += d_k_CL[:, 0]
        d_k_CL = self._window_CL.mul_(d_k_CL)
        if "last_w" in gradients:
            gradients["last_w"][channels] += torch.mm(d_k_CL, self._w.features_LH)
        if "features_LH" in gradients:
            gradients["features_LH"].addmm_(d_k_CL.T, self._w.last_w[channels])

    def _like_u(self, work: Workspace, name: str) -> Tensor:
        """Return memory for the three parts of the projection, (K, B, L)."""
        return work.empty(name, tuple(self._u_KBL.shape), self._u_KBL, self._u_KBL.dtype)

    def _spectrum(self, work: Workspace, name: str) -> Tensor:
        """Return memory for the spectra of all sequences, (C, B, F)."""
        skip_D, (c, b, _) = self._w.skip_D, self.x0.shape
        shape = (c, b, self._n_fft // 2 + 1)
        return work.empty(name, shape, skip_D, complex_dtype(skip_D.dtype))

    def _gated_spectrum(self) -> Tensor:
        gated_CBn = self._padded(self._v, self._x1)
        self._dropped(gated_CBn[..., : self._length])
        spectrum_CBF: Tensor = torch.fft.rfft(gated_CBn, out=self._spectrum(self._kept, "gated"))
        return spectrum_CBF

    def _padded(self, x_CBL: Tensor, y_CBL: Tensor) -> Tensor:
        """Compute the product x y in the filter's precision, with zeros up to the transform's length."""
        shape, skip_D = (*x_CBL.shape[:2], self._n_fft), self._w.skip_D
        out_CBn = self._work.empty("padded", shape, skip_D, skip_D.dtype)
        torch.mul(x_CBL, y_CBL, out=out_CBn[..., : self._length])
        out_CBn[..., self._length :] = 0
        return out_CBn

    def _dropped(self, x_CBL: Tensor) -> Tensor:
        """Apply dropout to gated values, or to their gradient; x is overwritten."""
        if self._fixed.kept_DBL is None:
            return x_CBL
        return x_CBL.mul_(self._fixed.kept_DBL[self._channels, self._rows]).div_(self._fixed.share)

    def _inverse(self, x_CBF: Tensor) -> Tensor:
        shape = (*x_CBF.shape[:2], self._n_fft)
        out_CBn = self._kept.empty("y", shape, x_CBF, self._w.skip_D.dtype)
        torch.fft.irfft(x_CBF, n=self._n_fft, norm="forward", out=out_CBn)
        return out_CBn[..., : self._length]
