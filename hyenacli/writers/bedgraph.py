"""bedGraph: one number for every base of regions that are apart, equal neighbours in one line.

https://genome.ucsc.edu/goldenPath/help/bedgraph.html, without a track line, which converters do not take.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.bgzip import open_bgzip
from hyenacli.writers.tsv import shard_end

TYPES = ("bedgraph", "bedgraph.gz")
MARK = b"# hyena bedGraph shard "
_BUFFER = 1 << 18
_LINES = 1 << 12


class BedGraph:
    """Lines of contig, 0-based start, end and number.

    Args:
        write: takes lines.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> None:
        """Append the numbers of neighbouring bases, the first at `start`; equal are those that look equal.

        Records are not joined with each other, so that shards can be.
        """
        lines = _lines(chrom, start, values_L)
        while block := "".join(islice(lines, _LINES)):
            self._write(block.encode())


def _lines(chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> Iterator[str]:
    for text, same in groupby(map("{:.7g}".format, values_L)):
        end = start + sum(1 for _ in same)
        yield f"{chrom}\t{start}\t{end}\t{text}\n"
        start = end


@contextmanager
def open_bedgraph(target: Path, kind: str, provenance: Mapping[str, Any]) -> Iterator[BedGraph]:
    """Open a bedGraph for writing; the file appears, whole, when the context ends well.

    Args:
        target: output file, or `-` for stdout.
        kind: one of `TYPES`.
        provenance: JSON values. Only a shard says what it is, in a first line and one at the end, which
            joining takes out.

    Raises:
        UserError: as `atomic_path`.
    """
    with open_lines(target, kind) as write:
        if "shard" in provenance:
            write(MARK + json.dumps(provenance).encode() + b"\n")
        yield BedGraph(write)
        write(shard_end(provenance))


@contextmanager
def open_lines(target: Path, kind: str) -> Iterator[Callable[[bytes], object]]:
    """Takes the lines of a bedGraph; a .gz is bgzip, as tabix wants it.

    Raises:
        UserError: as `atomic_path`.
    """
    if str(target) == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    with atomic_path(target) as path:
        if kind.endswith("gz"):
            with open_bgzip(path, target) as packed:
                yield packed.write
        else:
            with path.open("wb", buffering=_BUFFER) as file:
                yield file.write
