"""Windows of a genome as rows of token ids: the random training stream, and the fixed evaluation set.

Legend of shape suffixes: N windows, W bases in a window.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyenacli.inference.intervals import Interval
from hyenacli.readers.genome import Codes, Contig, Tokens, plain_tokens
from hyenadna.tokenizer import PAD, A, C, G, N, T

_COMPLEMENT = np.arange(256, dtype=np.uint8)
for _bit in (0, 0x80):
    _COMPLEMENT[[A | _bit, C | _bit, G | _bit, T | _bit]] = T | _bit, G | _bit, C | _bit, A | _bit

# A window of which more than this share is N is drawn again: assembly gaps have nothing to learn from.
MAX_N_SHARE = 0.5
_MAX_DRAWS = 100
# Bases looked at together for gaps.
_PIECE = 1 << 20


class WindowSampler:
    """The training stream: window i is a pure function of (seed, i), so any rank or resumed run can draw it.

    An interval is chosen in proportion to its bases, then a start uniformly among those that keep the window
    inside it; an interval shorter than a window is taken whole and padded on the right.

    Args:
        intervals: where windows may lie.
        rc_augment: read every window as its reverse complement with probability 1/2.
        shares: of the windows each file (`Contig.source`) gets; they need not sum to one. By default files
            share as their bases do.
    """

    def __init__(
        self,
        contigs: Sequence[Contig],
        intervals: Sequence[Interval],
        seed: int,
        *,
        rc_augment: bool,
        shares: Mapping[Path, float] | None = None,
    ):
        self._contigs = contigs
        self._groups = _groups(contigs, intervals, shares)
        self._seed = seed
        self._rc_augment = rc_augment

    def shares(self) -> dict[Path, float]:
        """Return the share of the windows that each file gets."""
        shares: dict[Path, float] = {}
        below = 0
        for group in self._groups:
            for interval in group.intervals:
                source = self._contigs[interval.contig].source
                share = (group.up_to - below) / 2**64 * len(interval) / group.edges[-1]
                shares[source] = shares.get(source, 0.0) + share
            below = group.up_to
        return shares

    def rows(self, indices: Sequence[int], width: int) -> Codes:
        """Draw windows `indices` of the stream, `width` bases each, as codes (N, W)."""
        return np.stack([self._window(index, width) for index in indices])

    def _window(self, index: int, width: int) -> Codes:
        codes, reverse = self._draw(index, 0, width)
        for attempt in range(1, _MAX_DRAWS):
            if _is_sequence(plain_tokens(codes)):
                break
            codes, reverse = self._draw(index, attempt, width)
        return padded(complement(codes) if reverse else codes, width)

    def _draw(self, index: int, attempt: int, width: int) -> tuple[Codes, bool]:
        # Philox is counter-based: its raw words are a documented, version-independent function of both.
        words = np.random.Philox(key=self._seed, counter=[0, index, attempt, 0]).random_raw(4).tolist()
        group = next(group for group in self._groups if words[3] < group.up_to)
        base = _below(words[0], group.edges[-1])
        interval = group.intervals[bisect_right(group.edges, base)]
        start = interval.start + _below(words[1], max(1, len(interval) - width + 1))
        codes = self._contigs[interval.contig].codes[start : min(start + width, interval.end)]
        return codes, self._rc_augment and bool(words[2] & 1)


@dataclass(frozen=True)
class _Group:
    """Intervals that are drawn from by their bases.

    Attributes:
        up_to: a 64-bit random word below this, and not below the previous group's, chooses the group.
        intervals: its intervals, `edges` the number of bases up to the end of each.
    """

    up_to: int
    intervals: list[Interval]
    edges: list[int]


def _groups(
    contigs: Sequence[Contig], intervals: Sequence[Interval], shares: Mapping[Path, float] | None
) -> list[_Group]:
    """Make a group of all intervals, or a group for each file that has a share and intervals."""
    by_source: dict[Path | None, list[Interval]] = {}
    for interval in intervals:
        by_source.setdefault(contigs[interval.contig].source if shares else None, []).append(interval)
    given = [shares[source] if shares and source else 1.0 for source in by_source]
    edges = [list(itertools.accumulate(map(len, members))) for members in by_source.values()]
    tops = [int(math.fsum(given[: i + 1]) / math.fsum(given) * 2**64) for i in range(len(given))]
    return [_Group(*group) for group in zip(tops, by_source.values(), edges, strict=True)]


def _is_sequence(tokens: Tokens) -> bool:
    """Return True unless a window is mostly N."""
    return bool(np.count_nonzero(tokens == N) <= MAX_N_SHARE * len(tokens))


def _below(word: int, bound: int) -> int:
    """Map a 64-bit random word to an integer in [0, bound)."""
    return (word * bound) >> 64


def complement(codes: Codes) -> Codes:
    """Return the reverse complement of codes, or of token ids, (length,)."""
    return _COMPLEMENT[codes[::-1]]


def padded(codes: Codes, width: int) -> Codes:
    """Fill codes up to (W,) with [PAD] on the right, where a causal model cannot see it."""
    return np.pad(codes, (0, width - len(codes)), constant_values=PAD)


def fixed_windows(contigs: Sequence[Contig], intervals: Sequence[Interval], width: int, count: int) -> Tokens:
    """Return at most `count` windows spread evenly over the intervals, as token ids (N, W), for evaluation.

    Intervals are tiled without overlap; tiles that are mostly N are left out, and the last tile of an
    interval, which is shorter, is used only where there are no whole ones.
    """
    for tiles_of in (_whole_tiles, _last_tile):
        starts = [tiles_of(contigs[interval.contig], interval, width) for interval in intervals]
        edges = np.cumsum([0, *map(len, starts)])
        rows = []
        for i in np.linspace(0, edges[-1] - 1, min(count, edges[-1])).round().astype(int):
            index = int(np.searchsorted(edges, i, side="right")) - 1
            contig, start = contigs[intervals[index].contig], int(starts[index][i - edges[index]])
            tokens = contig.tokens(start, min(start + width, intervals[index].end))
            rows.append(padded(tokens, width))
        if rows:
            return np.stack(rows)
    return np.empty((0, width), np.uint8)


def _whole_tiles(contig: Contig, interval: Interval, width: int) -> NDArray[np.int64]:
    """Return the starts of the tiles of an interval that are not mostly N, without its last, shorter tile."""
    end = interval.end - len(interval) % width
    step = width * max(1, _PIECE // width)
    starts = [np.empty(0, np.int64)]
    for start in range(interval.start, end, step):
        tiles = contig.tokens(start, min(start + step, end)).reshape(-1, width)
        usable = np.count_nonzero(tiles == N, axis=1) <= MAX_N_SHARE * width
        starts.append(start + width * np.flatnonzero(usable))
    return np.concatenate(starts)


def _last_tile(contig: Contig, interval: Interval, width: int) -> NDArray[np.int64]:
    """Return the start of the last, shorter tile, if it has two bases or more and is not mostly N."""
    start = interval.end - len(interval) % width
    usable = interval.end - start > 1 and _is_sequence(contig.tokens(start, interval.end))
    return np.array([start] if usable else [], np.int64)


def has_window(contigs: Sequence[Contig], intervals: Sequence[Interval], width: int) -> bool:
    """Return True if `fixed_windows` would give a full window."""
    return any(
        _is_sequence(contigs[interval.contig].tokens(start, start + width))
        for interval in intervals
        for start in range(interval.start, interval.end - width + 1, width)
    )
