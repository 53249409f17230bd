"""Windows of a genome as rows of token ids: the random training stream, and the fixed evaluation set.

Legend of shape suffixes: N windows, W bases in a window.
"""

from collections.abc import Sequence

import numpy as np

from hyenacli.data.splits import Interval
from hyenacli.data.store import Contig, Tokens
from hyenadna.tokenizer import PAD, VOCABULARY, A, C, G, N, T

_COMPLEMENT = np.arange(len(VOCABULARY), dtype=np.uint8)
_COMPLEMENT[[A, C, G, T]] = T, G, C, A

# A window of which more than this share is N is drawn again: assembly gaps teach nothing.
MAX_N_SHARE = 0.5
_MAX_DRAWS = 100


class WindowSampler:
    """The training stream: window i is a pure function of (seed, i), so any rank or resumed run can draw it.

    An interval is chosen in proportion to its bases, then a start uniformly among those that keep the window
    inside it; an interval shorter than a window is taken whole and padded on the right.

    Args:
        contigs: the genome.
        intervals: where windows may lie.
        width: bases in a window.
        seed: of the stream.
        rc_augment: read every window as its reverse complement with probability 1/2.
    """

    def __init__(
        self,
        contigs: Sequence[Contig],
        intervals: Sequence[Interval],
        width: int,
        seed: int,
        *,
        rc_augment: bool,
    ):
        self._contigs = contigs
        self._intervals = intervals
        self._edges = np.cumsum([len(interval) for interval in intervals])
        self.width = width
        self._seed = seed
        self._rc_augment = rc_augment

    def rows(self, indices: Sequence[int]) -> Tokens:
        """Windows `indices` of the stream as token ids (N, W)."""
        return np.stack([self._window(index) for index in indices])

    def _window(self, index: int) -> Tokens:
        tokens, mirrored = self._draw(index, 0)
        for attempt in range(1, _MAX_DRAWS):
            if np.count_nonzero(tokens == N) <= MAX_N_SHARE * len(tokens):
                break
            tokens, mirrored = self._draw(index, attempt)
        return padded(complement(tokens) if mirrored else tokens, self.width)

    def _draw(self, index: int, attempt: int) -> tuple[Tokens, bool]:
        # Philox is counter-based: its raw words are a documented, version-independent function of both.
        words = np.random.Philox(key=self._seed, counter=[0, index, attempt, 0]).random_raw(3).tolist()
        base = _below(words[0], int(self._edges[-1]))
        interval = self._intervals[int(np.searchsorted(self._edges, base, side="right"))]
        start = interval.start + _below(words[1], max(1, len(interval) - self.width + 1))
        tokens = self._contigs[interval.contig].tokens[start : min(start + self.width, interval.end)]
        return tokens, self._rc_augment and bool(words[2] & 1)


def _below(word: int, bound: int) -> int:
    """A 64-bit random word as an integer in [0, bound)."""
    return (word * bound) >> 64


def complement(tokens: Tokens) -> Tokens:
    """The reverse complement of token ids (length,)."""
    return _COMPLEMENT[tokens[::-1]]


def padded(tokens: Tokens, width: int) -> Tokens:
    """Token ids filled up to (W,) with [PAD] on the right, where a causal model cannot see it."""
    return np.pad(tokens, (0, width - len(tokens)), constant_values=PAD)


def fixed_windows(contigs: Sequence[Contig], intervals: Sequence[Interval], width: int, count: int) -> Tokens:
    """At most `count` windows spread evenly over the intervals, as token ids (N, W), for evaluation.

    Intervals are tiled without overlap; tiles that are mostly N are left out, and the last tile of an
    interval, which is shorter, is used only where there are no whole ones.
    """
    tiles = [
        contigs[interval.contig].tokens[start : min(start + width, interval.end)]
        for interval in intervals
        for start in range(interval.start, interval.end - 1, width)
    ]
    usable = [tile for tile in tiles if np.count_nonzero(tile == N) <= MAX_N_SHARE * len(tile)]
    whole = [tile for tile in usable if len(tile) == width] or usable
    chosen = np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)
    return np.stack([padded(whole[i], width) for i in chosen]) if whole else np.empty((0, width), np.uint8)
