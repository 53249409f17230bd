"""FASTQ of four lines a record; qualities are checked to be as many as bases, and not used."""

import io
from collections.abc import Iterator
from itertools import chain

from hyenacli.errors import UserError


def read_fastq(stream: io.BufferedReader, piece: int) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
    """Read many records together; blank lines may follow the last.

    Args:
        stream: from `open_binary`.
        piece: bytes that are read together, about.

    Yields:
        The 1-based line of the first header, the headers, and the lines of bases; with their line ends.

    Raises:
        UserError: a record is not whole.
    """
    number, lines = 1, list[bytes]()
    while more := stream.readlines(piece):
        lines += more
        whole = len(lines) - len(lines) % 4
        headers, bases = lines[:whole:4], lines[1:whole:4]
        good = _count_good(headers, bases, lines[2:whole:4], lines[3:whole:4])
        yield number, headers[:good], bases[:good]
        number += 4 * good
        del lines[: 4 * good]
        if good < len(headers):
            break
    if not all(line.isspace() for line in chain(lines, stream)):
        raise _not_fastq(str(stream.name), number)


def _count_good(headers: list[bytes], bases: list[bytes], pluses: list[bytes], qualities: list[bytes]) -> int:
    """Return how many records are whole, up to the first that is not."""
    for i, header in enumerate(headers):
        same_length = len(bases[i]) == len(qualities[i]) or len(bases[i].rstrip()) == len(
            qualities[i].rstrip()
        )
        if header[0] != ord("@") or pluses[i][0] != ord("+") or not same_length:
            return i
    return len(headers)


def _not_fastq(name: str, line: int) -> UserError:
    what = "not a FASTQ record of four lines, with as many qualities as bases"
    remedy = "the file may be cut short; sequences on several lines are not read (seqtk seq -l 0)"
    return UserError(what, at=name, line=line, remedy=remedy)
