"""A bedGraph holds every number once, in as few lines as look different, and its shards join to it."""

import gzip
import io
from itertools import groupby
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenacli.errors import UserError
from hyenacli.writers.output_shards import Merged, merge_shards, sniff
from hyenacli.writers.tracks import BedGraph, open_track

Records = list[tuple[str, int, list[float]]]


def write(target: Path, records: Records, number: int = 0, of: int = 0) -> Path:
    kind = "bedgraph.gz" if target.suffix == ".gz" else "bedgraph"
    about = {"number": number, "of": of, "records": 9, "input_sha256": "x"}
    provenance = {"model_sha256": "m"} | ({"shard": about} if of else {})
    with open_track(target, kind, {}, provenance) as track:
        for chrom, start, values in records:
            track.write(chrom, start, np.array(values))
    return target


def text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def test_equal_neighbours_are_one_line_within_a_record(tmp_path: Path) -> None:
    records: Records = [("1", 5, [0.5, 0.5, 0.50000001, 2, 0.5]), ("1", 10, [0.5]), ("2", 0, [1e-9])]
    assert write(tmp_path / "o.bedgraph", records).read_text() == (
        "1\t5\t8\t0.5\n1\t8\t9\t2\n1\t9\t10\t0.5\n1\t10\t11\t0.5\n2\t0\t1\t1e-09\n"
    )


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0.0, 0.25, 1 / 3]), min_size=1, max_size=40), st.integers(1, 5))
def test_every_base_is_there_once_however_lines_are_gathered(values: list[float], lines: int) -> None:
    file = io.BytesIO()
    BedGraph(file.write, lines).write("1", 7, np.array(values))
    rows = [line.split("\t") for line in file.getvalue().decode().splitlines()]
    found = [number for _, start, end, number in rows for _ in range(int(start), int(end))]
    np.testing.assert_allclose(np.array(found, float), values, rtol=1e-6)
    assert (rows[0][1], int(rows[-1][2])) == ("7", 7 + len(values))
    assert len(rows) == len(list(groupby(values)))


def test_a_gz_is_bgzip_for_tabix(tmp_path: Path) -> None:
    path = write(tmp_path / "o.bedgraph.gz", [("1", 5, [1, 2, 3]), ("2", 0, [4])])
    pysam.tabix_index(str(path), preset="bed")
    with pysam.TabixFile(str(path)) as file:
        assert list(file.fetch("1", 6, 7)) == ["1\t6\t7\t2"]


@pytest.mark.parametrize("kind", ["bedgraph", "bedgraph.gz"])
def test_shards_join_to_the_single_file(tmp_path: Path, kind: str) -> None:
    parts: list[Records] = [[("1", 0, [1, 1])], [], [("1", 2, [1, 2]), ("2", 0, [3])]]
    paths = [write(tmp_path / f"{i}.{kind}", part, i, 3) for i, part in enumerate(parts, 1)]
    assert [sniff(path) for path in paths] == [kind] * 3
    whole = write(tmp_path / f"o.{kind}", [record for part in parts for record in part])
    joined = tmp_path / f"joined.{kind}"
    assert merge_shards(paths[::-1], joined) == Merged(3, 9)
    assert text(joined) == text(whole)
    with pytest.raises(UserError, match="is not a shard"):
        merge_shards([whole], joined)
    cut = "".join(text(paths[2]).splitlines(keepends=True)[:-1]).encode()
    paths[2].write_bytes(gzip.compress(cut) if kind.endswith("gz") else cut)
    with pytest.raises(UserError, match=r"3\..*: is cut short; make this shard again"):
        merge_shards(paths, joined)


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    def fail() -> None:
        with open_track(tmp_path / "o.bedgraph", "bedgraph", {}, {}) as track:
            track.write("1", 0, np.ones(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
