"""Seqlets on tracks whose answer is known, and shuffled sequences."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hyenacli.evaluation.seqlets import find_seqlets, shuffle_dinucleotides
from tests.builders import random_dna


@pytest.mark.parametrize("bases", [random_dna(300, 1), "A" * 9, "ACACACGT", "AC", "", random_dna(5, 2)])
def test_a_shuffled_sequence_has_the_same_dinucleotides(bases: str) -> None:
    first, second = (shuffle_dinucleotides(bases.encode(), 3, number) for number in (0, 1))
    for other in (first, second):
        assert Counter(pairwise(other.decode())) == Counter(pairwise(bases))
        assert (other[:1], other[-1:]) == (bases[:1].encode(), bases[-1:].encode())
    if len(bases) > 100:
        assert len({first, second, bases.encode(), shuffle_dinucleotides(bases.encode(), 4, 0)}) == 4
    assert first == shuffle_dinucleotides(bases.encode(), 3, 0)


def test_every_eulerian_path_is_as_likely_as_any_other() -> None:
    """AACAGA has six sequences of its dinucleotides: AACAGA, AAGACA, ACAAGA, AGAACA, ACAGAA, AGACAA."""
    counts = Counter(shuffle_dinucleotides(b"AACAGA", 0, number) for number in range(1200))
    assert len(counts) == 6
    assert min(counts.values()) > 150
    assert shuffle_dinucleotides(b"AACAGANNACT", 0, 1)[6:8] == b"NN"


def noise(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.normal(0, 1, 200) for _ in range(count)]


def test_planted_spans_are_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    tracks, shuffled = noise(rng, 40), noise(rng, 80)
    assert len(find_seqlets(tracks, shuffled, 0.1)) <= 2
    for number, track in enumerate(tracks):
        track[50:62] += 6 * (-1) ** number
        track[58] = np.nan if number == 3 else track[58]
    seqlets = find_seqlets(tracks, shuffled, 0.05)
    hits = {s.sequence for s in seqlets if min(s.end, 62) - max(s.start, 50) >= 8 or s.sequence == 3}
    assert len(hits) >= 38
    misses = [seqlet for seqlet in seqlets if seqlet.end <= 50 or seqlet.start >= 62]
    assert len(misses) <= 0.15 * len(seqlets)
    assert {np.sign(seqlet.score) for seqlet in seqlets} == {1, -1}
    assert all(not seqlet.start <= 58 < seqlet.end for seqlet in seqlets if seqlet.sequence == 3)
    assert [(s.sequence, s.start) for s in seqlets] == sorted((s.sequence, s.start) for s in seqlets)


def test_nothing_to_compare_gives_no_seqlets() -> None:
    assert find_seqlets([], [], 0.1) == []
    assert find_seqlets([np.ones(3)], [np.ones(3)], 0.1) == []
