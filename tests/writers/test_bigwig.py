"""A bigWig holds every number at its base, in order, and what another program reads is what was written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.writers.output_shards import merge_shards, sniff
from hyenacli.writers.tracks import open_track

CONTIGS = {"chr2": 500, "chr1": 5_000, "chr10": 70_000}
Values = NDArray[np.float32]
Block = tuple[str, int, Values]

pytest.importorskip("pybigtools")


def random_blocks(seed: int) -> list[Block]:
    """Neighbours, gaps, bases without a number, equal neighbours, and contigs' last bases."""
    draw = np.random.default_rng(seed)
    blocks = []
    for contig in sorted(CONTIGS):
        start = 0
        while start < CONTIGS[contig]:
            length = min(int(draw.integers(1, CONTIGS[contig])), CONTIGS[contig] - start)
            values = draw.integers(-3, 4, length).astype(np.float32) / 7
            values[draw.random(length) < 0.2] = np.nan
            blocks.append((contig, start, values))
            start += length + int(draw.integers(0, 2) * draw.integers(0, 50))
    return blocks


def write(target: Path, blocks: list[Block], shard: dict[str, Any] | None = None) -> Path:
    with open_track(target, "bw", CONTIGS, {"shard": shard} if shard else {}) as track:
        for contig, start, values in blocks:
            track.write(contig, start, values)
    return target


def expected(blocks: list[Block]) -> dict[str, Values]:
    values = {contig: np.full(length, np.nan, np.float32) for contig, length in CONTIGS.items()}
    for contig, start, block in blocks:
        values[contig][start : start + len(block)] = block
    return values


def read(path: Path) -> dict[str, Values]:
    import pybigtools

    with pybigtools.open(str(path)) as file:
        assert list(file.chroms()) == sorted(CONTIGS)
        return {
            contig: np.array(file.values(contig, 0, length, fillna=None), np.float32)
            for contig, length in CONTIGS.items()
        }


@pytest.mark.parametrize("seed", range(3))
def test_every_number_is_at_its_base(tmp_path: Path, seed: int) -> None:
    blocks = random_blocks(seed)
    path = write(tmp_path / "o.bw", blocks)
    for contig, values in expected(blocks).items():
        np.testing.assert_array_equal(read(path)[contig], values)
    assert [file.name for file in tmp_path.iterdir()] == ["o.bw"]


def test_another_library_reads_it(tmp_path: Path) -> None:
    bigwig = pytest.importorskip("pyBigWig")
    blocks = random_blocks(4)
    file = bigwig.open(str(write(tmp_path / "o.bw", blocks)))
    assert file.chroms() == CONTIGS
    for contig, values in expected(blocks).items():
        np.testing.assert_array_equal(np.array(file.values(contig, 0, CONTIGS[contig]), np.float32), values)


def test_shards_join_to_the_same_file(tmp_path: Path) -> None:
    blocks = random_blocks(5)
    half = len(blocks) // 2
    parts = []
    for number, part in ((1, blocks[:half]), (2, blocks[half:])):
        about = {"number": number, "of": 2, "records": 9, "input_sha256": "x"}
        parts.append(write(tmp_path / f"{number}.bw", part, about))
    assert sniff(parts[0]) == "bw"
    merge_shards(parts[::-1], tmp_path / "joined.bw")
    whole = write(tmp_path / "whole.bw", blocks)
    assert (tmp_path / "joined.bw").read_bytes() == whole.read_bytes()


ONE = np.ones(10, np.float32)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([("chr2", 0, ONE), ("chr1", 0, ONE)], "chr1:1-10 comes after chr2:10"),
        ([("chr1", 0, ONE), ("chr1", 9, ONE)], "chr1:10-19 comes after chr1:10, or overlaps it"),
        ([("chr2", 491, ONE)], "chr2:492-501, which is outside a contig of 500 bases"),
        ([("chrX", 0, ONE)], "chrX:1-10, which is outside no contig"),
        ([("chr1", 0, ONE * np.nan)], "no base has a number"),
        ([], "no base has a number"),
    ],
)
def test_what_cannot_be_a_bigwig_leaves_nothing(tmp_path: Path, blocks: list[Block], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write(tmp_path / "o.bw", blocks)
    assert list(tmp_path.iterdir()) == []
