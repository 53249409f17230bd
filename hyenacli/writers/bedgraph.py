"""bedGraph: a number for every base of regions that do not overlap, equal neighbours in one line.

https://genome.ucsc.edu/goldenPath/help/bedgraph.html, without a track line, which converters do not take.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.writers.htslib import open_bgzip
from hyenacli.writers.tsv import TextFormat, WriteBytes, write_lines

_MARK = b"# hyena bedGraph shard "
# A .gz is bgzip, as tabix wants it.
BEDGRAPHS = {
    "bedgraph": TextFormat(suffix="bedgraph", stdout=True, mark=_MARK),
    "bedgraph.gz": TextFormat(suffix="bedgraph.gz", mark=_MARK, pack=open_bgzip),
}


class BedGraph:
    """Lines of contig, 0-based start, end and number.

    Args:
        write: takes lines.
        lines_at_once: lines of a call.
    """

    def __init__(self, write: WriteBytes, lines_at_once: int = 1 << 12) -> None:
        self._write, self._lines_at_once = write, lines_at_once

    def write(self, chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> None:
        """Append the numbers of neighbouring bases, the first at `start`; numbers of equal text are equal.

        Records are not joined with each other, so that shards can be.
        """
        write_lines(self._write, _lines(chrom, start, values_L), self._lines_at_once)


def _lines(chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> Iterator[str]:
    for text, equal in groupby(map("{:.7g}".format, values_L)):
        end = start + sum(1 for _ in equal)
        yield f"{chrom}\t{start}\t{end}\t{text}\n"
        start = end


@contextmanager
def open_bedgraph(target: Path, kind: str, provenance: Mapping[str, Any]) -> Iterator[BedGraph]:
    """Open a bedGraph for writing; the file appears, whole, when the context ends well.

    Args:
        target: output file, or `-` for stdout.
        kind: a key of `BEDGRAPHS`.
        provenance: JSON values, which only a shard keeps.

    Raises:
        UserError: as `atomic_path`.
    """
    with BEDGRAPHS[kind].open_records(target, provenance) as write:
        yield BedGraph(write)
