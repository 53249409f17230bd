"""Many variants of one window: only what changes is computed again.

The model is causal, so that outputs before the first changed token stay; after it the long convolution is
linear: conv(z_alt) = conv(z_ref) + conv(z_alt - z_ref), and the difference is zero before the change. What a
variant costs depends on the number of its positions, not on the window. A soft prompt is n_soft more
positions of the stream, before the first token: nothing changes in them either.

B window, L position of a window, S position of the stream, prompt included, K such a position that is kept, N
suffix, m position of a suffix and the few before it, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyenadna.errors import ModelError
from hyenadna.tokenizer import PAD

from .convolution import partition
from .inference import (
    BlockPass,
    final_norm,
    first_pass,
    later_passes,
    plain_precision,
    product_dtype,
    prompted_stream,
    token_stream,
)
from .tiling import tiling
from .workspace import Workspace

if TYPE_CHECKING:
    from hyenadna.model import HyenaDNA


@dataclass(frozen=True)
class Suffix:
    """The tokens of a variant from its first changed one on.

    A change of length is nothing special: later tokens then differ as well.

    Attributes:
        row: which window, 0-based.
        start: position of the first token, 0-based in the window; earlier ones are the window's.
        ids: tokens, (n,) int64; fewer than up to the window's end if later positions are not needed.
    """

    row: int
    start: int
    ids: Tensor


@dataclass(frozen=True)
class _Layer:
    """Record of a block's pass over the windows, at the positions kept.

    Attributes:
        r_BKD: residual stream before it.
        z_DBK: inputs of its long convolution.
        y_DBK: the convolution, before its gate.
    """

    r_BKD: Tensor
    z_DBK: Tensor
    y_DBK: Tensor


class ReferencePass:
    """One pass over windows, after which any number of variants of them is read at little cost.

    Keeps 3 D numbers for each block, window and position from `first` on: 100 MB for 8,192 positions, 4
    blocks, width 256. The last block leaves out what only earlier states need.

    Args:
        model: the model; dropout does not act. Its weights must not change while this is in use.
        ids_BL: token ids of windows of equal length.
        first: no suffix begins before this position.

    Attributes:
        first: as given.
        hidden_BLD: the windows' states after the final norm, from position `first` on.

    Raises:
        ModelError: the ids are not (B, L), are empty, or too long, or `first` is not inside.
    """

    @torch.no_grad()
    def __init__(self, model: "HyenaDNA", ids_BL: Tensor, first: int = 0):
        if ids_BL.ndim != 2:
            raise ModelError(f"token ids must be (batch, length), not {tuple(ids_BL.shape)}")
        r_BSD = prompted_stream(model.backbone, ids_BL)
        if not 0 <= first < ids_BL.shape[1]:
            raise ModelError(f"position {first:,} does not lie in windows of {ids_BL.shape[1]:,}")
        self._backbone, self._ids_BL, self.first = model.backbone, ids_BL, first
        self._dtype, self._sizes = product_dtype(self._backbone, r_BSD.device), tiling(*_width(r_BSD))
        self._work, self._layers = Workspace(), list[_Layer]()
        self._later = list(later_passes(self._backbone, self._dtype, self._sizes))
        steps = self._blocks(ids_BL)
        self._history = steps[0].history
        at = self._backbone.n_soft + first
        self._kept = max(0, at - self._history)
        hidden_BKD = self._read(r_BSD, steps)
        self.hidden_BLD = hidden_BKD[:, at - self._kept :]

    def _read(self, r_BSD: Tensor, steps: Sequence[BlockPass]) -> Tensor:
        """Compute the states (B, K, D); the first of them are right only if they are the stream's first."""
        z_DBS = self._room(r_BSD)
        with plain_precision(r_BSD.device):
            for index, step in enumerate(steps):
                before_BKD = r_BSD[:, self._kept :].clone()
                step.gate_(r_BSD, z_DBS)
                z_DBK = z_DBS[..., self._kept :].clone()
                self._convolve_(step, index, z_DBS)
                y_DBK = z_DBS[..., self._kept :].clone()
                self._layers.append(_Layer(before_BKD, z_DBK, y_DBK))
                if index + 1 < len(steps):
                    step.finish_(r_BSD, z_DBS)
            r_BKD = self._layers[-1].r_BKD.clone()
            steps[-1].finish_(r_BKD, self._layers[-1].y_DBK)
            return final_norm(self._backbone, r_BKD)

    @property
    def n_bytes(self) -> int:
        """Memory in use."""
        kept = [t for layer in self._layers for t in vars(layer).values()]
        return sum(t.numel() * t.itemsize for t in (*kept, self.hidden_BLD))

    @torch.no_grad()
    def suffixes(self, batch: Sequence[Suffix]) -> list[Tensor]:
        """Compute the states after the final norm at the positions of each suffix, (n, D), in order.

        Equals `model.plain` of the whole variant windows. The batch is padded to its longest suffix, so that
        those of like length go together; it takes as much memory as a pass over so many tokens.

        Raises:
            ModelError: a suffix is empty, of no window, or does not lie within it.
        """
        for suffix in batch:
            self._check(suffix)
        history, n_soft = self._history, self._backbone.n_soft
        early = [i for i, suffix in enumerate(batch) if n_soft + suffix.start < history]
        late = [i for i, suffix in enumerate(batch) if n_soft + suffix.start >= history]
        states = dict(zip(late, self._run([batch[i] for i in late], history), strict=True))
        # Too near the stream's start for a history: these are read from the start itself.
        extended = [self._from_start(batch[i]) for i in early]
        states |= {i: s[batch[i].start :] for i, s in zip(early, self._run(extended, n_soft), strict=True)}
        return [states[i] for i in range(len(batch))]

    def _run(self, batch: Sequence[Suffix], history: int) -> list[Tensor]:
        """Compute the states of suffixes, read with `history` positions of the stream before them."""
        if not batch:
            return []
        longest = max(len(suffix.ids) for suffix in batch)
        ids_Nm = self._ids_BL.new_full((len(batch), history + longest), PAD)
        for row, suffix in enumerate(batch):
            before = self._ids_BL[suffix.row, max(0, suffix.start - history) : suffix.start]
            ids_Nm[row, history - len(before) : history] = before
            ids_Nm[row, history : history + len(suffix.ids)] = suffix.ids
        # the positions of each suffix among those kept, history included
        shift = self._backbone.n_soft - self._kept
        positions = [slice(shift + s.start - history, shift + s.start + len(s.ids)) for s in batch]
        r_NmD = token_stream(self._backbone, ids_Nm)
        z_DNm = self._room(r_NmD)
        with plain_precision(r_NmD.device):
            for index, (step, layer) in enumerate(zip(self._blocks(ids_Nm), self._layers, strict=True)):
                for row, (suffix, kept) in enumerate(zip(batch, positions, strict=True)):
                    r_NmD[row, :history] = layer.r_BKD[suffix.row, kept][:history]
                step.gate_(r_NmD, z_DNm)
                for row, (suffix, kept) in enumerate(zip(batch, positions, strict=True)):
                    z_DNm[:, row, : kept.stop - kept.start] -= layer.z_DBK[:, suffix.row, kept]
                z_DNm[..., :history] = 0
                self._convolve_(step, index, z_DNm)
                for row, (suffix, kept) in enumerate(zip(batch, positions, strict=True)):
                    z_DNm[:, row, : kept.stop - kept.start] += layer.y_DBK[:, suffix.row, kept]
                step.finish_(r_NmD, z_DNm)
        hidden_NmD = final_norm(self._backbone, r_NmD[:, history:])
        return [hidden_nD[: len(s.ids)] for s, hidden_nD in zip(batch, hidden_NmD, strict=True)]

    def _blocks(self, ids_BL: Tensor) -> list[BlockPass]:
        with plain_precision(ids_BL.device):
            return [first_pass(self._backbone, self._dtype, self._sizes, ids_BL), *self._later]

    def _room(self, r_BLD: Tensor) -> Tensor:
        b, length, d = r_BLD.shape
        return torch.empty(d, b, length, dtype=self._dtype, device=r_BLD.device)

    def _convolve_(self, step: BlockPass, index: int, z_DBL: Tensor) -> None:
        filters = [block.mixer.filter_fn for block in self._backbone.blocks()]
        part = partition(z_DBL.shape[2], self._sizes)
        step.convolve_(z_DBL, self._backbone.spectra.spectra(filters, index, part), part, self._work)

    def _from_start(self, suffix: Suffix) -> Suffix:
        before = self._ids_BL[suffix.row, : suffix.start]
        return Suffix(suffix.row, 0, torch.cat([before, suffix.ids.to(before)]))

    def _check(self, suffix: Suffix) -> None:
        windows, length = self._ids_BL.shape
        if not 0 <= suffix.row < windows:
            raise ModelError(f"there is no window {suffix.row} among {windows}")
        if suffix.ids.ndim != 1 or not 0 < len(suffix.ids) <= length - suffix.start or suffix.start < 0:
            raise ModelError(
                f"a suffix of {len(suffix.ids):,} tokens from position {suffix.start:,} does not lie in a "
                f"window of {length:,}"
            )
        if suffix.start < self.first:
            raise ModelError(
                f"a suffix from position {suffix.start:,} begins before those kept, from {self.first:,}"
            )


def _width(r_BLD: Tensor) -> tuple[int, torch.device]:
    return r_BLD.shape[-1], r_BLD.device
