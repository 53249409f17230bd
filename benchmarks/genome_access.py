"""A genome beside bare pyfaidx, of one contig of 300 million bases: `python -m benchmarks.genome_access`.

The first opening is measured in processes of their own, fetches of random intervals in turns in this one.
"""

import contextlib
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pysam
from pyfaidx import Faidx

from benchmarks.processes import Work, interleave
from benchmarks.results import table, write_section
from hyenacli.readers.genome import Genome

BASES, WIDTH = 300_000_000, 60
FETCHES, ROUNDS = 500, 7
FOLDER = Path(tempfile.gettempdir()) / "hyena-genome-access"
EXPLANATION = """\
One contig of 300,000,000 bases in lines of 60, 500 random intervals a round, medians of 7 interleaved
rounds, and one first opening each in a fresh process, whose peak memory includes interpreter and torch
(0.2 GiB). *codes* is `Genome` with one byte for a base in the cache, whatever the FASTA's compression;
*index* is `Genome` where the cache has no room for them; *pyfaidx* is `Faidx(as_raw=True)` alone, which
checks no letter and normalises nothing."""
Fetch = Callable[[str, int, int], object]


def write_genome(folder: Path) -> None:
    """Write the contig, plain and as bgzip."""
    rng = np.random.default_rng(0)
    lines = np.full((BASES // WIDTH // 100, WIDTH + 1), ord("\n"), np.uint8)
    letters = np.frombuffer(b"ACGTacgt", np.uint8)
    with (
        (folder / "genome.fa").open("wb") as plain,
        pysam.BGZFile(str(folder / "genome.fa.gz"), "w1", index=None) as packed,  # type: ignore[arg-type]
    ):
        text = b">one\n"
        for _ in range(100):  # a process inherits the peak of memory of the one that starts it
            lines[:, :WIDTH] = letters[rng.integers(0, 8, (len(lines), WIDTH), np.uint8)]
            text += lines.tobytes()
            plain.write(text)
            packed.write(text)
            text = b""


def open_genome(name: str, cache: Path, *, room: bool) -> Genome:
    """Open a genome with the cache in a folder, which has room for its bases or has none."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    usage = shutil.disk_usage(cache)
    with mock.patch("shutil.disk_usage", return_value=usage if room else usage._replace(free=0)):
        return Genome(FOLDER / name)


def open_pyfaidx(name: str, cache: Path) -> Faidx:
    """Open a FASTA with pyfaidx, and its indexes in a folder."""
    fai, gzi = (str(cache / f"{name}.{kind}") for kind in ("fai", "gzi"))
    return Faidx(str(FOLDER / name), indexname=fai, gzi_indexname=gzi, as_raw=True)


def first_opening(name: str, way: str) -> Work:
    """Return the work to time: opening a file with an empty cache."""
    cache = Path(tempfile.mkdtemp(dir=FOLDER))
    if way == "pyfaidx":
        return partial(open_pyfaidx, name, cache)
    return partial(open_genome, name, cache, room=way == "codes")


NAMES, WAYS = ("genome.fa", "genome.fa.gz"), ("codes", "index", "pyfaidx")
CASES = {name: {way: partial(first_opening, name, way) for way in WAYS} for name in NAMES}


@contextlib.contextmanager
def opened(name: str) -> Iterator[dict[str, Fetch]]:
    """Yield the ways to fetch [start, end) of a contig of a file."""
    caches = {way: Path(tempfile.mkdtemp(dir=FOLDER)) for way in WAYS}
    faidx = open_pyfaidx(name, caches["pyfaidx"])
    with (
        open_genome(name, caches["codes"], room=True) as codes,
        open_genome(name, caches["index"], room=False) as index,
    ):
        yield {
            "codes": codes.fetch,
            "index": index.fetch,
            "pyfaidx": lambda contig, start, end: faidx.fetch(contig, start + 1, end),
        }
    faidx.close()


def fetch_times(ways: dict[str, Fetch], size: int) -> dict[str, float]:
    """Measure the microseconds of a fetch of a random interval of `size` bases."""
    rng = random.Random(size)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        starts = [rng.randrange(BASES - size) for _ in range(FETCHES)]
        for way, fetch in ways.items():
            begin = time.perf_counter()
            for start in starts:
                fetch("one", start, start + size)
            times[way].append((time.perf_counter() - begin) / FETCHES * 1e6)
    return {way: statistics.median(rounds) for way, rounds in times.items()}


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    FOLDER.mkdir()
    try:
        write_genome(FOLDER)
        openings = {
            name: interleave("benchmarks.genome_access", name, WAYS, rounds=1, calls=1) for name in NAMES
        }
        rows = []
        for name in NAMES:
            with opened(name) as ways:
                times = [fetch_times(ways, size) for size in (1_000, 8_000)]
            for way in WAYS:
                opening = openings[name][way]
                cells = [f"{fetch[way]:.1f} ({fetch[way] / fetch['pyfaidx']:.2f})" for fetch in times]
                rows.append([name, way, *cells, f"{opening.median:.1f}", opening.gib])
        header = ["file", "way", "1 kb, us (ratio)", "8 kb, us (ratio)", "first opening, s", "peak, GiB"]
        title = "## Access to a genome (`python -m benchmarks.genome_access`)"
        write_section("genome-access", f"{title}\n\n{EXPLANATION}\n\n{table(header, rows)}")
    finally:
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
