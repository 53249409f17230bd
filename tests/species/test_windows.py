"""Windows of species: balanced, a pure function of (seed, number), and of the species they say."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from hyenacli.inference.intervals import Interval, Splits
from hyenacli.inference.sampling import WindowSampler, complement
from hyenacli.readers.genome import Codes, Contig
from hyenacli.species.splits import SpeciesSampler, SpeciesSplits, fixed_species_windows, unrolled
from hyenadna.tokenizer import A, C, G, N

# Of species 0, 1 and 2: a contig of A; one of C, and half of one of C; the rest of that one, which is G.
HOMOPOLYMERS = [
    np.full(3_000, A, np.uint8),
    np.full(900, C, np.uint8),
    np.repeat(np.array([C, G], np.uint8), 100),
]
INTERVALS = [
    [Interval(0, 0, 3_000)],
    [Interval(1, 0, 900), Interval(2, 0, 100)],
    [Interval(2, 100, 200)],
]
BASES = [A, C, G]


def contigs(*codes: Codes) -> list[Contig]:
    return [Contig(f"c{i}", Path("g.fa"), one, len(one)) for i, one in enumerate(codes)]


def sampler(seed: int = 0, *, rc: bool = False) -> SpeciesSampler:
    return SpeciesSampler(contigs(*HOMOPOLYMERS), INTERVALS, seed, rc_augment=rc)


def test_every_window_is_of_its_species() -> None:
    rows, labels = sampler().rows(range(300), 40)
    assert rows.shape == (300, 40)
    assert (rows == np.array(BASES)[labels][:, None]).all()


def test_each_turn_has_every_species_once_in_an_order_of_its_own() -> None:
    turns = sampler().labels(range(3_000)).reshape(-1, 3)
    assert (np.sort(turns, axis=1) == [0, 1, 2]).all()
    counts = {order: int((turns == order).all(axis=1).sum()) for order in permutations(range(3))}
    assert all(abs(count - 1_000 / 6) < 50 for count in counts.values()), counts


def test_a_window_depends_on_seed_and_number_alone() -> None:
    numbers = [17, 3, 400_000_000_000, 4]
    rows, labels = sampler(rc=True).rows(numbers, 40)
    for number, row, label in zip(numbers, rows, labels, strict=True):
        (alone,), (of,) = sampler(rc=True).rows([number], 40)
        assert np.array_equal(alone, row)
        assert of == label
    assert not np.array_equal(sampler(1).labels(range(99)), sampler(0).labels(range(99)))


def test_the_stream_is_fixed() -> None:
    """Changing what a seed means would make old runs impossible to resume: these numbers are fixed."""
    assert sampler(7).labels(range(6)).tolist() == [2, 1, 0, 0, 1, 2]


def test_within_a_species_the_stream_is_that_of_its_windows() -> None:
    """Uniform over the bases of all intervals, both strands, N-rich windows drawn again: as WindowSampler."""
    codes = np.random.default_rng(0).integers(A, N, (2, 2_000)).astype(np.uint8)
    codes[1, 500:1_500] = N
    mine = [[Interval(0, 0, 2_000)], [Interval(1, 0, 700), Interval(1, 1_200, 2_000)]]
    rows, labels = SpeciesSampler(contigs(*codes), mine, 3, rc_augment=True).rows(range(200), 50)
    for label, intervals in enumerate(mine):
        numbers = np.flatnonzero(labels == label).tolist()
        windows = WindowSampler(contigs(*codes), intervals, 3, rc_augment=True)
        assert np.array_equal(rows[numbers], windows.rows(numbers, 50))
    assert ((rows == N).mean(axis=1) <= 0.5).all()


def test_a_turned_window_keeps_its_class() -> None:
    plain, labels = sampler().rows(range(200), 40)
    mixed, same_labels = sampler(rc=True).rows(range(200), 40)
    turned = (plain != mixed).any(axis=1)
    assert np.array_equal(labels, same_labels)
    assert 60 < turned.sum() < 140
    assert np.array_equal(mixed[turned], np.stack([complement(row) for row in plain[turned]]))


@pytest.fixture
def splits() -> Callable[..., SpeciesSplits]:
    def build(*stretches: list[Interval]) -> SpeciesSplits:
        found = tuple(Splits(valid=mine) for mine in stretches)
        return SpeciesSplits(("a", "b", "c"), contigs(*HOMOPOLYMERS), [0, 1, 1], found, ("", "", ""))

    return build


def test_fixed_windows_are_as_many_of_each_species(splits: Callable[..., SpeciesSplits]) -> None:
    windows = fixed_species_windows(splits(*INTERVALS), "valid", 50, 2)
    assert windows.labels_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert (windows.tokens_NW == np.array(BASES)[windows.labels_N][:, None]).all()
    assert windows.missing == ()


def test_what_is_missing_is_said(splits: Callable[..., SpeciesSplits]) -> None:
    windows = fixed_species_windows(splits(*INTERVALS), "valid", 100, 1_000)
    assert np.bincount(windows.labels_N).tolist() == [30, 10, 1]
    assert windows.missing[2] == "c: 1 instead of 1,000 valid windows of 100 bases"
    longer = fixed_species_windows(splits(*INTERVALS), "valid", 101, 5)
    assert np.bincount(longer.labels_N, minlength=3).tolist() == [5, 5, 0]
    assert longer.missing == ("c: 0 instead of 5 valid windows of 101 bases",)
    nothing = fixed_species_windows(splits([], [], []), "valid", 10, 5)
    assert nothing.tokens_NW.shape == (0, 10)
    assert len(nothing.missing) == 3


@pytest.mark.parametrize("parts", [[(0, 100)], [(0, 30), (60, 100)]])
def test_windows_of_a_circle_lie_across_its_end_and_nowhere_else(parts: list[tuple[int, int]]) -> None:
    """Codes count from 1, so that a window says where it lies; the other contig is no circle."""
    both = contigs(np.arange(1, 101, dtype=np.uint8), np.arange(101, 201, dtype=np.uint8))
    intervals = [Interval(number, *part) for number in (0, 1) for part in parts]
    longer, joined = unrolled(both, intervals, ["c0"], 20)
    assert np.array_equal(longer[1].codes, both[1].codes)
    allowed = {at for start, end in parts for at in range(start, end)}
    windows = {
        tuple(longer[interval.contig].codes[start : start + 20].tolist())
        for interval in joined
        for start in range(interval.start, interval.end - 19)
    }
    circle = {window for window in windows if max(window) <= 100}
    expected = {tuple((start + i) % 100 + 1 for i in range(20)) for start in range(100)}
    assert circle == {window for window in expected if {at - 1 for at in window} <= allowed}
    assert all(window[-1] - window[0] == 19 for window in windows - circle)


def test_training_draws_windows_across_the_end_of_a_circle() -> None:
    codes = np.concatenate([np.full(50, A, np.uint8), np.full(50, C, np.uint8)])
    one = contigs(codes)
    for circles, crossing in (((), False), (("c0",), True)):
        drawn = SpeciesSampler(one, [[Interval(0, 0, 100)]], 0, rc_augment=False, circles=circles, window=20)
        rows, _ = drawn.rows(range(200), 20)
        assert ((rows[:, 0] == C) & (rows[:, -1] == A)).any() == crossing
