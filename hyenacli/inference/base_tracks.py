"""Numbers for every base of a genome: how probable a model finds it, and how sure the model is.

L bases of a piece, W bases of a window, V one of A, C, G and T.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.inference.batching import BatchItem, Budget, Engine, make_budget
from hyenacli.readers.genome import Sequences
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import BASES

Floats = NDArray[np.float32]
LETTERS = "ACGT"
_TOKENIZER = Tokenizer()


@dataclass(frozen=True)
class Tiles:
    """A fixed grid of tiles on every contig: a base's number never depends on which regions are read.

    Attributes:
        step: bases of a tile; tile k begins at k * step.
        context: bases read before a tile and after it, as far as the contig goes.
    """

    step: int
    context: int

    def pieces(self, region: Region, numbers: slice = slice(None)) -> Iterator[Region]:
        """Yield a region cut at the bounds of tiles, or some of its pieces by their numbers from 0."""
        first = region.start // self.step
        for number in range(self.count(region))[numbers]:
            start = (first + number) * self.step
            yield Region(region.contig, max(region.start, start), min(region.end, start + self.step))

    def count(self, region: Region) -> int:
        """Return the number of pieces."""
        return (region.end - 1) // self.step - region.start // self.step + 1 if len(region) else 0

    def window(self, piece: Region, length: int) -> tuple[int, int]:
        """Return the bases that are read for a piece of a contig of `length` bases, 0-based half-open."""
        tile = piece.start // self.step * self.step
        return max(0, tile - self.context), min(length, tile + self.step + self.context)


@dataclass(frozen=True, slots=True)
class PieceTrack:
    """Probabilities of the bases of a piece.

    Attributes:
        piece: which bases, by the genome's contig name.
        log_p_LV: log p of A, C, G and T in nats; NaN where the base is N, or nothing was read before it.
        observed_L: index of the base, 0 to 3; -1 for N.
    """

    piece: Region
    log_p_LV: Floats
    observed_L: NDArray[np.int64]

    def values(self, name: str) -> list[Floats]:
        """Compute what is shown: one array (L,), or four of a logo; NaN at N.

        logp: log p of the base, in nats. entropy: of the four probabilities, in bits. information: 2 less
        the entropy. logo: probability times information of A, C, G and T.
        """
        p_LV = np.exp(self.log_p_LV)
        if name == "logp":
            at_L1 = np.maximum(self.observed_L, 0)[:, None]
            return [np.take_along_axis(self.log_p_LV, at_L1, axis=1)[:, 0]]
        entropy_L = -(p_LV * self.log_p_LV).sum(axis=1) / np.float32(math.log(2))
        if name == "entropy":
            return [entropy_L]
        information_L = 2 - entropy_L
        if name == "information":
            return [information_L]
        return list((p_LV * information_L[:, None]).T)


def base_tracks(
    model: HyenaDNA,
    genome: Sequences,
    pieces: Iterable[Region],
    tiles: Tiles,
    strand: str,
    *,
    budget: Budget | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[PieceTrack]:
    """Compute the probabilities of bases, piece by piece, in constant memory.

    Each base is predicted from those before it in its tile's window, on the forward strand; on the reverse
    one, from those after it. The mean of both is that of log p, renormalised over A, C, G and T; at an end
    of a contig, where one strand has read nothing, it is the other's.

    Args:
        model: in eval mode, on the device to use.
        genome: the bases.
        pieces: as `Tiles.pieces` gives them.
        tiles: the grid.
        strand: forward, reverse or mean.
        budget: windows of a forward pass, which shrinks when memory runs out; None derives it from the free
            memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    device = next(model.parameters()).device
    readings = {"forward": (False,), "reverse": (True,), "mean": (False, True)}[strand]
    waiting: deque[tuple[Region, bytes]] = deque()
    answers: deque[Floats] = deque()

    def compute(ids_BW: Tensor, _mask_BW: Tensor, batch: Sequence[BatchItem[int]]) -> list[Floats]:
        with precision or nullcontext():
            return _log_probs(model, ids_BW, batch)

    def items() -> Iterator[BatchItem[int]]:
        for piece in pieces:
            start, end = tiles.window(piece, genome.lengths[piece.contig])
            bases = genome.fetch(piece.contig, start, end)
            first, last = piece.start - start, piece.end - start
            waiting.append((piece, bases[first:last]))
            for reverse in readings:
                # the base that is predicted last need not be read
                read = reverse_complement(bases[first + 1 :]) if reverse else bases[: last - 1]
                # a window without a base still has an answer
                yield BatchItem(_TOKENIZER.encode_array(read or b"N"), min(len(piece), len(read)))

    engine: Engine[int, Floats] = Engine(
        compute, budget=budget or make_budget(None, model.config.d_model, 0, device), device=device
    )
    for answer in engine.run(items()):
        answers.append(answer)
        while len(answers) >= len(readings):
            piece, bases = waiting.popleft()
            yield _join(piece, bases, [(reverse, answers.popleft()) for reverse in readings])


def _log_probs(model: HyenaDNA, ids_BW: Tensor, batch: Sequence[BatchItem[int]]) -> list[Floats]:
    """Compute log p of the next base at the last positions of each window, as many as its metadata says."""
    log_p_BWV = torch.empty(*ids_BW.shape, len(LETTERS), device=ids_BW.device)
    for piece in model.stream_states(ids_BW):
        logits = model.lm_logits(piece.states)[..., slice(*BASES)].float()
        log_p_BWV[piece.tile.rows, piece.tile.positions] = logits.log_softmax(-1)
    rows = log_p_BWV.cpu().numpy()
    ends = [len(item.ids) for item in batch]
    return [row[end - item.metadata : end].copy() for row, item, end in zip(rows, batch, ends, strict=True)]


def _join(piece: Region, bases: bytes, strands: Sequence[tuple[bool, Floats]]) -> PieceTrack:
    """Join the readings of a piece; a reading may lack the base that it would read first."""
    aligned = np.full((len(strands), len(piece), len(LETTERS)), np.nan, np.float32)
    for full_LV, (reverse, log_p_nV) in zip(aligned, strands, strict=True):
        if not np.isfinite(log_p_nV).all():
            raise UserError(
                "the model gives values that are not finite",
                at=piece,
                remedy="use --dtype float32, or check the model with `hyena models verify`",
            )
        missing = len(piece) - len(log_p_nV)
        if reverse:
            full_LV[: len(piece) - missing] = log_p_nV[::-1, ::-1]
        else:
            full_LV[missing:] = log_p_nV
    observed_L = _TOKENIZER.encode_array(bases).astype(np.int64) - BASES[0]
    observed_L[observed_L >= len(LETTERS)] = -1
    known_S = np.isfinite(aligned[..., 0])
    counts_L = known_S.sum(axis=0)
    sums_LV = np.where(known_S[..., None], aligned, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean_LV = sums_LV / np.where(counts_L > 0, counts_L, np.nan)[:, None].astype(np.float32)
    mean_LV[observed_L < 0] = np.nan
    if len(strands) > 1:
        mean_LV -= np.log(np.exp(mean_LV).sum(axis=1, keepdims=True))
    return PieceTrack(piece, mean_LV.astype(np.float32), observed_L)
