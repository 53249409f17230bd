"""Sketches against k-mers counted one by one."""

import random

import numpy as np
import pytest

from hyenacli.evaluation.sketch import MAX_HASHES, K, Sketch, hash_kmers, shared_kmers, sketch
from hyenacli.genome.dna import reverse_complement
from hyenacli.readers.genome import SOFT_MASKED, Codes
from hyenadna import Tokenizer
from tests.builders import random_dna


def codes(*sequences: str) -> list[Codes]:
    return [Tokenizer().encode_array(sequence) for sequence in sequences]


def kmers(*sequences: str) -> set[bytes]:
    """The lesser strand of every 31-mer without N."""
    found = {s[i : i + K].encode() for s in sequences for i in range(len(s) - K + 1)}
    return {min(kmer, reverse_complement(kmer)) for kmer in found if b"N" not in kmer}


def whole(*sequences: str) -> Sketch:
    return sketch(codes(*sequences), 1)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_at_scale_one_every_kmer_has_a_hash_of_its_own(chunk: int) -> None:
    sequences = [random_dna(300, 0) + "N" + random_dna(90, 1) * 2, random_dna(40, 2), random_dna(K - 1), ""]
    hashes = sketch(codes(*sequences), 1, chunk).hashes
    assert len(hashes) == len(kmers(*sequences))
    assert (hashes[1:] > hashes[:-1]).all()


def test_containment_is_that_of_the_kmers() -> None:
    base = random_dna(2_000, 3)
    letters = list(base)
    for place in random.Random(4).sample(range(2_000), 12):
        letters[place] = "ACGT"["ACGT".index(letters[place]) - 1]
    held, seen = [base[300:900], "N" * 40, random_dna(200, 5)], ["".join(letters[:700]), random_dna(500, 6)]
    shared = kmers(*held) & kmers(*seen)
    assert 20 < len(shared) < 500
    assert shared_kmers(whole(*held), whole(*seen)) == (len(shared), len(kmers(*held)))
    assert shared_kmers(whole(*held), whole("")) == (0, len(kmers(*held)))
    assert shared_kmers(whole(""), whole(*seen)) == (0, 0)


def test_strand_case_and_order_do_not_matter() -> None:
    sequence = random_dna(400, 7)
    (forward,), (reverse,) = codes(sequence), codes(reverse_complement(sequence.encode()).decode())
    hashes, starts = hash_kmers(forward)
    assert np.array_equal(hash_kmers(reverse)[0], hashes[::-1])
    assert np.array_equal(hash_kmers(forward | SOFT_MASKED)[0], hashes)
    assert np.array_equal(starts, np.arange(400 - K + 1))
    there, back = whole(sequence, "A" * 50), whole("T" * 50, sequence)
    assert np.array_equal(there.hashes, back.hashes)


def test_the_hashes_are_fixed() -> None:
    """Sketches of two runs agree; the least word, of nothing but A, is hashed as splitmix64 hashes 0."""
    assert hash_kmers(codes("T" * K)[0])[0].tolist() == [0xE220A8397B1DCDAF]


def test_a_scaled_sketch_is_a_fair_sample() -> None:
    """Of 200,000 k-mers about one in twenty is kept; of any half about as many of the sample are in it."""
    sequence = codes(random_dna(200_000, 8))
    fine, coarse = sketch(sequence, MAX_HASHES * 5), sketch(sequence, MAX_HASHES * 20)
    assert (fine.scale, coarse.scale) == (5, 20)
    assert len(coarse.hashes) == pytest.approx(10_000, rel=0.05)
    assert np.array_equal(fine.at(20), coarse.hashes)
    half = sketch([sequence[0][:100_000]], MAX_HASHES * 5)
    count, total = shared_kmers(coarse, half)
    assert total == len(coarse.hashes)
    assert count / total == pytest.approx(0.5, abs=0.02)
    assert shared_kmers(half, coarse) == (len(half.at(20)), len(half.at(20)))


@pytest.mark.parametrize(("bases", "scale"), [(0, 1), (MAX_HASHES, 1), (4_641_652, 5), (250_000_000, 250)])
def test_the_scale_bounds_the_hashes(bases: int, scale: int) -> None:
    assert sketch([], bases).scale == scale
