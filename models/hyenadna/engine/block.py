"""One block in place: every position-wise part on slices of tokens, the convolution on groups of channels.

Activations are channel-major (C, B, L) from projection to projection: the matrix products read and write
them so at no cost, and neither the short nor the long convolution then needs a transpose.

B sequence, L position, D width, K channels of the projection, n tokens of a tile, t its positions.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .convolution import Partition, Workspace, convolve_
from .filters import Spectra
from .pointwise import gelu, layer_norm, short_conv
from .tiling import Tile, Tiling

if TYPE_CHECKING:
    from hyenadna.backbone import Block, Mlp
    from hyenadna.operator import HyenaOperator


class BlockPass:
    """A block with its matrices in the precision of the products.

    Args:
        block: the block.
        dtype: of the products: the weights' own, or an autocast's.
        tiling: sizes of slices and groups.
    """

    def __init__(self, block: "Block", dtype: torch.dtype, tiling: Tiling):
        mixer: HyenaOperator = block.mixer
        mlp: Mlp = block.mlp
        self._block, self._dtype, self._tiling = block, dtype, tiling
        self._d = mixer.out_proj.out_features
        self._in_w, self._in_b = mixer.in_proj.weight.to(dtype), mixer.in_proj.bias.to(dtype)
        self._short_w = mixer.short_filter.weight[:, 0].to(dtype)
        self._short_b = mixer.short_filter.bias.to(dtype)  # type: ignore[union-attr]
        self._out_w, self._out_b = mixer.out_proj.weight.to(dtype), mixer.out_proj.bias.to(dtype)
        self._fc1_w, self._fc1_b = mlp.fc1.weight.to(dtype), mlp.fc1.bias.to(dtype)
        self._fc2_w, self._fc2_b = mlp.fc2.weight.to(dtype), mlp.fc2.bias.to(dtype)

    @property
    def history(self) -> int:
        """Earlier positions to project with a slice: those its first one depends on, and a few more.

        Products whose rows begin at multiples of eight numbers are a tenth faster.
        """
        return -(-(self._short_w.shape[1] - 1) // 8) * 8

    def project(self, r_BtD: Tensor, channels: slice) -> Tensor:
        """Compute norm, projection and short convolution of residuals, (K, B, t).

        Args:
            r_BtD: residuals of consecutive positions.
            channels: of the 3 D of the projection: x0 the first D, x1 the next, v the last.

        Returns:
            s; its first positions are right only where r begins with the sequence.
        """
        b, t, d = r_BtD.shape
        h_nD = layer_norm(self._block.norm1, r_BtD, self._dtype).reshape(b * t, d)
        u_KBt = torch.mm(self._in_w[channels], h_nD.T).view(-1, b, t)
        return short_conv(u_KBt, self._in_b[channels], self._short_w[channels], self._short_b[channels])

    def gated(self, r_BtD: Tensor) -> Tensor:
        """Compute the input v x1 of the long convolution, (D, B, t), as `project`."""
        s_KBt = self.project(r_BtD, slice(self._d, None))
        return s_KBt[self._d :].mul_(s_KBt[: self._d])

    def mix_(self, r_BtD: Tensor, yx_DBt: Tensor) -> None:
        """Add to residuals the mixer's output, made from the gated convolution y x0, and then the MLP's."""
        b, t, d = r_BtD.shape
        r_nD = r_BtD.reshape(b * t, d)  # a view: tiles are whole sequences, or positions of a single one
        r_nD += torch.addmm(self._out_b, yx_DBt.reshape(d, b * t).T, self._out_w.T)
        h_nD = layer_norm(self._block.norm2, r_nD, self._dtype)
        inner_nI = gelu(torch.addmm(self._fc1_b, h_nD, self._fc1_w.T))
        r_nD += torch.addmm(self._fc2_b, inner_nI, self._fc2_w.T)

    def gate_(self, r_BLD: Tensor, z_DBL: Tensor) -> None:
        """Put the inputs of the long convolution into z, from the residual stream r."""
        for tile in self._tiling.tiles(*r_BLD.shape[:2]):
            before = self._before(tile)
            z_DBL[:, tile.rows, tile.positions] = self.gated(_with_history(r_BLD, tile, before))[..., before:]

    def convolve_(self, z_DBL: Tensor, spectra: Spectra, part: Partition, work: Workspace) -> None:
        """Replace z by its long convolution, skip term included.

        Args:
            z_DBL: input and output.
            spectra: of this block's filter.
            part: the partition they were made for.
            work: memory to work in.
        """
        groups = list(self._tiling.channel_groups(self._d, z_DBL[0].numel()))
        for channels, spectrum in spectra.groups(groups, work):
            convolve_(z_DBL[channels], spectrum, part, work)

    def finish_(self, r_BLD: Tensor, y_DBL: Tensor) -> None:
        """Gate the convolution y, which may be longer, and add the outputs of mixer and MLP to r."""
        # Later positions first: a tile's history must not have been overwritten yet.
        for tile in reversed(list(self._tiling.tiles(*r_BLD.shape[:2]))):
            before = self._before(tile)
            x0_DBt = self.project(_with_history(r_BLD, tile, before), slice(0, self._d))[..., before:]
            self.mix_(r_BLD[tile.rows, tile.positions], x0_DBt.mul_(y_DBL[:, tile.rows, tile.positions]))

    def _before(self, tile: Tile) -> int:
        return min(self.history, tile.start)


def _with_history(r_BLD: Tensor, tile: Tile, before: int) -> Tensor:
    return r_BLD[tile.rows, tile.start - before : tile.end]
