"""Inference: one pass in place, its states streamed out piece by piece.

Every position-wise part of a block works on slices of tokens, its convolution on groups of channels. At no
time is there more than the residual stream, the gated values of one layer, one group of channels and one
slice of tokens: 2.4 GB for a million positions of width 256. Activations are channel-major (C, B, L) from
projection to projection: the matrix products read and write them so at no cost, and neither the short nor the
long convolution then needs a transpose.

B sequence, L position, D width, K channels of the projection, V vocabulary row, b and t sequences and
positions of a tile, n its tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from hyenadna.tokenizer import A, T

from .convolution import Partition, Spectra, convolve_, partition
from .pointwise import gelu, layer_norm, short_conv
from .products import activated_product, add_product_, product
from .tiling import Tile, Tiling, tiling
from .workspace import Workspace

if TYPE_CHECKING:
    from hyenadna.backbone import Backbone, Block, Mlp
    from hyenadna.model import HyenaDNA
    from hyenadna.operator import HyenaOperator

FINAL = -1
"""The layer after the final norm."""
BASES = (A, T + 1)
"""First and last vocabulary row, half-open, of A, C, G and T."""


@dataclass(frozen=True)
class StateSlice:
    """States of some positions.

    Attributes:
        layer: 1 and up for the residual stream after that block, -1 after the final norm.
        tile: which sequences and positions.
        states: (b, t, D); valid until the next slice.
    """

    layer: int
    tile: Tile
    states: Tensor


@torch.no_grad()
def stream_states(
    model: "HyenaDNA", ids_BL: Tensor, layers: Sequence[int] = (FINAL,)
) -> Iterator[StateSlice]:
    """Run a model once and yield the states of these layers, slice by slice.

    Slices come layer by layer, the final norm last, and within a layer in the order of sequences, then of
    positions. Equals `HyenaDNA.plain`.

    Args:
        model: the model; dropout does not act.
        ids_BL: token ids, padded on the right.
        layers: which layers.

    Raises:
        ModelError: ids are empty or too long.
    """
    r_BLD = prompted_stream(model.backbone, ids_BL)
    tokens_BLD = r_BLD[:, model.backbone.n_soft :]
    tiles = list(_tiling(r_BLD).tiles(*ids_BL.shape))
    for number in run_blocks_(model.backbone, ids_BL, r_BLD):
        for tile in tiles if number in layers else ():
            yield StateSlice(number, tile, tokens_BLD[tile.rows, tile.positions])
    for tile in tiles if FINAL in layers else ():
        yield StateSlice(FINAL, tile, final_norm(model.backbone, tokens_BLD[tile.rows, tile.positions]))


@torch.no_grad()
def read(
    backbone: "Backbone", ids_BL: Tensor, *, hidden_states: bool = False
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Compute the states (B, L, D) after the final norm and, if `hidden_states`, after each block.

    Equals `Backbone.forward` of the embedded ids.
    """
    r_BLD = prompted_stream(backbone, ids_BL)
    tokens_BLD = r_BLD[:, backbone.n_soft :]
    blocks = run_blocks_(backbone, ids_BL, r_BLD)
    residuals = [tokens_BLD.clone() if hidden_states else tokens_BLD for _ in blocks]
    return final_norm_(backbone, tokens_BLD), tuple(residuals) if hidden_states else None


@torch.no_grad()
def token_log_probs(
    model: "HyenaDNA", ids_BL: Tensor, targets_BL: Tensor, among: tuple[int, int] | None = BASES
) -> Tensor:
    """Compute log p(target | tokens up to and including the position) in nats, (B, L), float32 at least.

    Args:
        model: the model.
        ids_BL: token ids.
        targets_BL: a token for each position, usually the next one; where it is not `among` those allowed the
            result is 0.
        among: the vocabulary rows, half-open, over which probabilities are renormalised; None for all.
    """
    first, last = among or (0, model.config.n_vocab)
    dtype = torch.promote_types(model.lm_weight.dtype, torch.float32)
    log_p_BL = torch.zeros(ids_BL.shape, dtype=dtype, device=ids_BL.device)
    for piece in stream_states(model, ids_BL):
        rows, positions = piece.tile.rows, piece.tile.positions
        logits_btV = model.lm_logits(piece.states)[..., first:last].to(dtype)
        target_bt = targets_BL[rows, positions] - first
        allowed_bt = (target_bt >= 0) & (target_bt < last - first)
        chosen_bt1 = target_bt.where(allowed_bt, 0)[..., None]
        log_p_bt = logits_btV.log_softmax(-1).gather(-1, chosen_bt1)[..., 0]
        log_p_BL[rows, positions] = log_p_bt.where(allowed_bt, 0)
    return log_p_BL


def prompted_stream(backbone: "Backbone", ids_BL: Tensor) -> Tensor:
    """Embed tokens after the soft prompt, (B, n_soft + L, D): the input of `run_blocks_`.

    Raises:
        ModelError: there are no tokens, or too many, or a module is wrapped by another package.
    """
    backbone.check_length(ids_BL.shape[1])
    backbone.check_readable()
    r_BLD = token_stream(backbone, ids_BL)
    return r_BLD if backbone.prompt is None else backbone.prompt.read(r_BLD)


def token_stream(backbone: "Backbone", ids_BL: Tensor) -> Tensor:
    """Embed tokens alone (B, L, D), in the precision of the residual stream."""
    x_BLD = backbone.embed(ids_BL)
    return x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32))


def run_blocks_(backbone: "Backbone", ids_BL: Tensor, r_BLD: Tensor) -> Iterator[int]:
    """Run the blocks in place on the residual stream of tokens; yield each block's number (from 1)."""
    b, length, d = r_BLD.shape
    sizes = _tiling(r_BLD)
    filters = [block.mixer.filter_fn for block in backbone.blocks()]
    part = partition(length, sizes)
    dtype = product_dtype(backbone, r_BLD.device)
    z_DBL = torch.empty(d, b, length, dtype=dtype, device=r_BLD.device)
    work = Workspace()
    with plain_precision(r_BLD.device):
        first = first_pass(backbone, dtype, sizes, ids_BL)
    for index, step in enumerate(chain([first], later_passes(backbone, dtype, sizes))):
        with torch.no_grad(), plain_precision(r_BLD.device):
            spectra = backbone.spectra.spectra(filters, index, part)
            step.gate_(r_BLD, z_DBL)
            step.convolve_(z_DBL, spectra, part, work)
            step.finish_(r_BLD, z_DBL)
        yield index + 1


def final_norm(backbone: "Backbone", r: Tensor) -> Tensor:
    """Compute the states after the final norm, in its own precision."""
    return layer_norm(backbone.ln_f, r, backbone.ln_f.weight.dtype)


def final_norm_(backbone: "Backbone", r_BLD: Tensor) -> Tensor:
    """Apply `final_norm` to a residual stream, in place if the precision is the same."""
    if backbone.ln_f.weight.dtype != r_BLD.dtype:
        return final_norm(backbone, r_BLD)
    for tile in _tiling(r_BLD).tiles(*r_BLD.shape[:2]):
        slice_btD = r_BLD[tile.rows, tile.positions]
        slice_btD.copy_(final_norm(backbone, slice_btD))
    return r_BLD


def product_dtype(backbone: "Backbone", device: torch.device) -> torch.dtype:
    """Return the precision of matrix products: an autocast's where one is on, else the weights' own."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return backbone.blocks()[0].mixer.in_proj.bias.dtype


def plain_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast: the engine chooses each precision itself."""
    return torch.autocast(device.type, enabled=False)


def _tiling(r_BLD: Tensor) -> Tiling:
    return tiling(r_BLD.shape[-1], r_BLD.device)


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
        u_KBt = product(self._in_w[channels], h_nD).view(-1, b, t)
        return short_conv(u_KBt, self._in_b[channels], self._short_w[channels], self._short_b[channels])

    def mix_(self, r_BtD: Tensor, yx_DBt: Tensor) -> None:
        """Add to residuals the mixer's output, made from the gated convolution y x0, and then the MLP's."""
        b, t, d = r_BtD.shape
        r_nD = r_BtD.reshape(b * t, d)  # a view: tiles are whole sequences, or positions of a single one
        self._add_(r_nD, yx_DBt.reshape(d, b * t).T, self._out_w, self._out_b)
        h_nD = layer_norm(self._block.norm2, r_nD, self._dtype)
        inner_nI = activated_product(h_nD, self._fc1_w, self._fc1_b, gelu)
        self._add_(r_nD, inner_nI, self._fc2_w, self._fc2_b)

    def gate_(self, r_BLD: Tensor, z_DBL: Tensor) -> None:
        """Put the inputs of the long convolution into z, from the residual stream r."""
        for tile in self._tiling.tiles(*r_BLD.shape[:2]):
            s_KBt = self._gates(r_BLD, tile, slice(self._d, None))
            torch.mul(s_KBt[self._d :], s_KBt[: self._d], out=z_DBL[:, tile.rows, tile.positions])

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
            x0_DBt = self._gates(r_BLD, tile, slice(0, self._d))
            self.mix_(r_BLD[tile.rows, tile.positions], x0_DBt.mul_(y_DBL[:, tile.rows, tile.positions]))

    def _add_(self, r_nD: Tensor, x_nK: Tensor, weight_DK: Tensor, bias_D: Tensor) -> None:
        """Add a linear layer's output to residuals."""
        if r_nD.dtype == self._dtype:
            add_product_(r_nD, x_nK, weight_DK, bias_D)
        else:
            r_nD += product(x_nK, weight_DK, bias_D)

    def _gates(self, r_BLD: Tensor, tile: Tile, channels: slice) -> Tensor:
        """Compute `project` of the positions of a tile, from the residual stream."""
        before = min(self.history, tile.start)
        return self.project(r_BLD[tile.rows, tile.start - before : tile.end], channels)[..., before:]


class _FirstBlockPass(BlockPass):
    """The first block, whose projections of tokens come from a table.

    The short convolution reaches a few tokens back, so that there are no more different projections than
    short words of the tokens that occur: of A, C, G and T, 125 with three taps.

    Args:
        block: the first block.
        dtype: of the products.
        tiling: sizes of slices and groups.
        r_WD: residuals of the tokens that occur.
        token_BL: which of them each token is.
    """

    def __init__(self, block: "Block", dtype: torch.dtype, tiling: Tiling, r_WD: Tensor, token_BL: Tensor):
        super().__init__(block, dtype, tiling)
        # symbol 0 stands before the first token, where the short convolution reads zeros
        symbol_BL, n_symbols = token_BL + 1, len(r_WD) + 1
        self._word_BL = symbol_BL.clone()
        for back in range(1, self._short_w.shape[1]):
            self._word_BL *= n_symbols
            self._word_BL[:, back:] += symbol_BL[:, :-back]
        h_WD = layer_norm(block.norm1, r_WD, dtype)
        u_KW = functional.pad(product(self._in_w, h_WD) + self._in_b[:, None], (1, 0))
        # looked up in float32: torch does that six times as fast as in bfloat16
        wide = torch.promote_types(dtype, torch.float32)
        self._table_KC = self._short_b[:, None].to(wide)
        for tap_K in self._short_w.T.flip(0):
            self._table_KC = (self._table_KC[..., None] + (u_KW * tap_K[:, None])[:, None]).flatten(1)

    def _gates(self, _r_BLD: Tensor, tile: Tile, channels: slice) -> Tensor:
        word_bt = self._word_BL[tile.rows, tile.positions]
        s_Kn = self._table_KC[channels].index_select(1, word_bt.flatten())
        return s_Kn.view(-1, *word_bt.shape).to(self._dtype)


def first_pass(backbone: "Backbone", dtype: torch.dtype, tiling: Tiling, ids_BL: Tensor) -> BlockPass:
    """Return the pass of the first block over the stream of these tokens."""
    block = backbone.blocks()[0]
    if backbone.prompt is None:
        seen_W, token_BL = torch.unique(ids_BL, return_inverse=True)
        if (len(seen_W) + 1) ** block.mixer.short_filter.kernel_size[0] <= ids_BL.numel():
            r_WD = token_stream(backbone, seen_W[None])[0]
            return _FirstBlockPass(block, dtype, tiling, r_WD, token_BL)
    return BlockPass(block, dtype, tiling)


def later_passes(backbone: "Backbone", dtype: torch.dtype, tiling: Tiling) -> Iterator[BlockPass]:
    """Yield the passes of the other blocks in order, which no token changes."""
    return (BlockPass(block, dtype, tiling) for block in backbone.blocks()[1:])
