"""The process that writes a bigWig: blocks from standard input, as `tracks` sends them, through pybigtools.

pybigtools takes numbers from an iterator and tells of a failure by a message and a good exit code, or by a
panic of its own. In a process of its own neither reaches the user.
"""

import json
import sys
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pybigtools

_NO_NUMBERS = 3


class _Entries:
    """Intervals of equal numbers, of a stream of blocks.

    Attributes:
        bases: with a number, so far.
        complete: whether all blocks have been taken.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bases, self.complete = 0, False

    def __iter__(self) -> Iterator[tuple[str, int, int, float]]:
        while line := self._stream.readline():
            contig, start, length = json.loads(line)
            values_L = np.frombuffer(self._stream.read(4 * length), "<f4")
            first = np.flatnonzero(np.append(True, values_L[1:] != values_L[:-1])[:length])
            last = np.append(first[1:], length)[: len(first)]
            numbers = ~np.isnan(values_L[first])
            first, last = first[numbers], last[numbers]
            self.bases += int((last - first).sum())
            starts, ends = (first + start).tolist(), (last + start).tolist()
            yield from zip([contig] * len(first), starts, ends, values_L[first].tolist(), strict=True)
        self.complete = True


def main() -> int:
    """Write the file and open it again; return 0 if it has all bases that came with a number."""
    stream = sys.stdin.buffer
    contigs = json.loads(stream.readline())
    path = sys.argv[1]
    entries = _Entries(stream)
    pybigtools.open(path, "w").write(contigs, iter(entries))
    if entries.complete and not entries.bases:
        return _NO_NUMBERS
    return int(pybigtools.open(path).info()["summary"]["basesCovered"] != entries.bases)


if __name__ == "__main__":
    sys.exit(main())
