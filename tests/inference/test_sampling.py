"""The training stream: a pure function of (seed, index), uniform over bases, inside its intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hyenacli.inference.intervals import Interval
from hyenacli.inference.sampling import WindowSampler, complement, fixed_windows, has_window
from hyenacli.readers.genome import SOFT_MASKED, Codes, Contig, count_bases, plain_tokens
from hyenadna import Tokenizer
from hyenadna.tokenizer import PAD, N

BASES = np.random.default_rng(0).integers(7, 11, 5_000).astype(np.uint8)


def contig(codes: Codes, source: str = "g.fa") -> Contig:
    return Contig("c", Path(source), codes, count_bases(plain_tokens(codes)))


class Stream:
    """Windows of one width of a small genome."""

    def __init__(self, intervals: list[Interval], width: int = 50, *, seed: int = 0, rc: bool = False):
        self._sampler = WindowSampler([contig(BASES), contig(BASES[::-1])], intervals, seed, rc_augment=rc)
        self._width = width

    def rows(self, indices: Sequence[int]) -> Codes:
        return self._sampler.rows(indices, self._width)


sampler = Stream


def test_a_window_depends_on_seed_and_index_alone() -> None:
    whole = [Interval(0, 0, 5_000), Interval(1, 0, 5_000)]
    together = sampler(whole).rows(range(100))
    one_by_one = np.concatenate([sampler(whole).rows([i]) for i in reversed(range(100))])[::-1]
    assert np.array_equal(together, one_by_one)
    assert not np.array_equal(together, sampler(whole, seed=1).rows(range(100)))
    assert len({row.tobytes() for row in together}) > 90


def test_the_stream_is_the_published_one() -> None:
    """Changing what a seed means would make old runs impossible to resume: these numbers are fixed."""
    starts = [
        int(np.flatnonzero([np.array_equal(BASES[s : s + 50], row) for s in range(4_951)])[0])
        for row in sampler([Interval(0, 0, 5_000)], seed=7).rows(range(4))
    ]
    assert starts == [1462, 4181, 988, 820]


def test_windows_stay_inside_intervals_and_cover_them_evenly() -> None:
    intervals = [Interval(0, 100, 400), Interval(1, 1_000, 1_100)]
    marked = [contig(np.zeros(5_000, np.uint8)) for _ in range(2)]
    for number, c in enumerate(marked):
        c.codes[:] = number
        c.codes[
            [
                i
                for i in range(5_000)
                if not any(s.contig == number and s.start <= i < s.end for s in intervals)
            ]
        ] = 9
    rows = WindowSampler(marked, intervals, 0, rc_augment=False).rows(range(4_000), 20)
    assert not (rows == 9).any()
    share = (rows[:, 0] == 0).mean()
    assert abs(share - 0.75) < 0.03


def test_reverse_complement_is_half_of_the_stream() -> None:
    interval = [Interval(0, 0, 5_000)]
    plain, mixed = sampler(interval).rows(range(400)), sampler(interval, rc=True).rows(range(400))
    same = (plain == mixed).all(axis=1)
    assert 140 < same.sum() < 260
    assert np.array_equal(np.stack([complement(row) for row in mixed[~same]]), plain[~same])


def test_complement_of_tokens() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.decode(complement(tokenizer.encode_array("AACGTN"))) == "NACGTT"


def test_short_stretches_are_padded_on_the_right() -> None:
    rows = sampler([Interval(0, 10, 40)]).rows([0])
    assert np.array_equal(rows[0], np.r_[BASES[10:40], np.full(20, PAD)])


def test_mostly_unknown_windows_are_drawn_again() -> None:
    gapped = BASES.copy()
    gapped[1_000:4_500] = N
    rows = WindowSampler([contig(gapped)], [Interval(0, 0, 5_000)], 0, rc_augment=False).rows(range(500), 50)
    assert ((rows == N).mean(axis=1) <= 0.5).all()


def test_a_genome_of_nothing_but_n_still_gives_windows() -> None:
    nothing = [contig(np.full(500, N, np.uint8))]
    assert (WindowSampler(nothing, [Interval(0, 0, 500)], 0, rc_augment=False).rows([0], 50) == N).all()
    assert fixed_windows(nothing, [Interval(0, 0, 500)], 50, 4).shape == (0, 50)


@pytest.mark.parametrize(
    ("count", "starts"), [(100, list(range(0, 500, 50))), (4, [0, 150, 300, 450]), (1, [0])]
)
def test_fixed_windows_tile_the_intervals(count: int, starts: list[int]) -> None:
    rows = fixed_windows([contig(BASES)], [Interval(0, 0, 520)], 50, count)
    assert np.array_equal(rows, np.stack([BASES[s : s + 50] for s in starts]))


@pytest.mark.parametrize(("end", "found"), [(549, False), (550, True)])
def test_whether_there_is_a_whole_window(end: int, found: bool) -> None:
    gapped = BASES.copy()
    gapped[:500] = N
    for intervals in ([Interval(0, 0, end)], [Interval(0, 0, 10), Interval(0, 500, end)]):
        assert has_window([contig(gapped)], intervals, 50) == found
        assert bool((fixed_windows([contig(gapped)], intervals, 50, 9)[:, -1:] != PAD).any()) == found


def test_files_share_the_windows_as_asked() -> None:
    """Two files of 1,000 and 9,000 bases: by their bases, then one to one, then three to one."""
    small, large = np.full(1_000, 7, np.uint8), np.full(9_000, 8, np.uint8)
    contigs = [contig(large, "large.fa"), contig(small, "small.fa")]
    whole = [Interval(0, 0, 9_000), Interval(1, 0, 1_000)]

    def share(shares: dict[Path, float] | None) -> float:
        sampler = WindowSampler(contigs, whole, 0, rc_augment=False, shares=shares)
        found = float((sampler.rows(range(4_000), 10)[:, 0] == 7).mean())
        assert sum(sampler.shares().values()) == pytest.approx(1)
        assert abs(sampler.shares()[Path("small.fa")] - found) < 0.03
        return found

    assert abs(share(None) - 0.1) < 0.02
    assert abs(share({Path("small.fa"): 1, Path("large.fa"): 1}) - 0.5) < 0.03
    assert abs(share({Path("small.fa"): 3, Path("large.fa"): 1}) - 0.75) < 0.03


def test_the_soft_mask_follows_its_base_to_the_other_strand() -> None:
    codes = Tokenizer().encode_array("AACGTN")
    codes[1:3] |= SOFT_MASKED
    mirrored = complement(codes)
    assert Tokenizer().decode(plain_tokens(mirrored)) == "NACGTT"
    assert (mirrored >= SOFT_MASKED).tolist() == [False, False, False, True, True, False]
