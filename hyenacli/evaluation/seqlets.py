"""Seqlets: short spans whose attributions are higher than those of shuffled sequences.

L bases of a sequence, W a span's width.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
WIDTHS = range(4, 26)
"""Bases of a seqlet."""
# Each span of a seqlet has a sum that so many of those of shuffled sequences reach.
_LEVEL = 0.01


def shuffle_dinucleotides(bases: bytes, seed: int, number: int) -> bytes:
    """Return a random sequence of the same dinucleotides, by a random Eulerian path; N keep their places.

    The first and the last base of each stretch between N stay as well (Altschul and Erickson 1985). The
    result depends on the arguments alone.

    >>> shuffle_dinucleotides(b"ACNAAAANT", 0, 0)
    b'ACNAAAANT'
    """
    digest = int.from_bytes(hashlib.blake2b(bases, digest_size=8).digest(), "big")
    rng = np.random.default_rng([seed, number, digest])
    return b"N".join(_shuffle(stretch, rng) for stretch in bases.split(b"N"))


def _shuffle(bases: bytes, rng: np.random.Generator) -> bytes:
    """Walk from the first base along the edges base -> next base, each once, in random order.

    The last edges out of each base must form a tree towards the end, or the walk would stop early; a random
    walk from the end, backwards, draws such a tree with the right chances (Wilson 1996).
    """
    if len(bases) < 4:
        return bases
    edges = {base: [b for a, b in pairwise(bases) if a == base] for base in set(bases)}
    last: dict[int, int] = {}
    for base in sorted(edges):
        at = base
        path: dict[int, int] = {}
        while at != bases[-1] and at not in last:
            path[at] = int(rng.choice(edges[at]))
            at = path[at]
        at = base
        while at != bases[-1] and at not in last:
            last[at] = path[at]
            at = path[at]
    order: dict[int, list[int]] = {}
    for base in sorted(edges):
        rest = edges[base].copy()
        end = [last[base]] if base in last else []
        for edge in end:
            rest.remove(edge)
        order[base] = [*(int(b) for b in rng.permutation(rest)), *end][::-1]
    walked = [bases[0]]
    while order.get(walked[-1]):
        walked.append(order[walked[-1]].pop())
    return bytes(walked)


@dataclass(frozen=True, slots=True)
class Seqlet:
    """A span of a sequence.

    Attributes:
        sequence: index of the sequence.
        start: first base, 0-based.
        end: exclusive.
        score: sum of the attributions of its bases.
        q: share of spans at least as strong that chance would give, of all of them (false-discovery rate).
    """

    sequence: int
    start: int
    end: int
    score: float
    q: float = 1.0


def find_seqlets(tracks: Sequence[Floats], shuffled: Sequence[Floats], fdr: float) -> list[Seqlet]:
    """Find spans of 4 to 25 bases with high or low attributions, at a false-discovery rate.

    A span qualifies if its sum, and that of every span of at least 4 bases within it, is as extreme as 1 % of
    those of shuffled sequences. Of qualifying spans that overlap, the longest is taken, and of these the
    strongest. The same search in the shuffled sequences tells how many are found by chance: the rate of a
    score is their number per base, over that of the real sequences. Spans with positive and with negative
    sums are searched for separately.

    Args:
        tracks: attributions (L,) of the base at each position; NaN at N, which no span contains.
        shuffled: the same of shuffled sequences.
        fdr: highest rate.

    Returns:
        Seqlets by sequence and start.
    """
    chosen: list[Seqlet] = []
    share = _bases(tracks) / max(1, _bases(shuffled))
    for sign in (1.0, -1.0):
        signed, null = [sign * track for track in tracks], [sign * track for track in shuffled]
        levels = _levels(null)
        candidates, chance = _search(signed, levels), _search(null, levels)
        rated = _rate(candidates, np.sort([span.score for span in chance]), share)
        chosen += [replace(span, score=sign * span.score) for span in rated if span.q <= fdr]
    return sorted(chosen, key=lambda span: (span.sequence, span.start))


def _bases(tracks: Iterable[Floats]) -> int:
    return sum(int(np.isfinite(track).sum()) for track in tracks)


def _sums(track: Floats, width: int) -> Floats:
    """Return the sums of all spans of a width; -inf where one holds an N."""
    if len(track) < width:
        return np.empty(0)
    unknown_L = np.isnan(track)
    counts, totals = (
        np.concatenate([[0], np.cumsum(values)]) for values in (unknown_L, np.where(unknown_L, 0, track))
    )
    inside = counts[width:] - counts[:-width]
    sums: Floats = np.where(inside > 0, -np.inf, totals[width:] - totals[:-width])
    return sums


def _levels(null: Sequence[Floats]) -> dict[int, float]:
    """Return, for each width, the sum that 1 % of the spans of shuffled sequences reach; above 0."""
    levels = {}
    for width in WIDTHS:
        sums = np.concatenate([np.empty(0), *(_sums(track, width) for track in null)])
        sums = sums[np.isfinite(sums)]
        levels[width] = max(float(np.quantile(sums, 1 - _LEVEL)), 1e-12) if len(sums) else np.inf
    return levels


def _search(tracks: Sequence[Floats], levels: dict[int, float]) -> list[Seqlet]:
    """Return the spans of each track that qualify, none overlapping another."""
    spans = []
    for number, track in enumerate(tracks):
        qualifying: list[tuple[int, NDArray[np.int64], Floats]] = []
        within: NDArray[np.bool_] | None = None
        for width in WIDTHS:
            sums = _sums(np.asarray(track, np.float64), width)
            high = sums >= levels[width]
            within = high if within is None else high & within[:-1] & within[1:]
            if not within.any():
                break
            starts = np.flatnonzero(within)
            qualifying.append((width, starts, sums[starts]))
        taken = np.zeros(len(track), np.bool_)
        for width, starts, scores in reversed(qualifying):
            for i in np.argsort(-scores, kind="stable"):
                start, end = int(starts[i]), int(starts[i]) + width
                if not taken[start:end].any():
                    taken[start:end] = True
                    spans.append(Seqlet(number, start, end, float(scores[i])))
    return spans


def _rate(spans: list[Seqlet], chance: NDArray[Any], share: float) -> list[Seqlet]:
    """Add the false-discovery rate of each span's score, which never falls with a lower score."""
    ordered = sorted(spans, key=lambda span: -span.score)
    scores = np.array([span.score for span in ordered])
    by_chance = (len(chance) - np.searchsorted(chance, scores, "left")) * share
    rates = by_chance / np.arange(1, len(scores) + 1)
    q = np.minimum.accumulate(rates[::-1])[::-1]
    return [replace(span, q=min(1.0, float(value))) for span, value in zip(ordered, q, strict=True)]
