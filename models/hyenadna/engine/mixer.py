"""The Hyena half of a block with gradients: a group of channels at a time, keeping only its input.

Windows longer than one device can hold are shared by processes: each has a part of the positions of every
window. All but the long convolutions works position by position. For those, processes swap positions for
channels, which are independent of each other, and back, a group of channels at a time. Equal to a single
process up to rounding.

B sequence, L position, l positions of one process, N tokens of a few sequences, D width, C channels of a
group, K = 3 C rows of the projection that they need, H filter width, F frequency. Channel-major (C, B, L)
from projection to projection.

Where P processes share the sequences, a process has N tokens of its positions and convolves D / P channels. A
group has C of each process's channels, in the projections R = P C or 3 P C rows in the order of processes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hyenadna.errors import ModelError

from .gated import Convolutions, Fixed, Gradients, Group
from .pointwise import Norm, NormGradients, zeros
from .products import add_product_, product
from .tiling import slices
from .workspace import Workspace


class MixerWithGradients(torch.autograd.Function):
    """Norm, `operator.HyenaOperator` and its filter's last layer, (B, L, D) to (B, L, D).

    Unless `Fixed.keep` is set, nothing but the arguments is kept for the backward pass, which computes
    projections, filters and spectra again, a group of channels at a time.
    """

    @staticmethod
    def forward(ctx: Any, r_BLD: Tensor, *arguments: Any) -> Tensor:
        """Compute the mixer's output in the precision of its matrices.

        Args:
            ctx: torch's.
            r_BLD: residual stream; this process's positions where others share the sequences.
            arguments: norm weight and bias, the projection in, the tensors of `Convolutions`, the projection
                out with its bias, then a `Fixed`.
        """
        *tensors, fixed = arguments
        ctx.save_for_backward(r_BLD, *tensors)
        ctx.fixed, ctx.parts = fixed, []
        norm_w, norm_b, in_w, *weights, out_w, out_b = tensors
        d, keep, swap = r_BLD.shape[-1], fixed.keep and any(ctx.needs_input_grad), _Swap(r_BLD, fixed)
        out_BLD = torch.empty(r_BLD.shape, dtype=in_w.dtype, device=r_BLD.device)
        w = swap.convolutions(weights)
        for rows, groups in swap.parts(len(w.skip_D)):
            h_ND = _normalised(r_BLD[rows], norm_w, norm_b, fixed, in_w.dtype)
            yx_DN = swap.work.empty("yx", (d, len(h_ND)), h_ND, h_ND.dtype)
            opened = []
            for channels in groups:
                kept = Workspace() if keep else swap.work
                group = swap.open(in_w, h_ND, w, (rows, channels), kept)
                swap.multiply(group.y.to(yx_DN.dtype), group.x0, swap.rows(yx_DN, channels))
                if keep:  # a group holds the spectra of its filters
                    opened.append(group)
            if keep:
                ctx.parts.append((h_ND, opened))
            product(yx_DN.T, out_w, out_b, out_BLD[rows].view(-1, d))
        return out_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BLD: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of r, the norm, the projections and `Convolutions` that are needed."""
        r_BLD, norm_w, norm_b, in_w, *weights, out_w, out_b = ctx.saved_tensors
        fixed, swap = ctx.fixed, _Swap(r_BLD, ctx.fixed)
        w = swap.convolutions(weights)
        needed, r_ND = ctx.needs_input_grad[:-1], r_BLD.flatten(0, 1)
        norms = NormGradients(r_ND, norm_w, norm_b, needed[:3])
        d_in_w, d_out_w, d_out_b = zeros((in_w, out_w, out_b), (needed[3], *needed[-2:]))
        gradients = w.zeros(needed[4:-2])
        kept, ctx.parts = ctx.parts, []  # what is kept lasts for one backward pass
        for i, (rows, groups) in enumerate(swap.parts(len(w.skip_D))):
            h_ND, opened = (
                kept[i] if kept else (_normalised(r_BLD[rows], norm_w, norm_b, fixed, in_w.dtype), None)
            )
            d_h_ND = torch.zeros_like(h_ND) if any(needed[:3]) else None
            d_out_ND = d_out_BLD[rows].reshape(h_ND.shape)
            if d_out_b is not None:
                d_out_b.add_(d_out_ND.sum(0))
            for j, channels in enumerate(groups):
                part = (rows, channels)
                group = opened[j] if opened else swap.open(in_w, h_ND, w, part, swap.work)
                d_yx_CBL = group.room()
                swap.sequences(swap.rows(out_w.T, channels).flatten(0, 1), d_out_ND, d_yx_CBL)
                if d_out_w is not None:
                    yx_RN = swap.local_tokens(group.y.to(group.x0.dtype) * group.x0)
                    _add(swap.rows(d_out_w.T, channels), product(yx_RN, d_out_ND.T))
                d_u_RN = swap.local_tokens(group.backward(d_yx_CBL, gradients))
                if d_in_w is not None:
                    _add(swap.three(d_in_w, channels), product(d_u_RN, h_ND.T))
                if d_h_ND is not None:
                    add_product_(d_h_ND, d_u_RN.T, swap.three(in_w, channels).flatten(0, 2).T)
            del h_ND, opened  # a gigabyte for a million positions of width 256
            if d_h_ND is not None:
                first = rows.start * r_BLD.shape[1]
                for tokens in slices(len(d_h_ND), fixed.sizes.tokens):
                    in_all = slice(first + tokens.start, first + tokens.stop)
                    norms.add(Norm(r_ND[in_all], norm_w, norm_b, fixed.eps), in_all, d_h_ND[tokens])
        swap.share_features(gradients)
        d_r_ND, *d_norm = norms.sums
        d_r_BLD = None if d_r_ND is None else d_r_ND.view(r_BLD.shape)
        return d_r_BLD, *d_norm, d_in_w, *w.in_order(gradients), d_out_w, d_out_b, None


class _Swap:
    """Exchange between all channels of a process's positions and whole sequences of its channels.

    Attributes:
        work: reused memory.

    Args:
        r_BLD: residual stream.
        fixed: what is not learned; without its `context`, nothing is to be swapped and nothing is copied.
    """

    def __init__(self, r_BLD: Tensor, fixed: Fixed) -> None:
        self.work, self._fixed = Workspace(), fixed
        self._context, self._sizes, self._length = fixed.context, fixed.sizes, len(fixed.t_L)
        self._processes = 1 if fixed.context is None else fixed.context.size
        self._batch, self._n_local = r_BLD.shape[:2]

    def parts(self, channels: int) -> Iterator[tuple[slice, list[slice]]]:
        """Yield sequences to be worked on together, each time with the groups of a process's channels."""
        for rows in self._sizes.row_groups(self._batch, self._length):
            samples = len(range(self._batch)[rows]) * self._length
            yield rows, list(self._sizes.channel_groups(channels, samples))

    def convolutions(self, weights: Sequence[Tensor]) -> Convolutions:
        """Return the tensors of `Convolutions`, with the features of all positions."""
        w = Convolutions(*weights)
        if self._context is None:
            return w
        return replace(w, features_LH=self._context.all_positions(w.features_LH)[: self._length])

    def share_features(self, gradients: Gradients) -> None:
        """Replace the gradient of all positions' features by its sum over the processes, of this one's."""
        if self._context is not None and "features_LH" in gradients:
            d_LH = gradients["features_LH"]
            gradients["features_LH"] = self._context.sum_of_positions(d_LH, self._n_local, self.work)

    def rows(self, tensor: Tensor, channels: slice) -> Tensor:
        """Return the rows (P, C, ...) of a group of channels."""
        return tensor.view(self._processes, -1, tensor.shape[-1])[:, channels]

    def three(self, tensor: Tensor, channels: slice) -> Tensor:
        """Return the rows (P, 3, C, ...) for x0, x1 and v of a group of channels."""
        return tensor.view(3, self._processes, -1, tensor.shape[-1])[:, :, channels].transpose(0, 1)

    def open(
        self, in_w: Tensor, h_ND: Tensor, w: Convolutions, part: tuple[slice, slice], kept: Workspace
    ) -> Group:
        """Compute a group of channels of some sequences from their normalised tokens.

        Args:
            in_w: projection in.
            h_ND: the tokens.
            w: all channels' weights.
            part: the sequences and the channels.
            kept: memory of what the group's `backward` needs.
        """
        in_w_RD = self.three(in_w, part[1]).flatten(0, 2)
        shape = (len(in_w_RD) // self._processes, len(h_ND) // self._n_local, self._length)
        u_KBL = kept.empty("u", shape, h_ND, h_ND.dtype)
        self.sequences(in_w_RD, h_ND, u_KBL)
        return Group(u_KBL, w, self._fixed, part, kept, self.work)

    def sequences(self, w_RD: Tensor, t_ND: Tensor, out_CBL: Tensor) -> None:
        """Multiply rows with tokens, (R, N), as whole sequences of this process's channels.

        Args:
            w_RD: rows.
            t_ND: tokens.
            out_CBL: where they go.
        """
        if self._context is None:
            product(w_RD, t_ND, out_MN=out_CBL.flatten(1))
        else:
            channels, batch = len(w_RD) // self._processes, len(t_ND) // self._n_local
            shape = (self._processes, channels, batch, self._n_local)
            sent_PCBl = self.work.empty("sent", shape, t_ND, t_ND.dtype)
            product(w_RD, t_ND, out_MN=sent_PCBl.view(len(w_RD), -1))
            self._context.to_channels(sent_PCBl, out_CBL, self.work)

    def local_tokens(self, x_CBL: Tensor) -> Tensor:
        """Turn whole sequences of this process's channels into its tokens, (R, N), until the next swap."""
        if self._context is None:
            return x_CBL.flatten(1)
        return self._context.to_positions(x_CBL, self._n_local, self.work).flatten(2).flatten(0, 1)

    def multiply(self, y_CBL: Tensor, x0_CBL: Tensor, out_PCN: Tensor) -> None:
        """Compute `local_tokens` of the product."""
        if self._context is None:
            torch.mul(y_CBL, x0_CBL, out=out_PCN.view(x0_CBL.shape))
        else:
            out_PCN.copy_(self.local_tokens(x0_CBL.mul_(y_CBL)).view(out_PCN.shape))


def _add(rows: Tensor, part: Tensor) -> None:
    rows += part.view(rows.shape)


def _normalised(r_BLD: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed, dtype: torch.dtype) -> Tensor:
    """Return the normalised tokens (N, D) of sequences."""
    r_ND = r_BLD.reshape(-1, r_BLD.shape[-1])
    h_ND = torch.empty(r_ND.shape, dtype=dtype, device=r_ND.device)
    for tokens in slices(len(r_ND), fixed.sizes.tokens):
        h_ND[tokens] = Norm(r_ND[tokens], weight, bias, fixed.eps).out
    return h_ND


class ContextGroup:
    """Processes that share windows.

    A copy of it, as in a copied or pickled model, is None: a group belongs to its processes.

    Args:
        group: the processes; None for all.

    Attributes:
        size: their number; `rank` is the index of this one.
    """

    def __init__(self, group: "dist.ProcessGroup | None" = None):
        self._group = group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)

    def local_positions(self, x_BL: Tensor, fill: float) -> Tensor:
        """Return this process's positions (B, l) of a full tensor, filled up on the right to a multiple of P.

        The model is causal, so that the filling changes nothing before it.
        """
        n_local = -(-x_BL.shape[1] // self.size)
        x_Bl = x_BL[:, self.positions(n_local)]
        return functional.pad(x_Bl, (0, n_local - x_Bl.shape[1]), value=fill)

    def positions(self, n_local: int) -> slice:
        """Return the positions of this process, of which each has `n_local`."""
        return slice(self.rank * n_local, (self.rank + 1) * n_local)

    def local_channels(self, width: int) -> slice:
        """Return the channels that this process convolves.

        Raises:
            ModelError: the width is no multiple of P.
        """
        if width % self.size:
            raise ModelError(
                f"a width of {width} cannot be shared by {self.size} processes",
                remedy="take a number of processes that divides it",
            )
        n_local = width // self.size
        return slice(self.rank * n_local, (self.rank + 1) * n_local)

    def to_channels(self, x_PCBl: Tensor, out_CBL: Tensor, work: Workspace) -> None:
        """Swap positions for channels.

        Args:
            x_PCBl: this process's positions of the channels of each process.
            out_CBL: takes all positions of this process's channels; those beyond L are left out.
            work: memory to work in.
        """
        for positions, part_CBl in zip(
            self._position_slices(x_PCBl, out_CBL), self._exchange(x_PCBl, work), strict=True
        ):
            target_CBl = out_CBL[..., positions]
            target_CBl.copy_(part_CBl[..., : target_CBl.shape[-1]])

    def to_positions(self, x_CBL: Tensor, n_local: int, work: Workspace) -> Tensor:
        """Swap channels for positions: this process's positions of the channels of each, (P, C, B, l).

        Args:
            x_CBL: all positions of this process's channels; missing ones count as zero.
            n_local: positions of a process.
            work: memory to work in, which the result lies in until the next swap.
        """
        sent_PCBl = work.empty("sent", (self.size, *x_CBL.shape[:2], n_local), x_CBL, x_CBL.dtype)
        for positions, part_CBl in zip(self._position_slices(sent_PCBl, x_CBL), sent_PCBl, strict=True):
            target_CBl = x_CBL[..., positions]
            part_CBl[..., : target_CBl.shape[-1]] = target_CBl
            part_CBl[..., target_CBl.shape[-1] :] = 0
        return self._exchange(sent_PCBl, work)

    def all_positions(self, x_lH: Tensor) -> Tensor:
        """Return the positions of all processes (P l, H)."""
        x_LH = x_lH.new_empty(self.size * len(x_lH), x_lH.shape[1])
        dist.all_gather_into_tensor(x_LH, x_lH.contiguous(), group=self._group)
        return x_LH

    def sum_of_positions(self, x_LH: Tensor, n_local: int, work: Workspace) -> Tensor:
        """Return the sum over the processes of what each has for all positions, of this one's (l, H).

        Args:
            x_LH: as many of the P l positions as there are.
            n_local: positions of a process.
            work: memory to work in.
        """
        padded_LH = functional.pad(x_LH, (0, 0, 0, self.size * n_local - len(x_LH)))
        return self._exchange(padded_LH.view(self.size, n_local, -1), work).sum(0)

    def _position_slices(self, x_PCBl: Tensor, x_CBL: Tensor) -> list[slice]:
        """Return the positions of each process, as slices of all L."""
        n_local, length = x_PCBl.shape[-1], x_CBL.shape[-1]
        starts = [min(process * n_local, length) for process in range(self.size + 1)]
        return [slice(start, end) for start, end in pairwise(starts)]

    def _exchange(self, x_PCBl: Tensor, work: Workspace) -> Tensor:
        """Send part p to process p, and receive its part."""
        received_PCBl = work.empty("received", tuple(x_PCBl.shape), x_PCBl, x_PCBl.dtype)
        dist.all_to_all_single(received_PCBl, x_PCBl, group=self._group)
        return received_PCBl

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()

    def __deepcopy__(self, memo: dict[int, object]) -> Self | None:
        return None


def _nothing() -> None:
    return None
