"""Sketches that estimate how much of one sequence occurs in another (FracMinHash, as in sourmash).

The k-mers of a sequence, each as the lesser of its two strands, are hashed, and those with a hash below
2**64 / scale are kept: a random, and for all sequences the same, choice of one k-mer in `scale`.

Legend of shape suffixes: L bases, P positions of k-mers.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyenacli.evaluation.words import word_codes
from hyenacli.readers.genome import Codes, plain_tokens
from hyenadna.tokenizer import A

Hashes = NDArray[np.uint64]

K = 31
"""Bases of a k-mer: odd, so that none is its own reverse complement, and two bits each in a word."""
MAX_HASHES = 1_000_000
CHUNK = 1 << 16


@dataclass(frozen=True)
class Sketch:
    """Hashes of a sample of the k-mers of a sequence.

    Attributes:
        hashes: distinct and ascending.
        scale: one k-mer in so many is kept.
    """

    hashes: Hashes
    scale: int

    def at(self, scale: int) -> Hashes:
        """Return the hashes of a coarser sketch."""
        return self.hashes[: int(np.searchsorted(self.hashes, last_hash(scale), side="right"))]


def sketch(stretches: Iterable[Codes], n_bases: int, chunk: int = CHUNK) -> Sketch:
    """Sketch stretches of codes (L,), read in pieces.

    k-mers with N are left out, and none spans two stretches. The scale is such that about a million k-mers
    are kept at most.

    Args:
        stretches: the sequence.
        n_bases: its total length.
        chunk: k-mers hashed at once.
    """
    scale = max(1, math.ceil(n_bases / MAX_HASHES))
    kept = [hashes_P for codes in stretches for hashes_P in _kept(codes, scale, chunk)]
    # np.unique takes fifty times as long from numpy 2.3 on.
    sorted_P = np.sort(np.concatenate([np.empty(0, np.uint64), *kept]))
    first_P = np.append(True, sorted_P[1:] != sorted_P[:-1])[: sorted_P.size]
    return Sketch(sorted_P[first_P], scale)


def shared_kmers(query: Sketch, reference: Sketch) -> tuple[int, int]:
    """Count the k-mers of `query` that `reference` has, and those of `query`, at the coarser scale."""
    scale = max(query.scale, reference.scale)
    ours, theirs = query.at(scale), reference.at(scale)
    if not theirs.size:
        return 0, ours.size
    indices = np.minimum(np.searchsorted(theirs, ours), theirs.size - 1)
    return int(np.count_nonzero(theirs[indices] == ours)), ours.size


def last_hash(scale: int) -> np.uint64:
    """Return the last hash that is kept where one k-mer in `scale` is."""
    return np.uint64(2**64 // scale - 1)


def _kept(codes: Codes, scale: int, chunk: int) -> Iterator[Hashes]:
    """Yield the hashes that are kept of a stretch, piece by piece."""
    for start in range(0, len(codes) - K + 1, chunk):
        hashes_P, _ = hash_kmers(codes[start : start + chunk + K - 1])
        yield hashes_P[hashes_P <= last_hash(scale)]


def hash_kmers(codes_L: Codes) -> tuple[Hashes, NDArray[np.intp]]:
    """Hash the k-mers (P,) without N of codes (L,), alike on both strands; return where each begins too."""
    digit_L = plain_tokens(codes_L) - np.uint8(A)
    forward_P, starts_P = word_codes(digit_L, K, np.uint64)
    # what is no base, above 3, stays so
    reverse_P, _ = word_codes((3 - digit_L)[::-1], K, np.uint64)
    return _mixed(np.minimum(forward_P, reverse_P[::-1])), starts_P


def _mixed(words_P: Hashes) -> Hashes:
    """Mix the bits of words by splitmix64's step, which gives no two words the same hash."""
    words_P = words_P + np.uint64(0x9E3779B97F4A7C15)
    words_P = (words_P ^ (words_P >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words_P = (words_P ^ (words_P >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words_P ^ (words_P >> np.uint64(31))
