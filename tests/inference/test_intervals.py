"""Splits: what is trained on and what is held out never share a base."""

from pathlib import Path

import numpy as np
import pytest

from hyenacli.errors import UserError
from hyenacli.inference.intervals import Interval, split_by_contigs, split_by_fraction, split_by_intervals
from hyenacli.readers.genome import Contig


def contigs(**lengths: int) -> list[Contig]:
    return [Contig(name, Path("g.fa"), np.full(n, 7, np.uint8), n) for name, n in lengths.items()]


def bases(intervals: list[Interval]) -> set[tuple[int, int]]:
    return {(i.contig, p) for i in intervals for p in range(i.start, i.end)}


def test_contigs_go_where_they_are_named() -> None:
    splits = split_by_contigs(contigs(a=10, b=20, c=30), ["b"], ["c"])
    assert splits.bases() == {"train": 10, "valid": 20, "test": 30}


@pytest.mark.parametrize(
    ("valid", "test", "message"),
    [(["chr1"], [], "no contig 'chr1' to hold out"), (["a"], ["a"], "both for validation and test: a")],
)
def test_contigs_that_cannot_be_held_out(valid: list[str], test: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_by_contigs(contigs(a=10, b=20), valid, test)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_fraction_holds_out_about_that_share_in_whole_blocks(fraction: float) -> None:
    genome = contigs(a=50_000, b=31_000, c=900)
    splits = split_by_fraction(genome, fraction, 100, seed=1)
    train, valid = bases(splits.train), bases(splits.valid)
    assert not train & valid
    assert len(train | valid) == 81_900
    assert abs(len(valid) / 81_900 - fraction) < 0.05
    assert min(len(i) for i in splits.valid) >= 100
    assert splits == split_by_fraction(genome, fraction, 100, seed=1)
    assert splits != split_by_fraction(genome, fraction, 100, seed=2)


def test_fraction_never_holds_out_everything_nor_anything_at_zero() -> None:
    assert split_by_fraction(contigs(a=150), 0.5, 100, seed=0).valid == []
    assert split_by_fraction(contigs(a=5_000), 0.0, 100, seed=0).valid == []


def test_names_of_another_style_are_understood(tmp_path: Path) -> None:
    genome = contigs(chrI=10, II=20, chrM=5)
    assert split_by_contigs(genome, ["I", "chrII"], ["MT"]).bases() == {"train": 0, "valid": 30, "test": 5}
    bed = tmp_path / "splits.bed"
    bed.write_text("I\t0\t5\ttrain\nchrII\t0\t9\tvalid\n")
    splits = split_by_intervals(genome, bed)
    assert (splits.train, splits.valid) == ([Interval(0, 0, 5)], [Interval(1, 0, 9)])
    with pytest.raises(UserError, match="both for validation and test: II"):
        split_by_contigs(genome, ["II"], ["chrII"])


def test_intervals_are_read_and_merged(tmp_path: Path) -> None:
    bed = tmp_path / "splits.bed"
    bed.write_text("a\t0\t50\ttrain\na\t40\t60\ttrain\na\t60\t80\tvalid\nb\t0\t10\ttest\n")
    splits = split_by_intervals(contigs(a=100, b=10), bed)
    assert splits.train == [Interval(0, 0, 60)]
    assert splits.valid == [Interval(0, 60, 80)]
    assert splits.test == [Interval(1, 0, 10)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a\t0\t5\ttrian\n", "line 1: column 4 is 'trian'"),
        ("z\t0\t5\ttrain\n", "line 1: no contig 'z'"),
        (
            "a\t9\t9\ttrain\na\t0\t9\ttrain\na\t0\t101\tvalid\n",
            "lines 1, 3: 2 intervals without bases, or past",
        ),
        ("a\t0\t500\ttrain\n", "line 1: 1 interval without bases, or past the contig's end"),
        ("a\t0\t50\ttrain\na\t49\t60\tvalid\n", "line 2: overlaps the train interval of line 1"),
        ("a\t30\t60\tvalid\na\t0\t90\ttrain\n", "line 1: overlaps the train interval of line 2"),
        (
            "a\t0\t90\ttrain\na\t5\t9\ttrain\na\t50\t60\ttest\n",
            "line 3: overlaps the train interval of line 1",
        ),
    ],
)
def test_intervals_that_contradict(tmp_path: Path, rows: str, message: str) -> None:
    bed = tmp_path / "splits.bed"
    bed.write_text(rows)
    with pytest.raises(UserError, match=message):
        split_by_intervals(contigs(a=100), bed)
