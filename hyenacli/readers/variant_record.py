"""Variants as a file has them: records that keep their line, and what stands above the records."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from itertools import chain, count, repeat
from typing import Literal, NamedTuple

VariantsKind = Literal["vcf", "bcf", "table"]
# csv reads text only; the bytes that are no UTF-8 come back as they were.
_ANY_BYTES = ("utf-8", "surrogateescape")
# The ID of a header line such as ##contig, after any other keys; quoted text may hold commas.
_DECLARATION = re.compile(rb'##(\w+)=<(?:(?:[^",>]|"[^"]*")*,)*?ID=([^,>]+)')
_BLOCK = 1 << 16


class VariantRecord(NamedTuple):
    """One line of a VCF file or of a table of variants; a tuple because files have many millions of them.

    Attributes:
        line: 1-based number in the decompressed text (of a BCF file, in the text that it stands for); 0 where
            the record was found through an index.
        text: the line as it stands, without its line end.
        newline: its line end; a last line without one has that of the line before it.
        contig: in the file's spelling.
        position: 0-based, of the first base of `ref` (POS minus 1); -1 for the telomere before the first.
        ref: as written, never empty.
        alts: as written, none of them empty; `.` alone stands for none.
    """

    line: int
    text: bytes
    newline: bytes
    contig: str
    position: int
    ref: bytes
    alts: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """One past the last base of `ref`, 0-based."""
        return self.position + len(self.ref)


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How the lines of a table fall into columns.

    Attributes:
        names: of the columns, as written; invented where the table has no header line.
        delimiter: what separates them; None for any run of blanks.
        places: index of the columns chrom, pos, ref and alt, and of id if there is one.
    """

    names: tuple[bytes, ...]
    delimiter: bytes | None
    places: Mapping[str, int]

    def cells(self, text: bytes) -> list[bytes]:
        """The columns of a line.

        Raises:
            csv.Error: the line cannot be read as CSV.
        """
        return split_cells(text, self.delimiter)


@dataclass(frozen=True, slots=True)
class VariantHeader:
    """What stands above the records.

    Attributes:
        kind: what the file is.
        lines: the raw lines with their line ends, up to and including #CHROM; none for a table.
        table: the columns of a table, None for VCF and BCF.
    """

    kind: VariantsKind
    lines: tuple[bytes, ...] = ()
    table: TableLayout | None = None

    @property
    def contigs(self) -> tuple[str, ...]:
        """The contigs that ##contig lines declare, in order; a file need not declare any."""
        found = (declared(line) for line in self.lines)
        return tuple(name.decode(errors="replace") for kind, name in found if kind == b"contig")

    @property
    def newline(self) -> bytes:
        """The line end of the header."""
        return b"\r\n" if self.lines and self.lines[-1].endswith(b"\r\n") else b"\n"


def declared(line: bytes) -> tuple[bytes, bytes]:
    """What a header line declares and its ID, both empty where it declares nothing.

    >>> declared(b'##contig=<assembly="a,ID=b",ID=chr1,length=5>'), declared(b"##source=x")
    ((b'contig', b'chr1'), (b'', b''))
    """
    match = _DECLARATION.match(line)
    return (match[1], match[2]) if match else (b"", b"")


def split_cells(text: bytes, delimiter: bytes | None) -> list[bytes]:
    """The columns of a line: CSV with its quotes where the delimiter is a comma, else simply split.

    >>> split_cells(b'chr1,5,"A,C"', b","), split_cells(b"chr1  5 A", None)
    ([b'chr1', b'5', b'A,C'], [b'chr1', b'5', b'A'])
    """
    if delimiter != b",":
        return text.split(delimiter)
    return [cell.encode(*_ANY_BYTES) for cell in next(csv.reader([text.decode(*_ANY_BYTES)]), [])]


def numbered_lines(
    lines: Iterable[bytes], before: int = 0, newline: bytes = b"\n"
) -> Iterator[tuple[int, bytes, bytes]]:
    """The 1-based number, text and line end of every line.

    Args:
        lines: with their line ends.
        before: how many lines stand above.
        newline: line end of the line above, which a last line without one has as well.
    """
    for number, raw in enumerate(lines, before + 1):
        if raw.endswith(b"\r\n"):
            newline = b"\r\n"
            yield number, raw[:-2], newline
        elif raw.endswith(b"\n"):
            newline = b"\n"
            yield number, raw[:-1], newline
        else:
            yield number, raw, newline


def numbered_lines_of_blocks(
    stream: BufferedReader, before: int, newline: bytes
) -> Iterator[tuple[int, bytes, bytes]]:
    """As `numbered_lines`, with less work per line; memory holds 64 KiB or a line, whichever is more."""
    return chain.from_iterable(_blocks(stream, before, newline))


def _blocks(
    stream: BufferedReader, number: int, newline: bytes
) -> Iterator[Iterable[tuple[int, bytes, bytes]]]:
    while block := stream.read1(_BLOCK):
        block += stream.readline()
        if b"\r" in block or not block.endswith(b"\n"):
            yield numbered_lines(BytesIO(block), number, newline)
            newline = b"\r\n" if block.endswith(b"\r\n") else b"\n"
        else:
            newline = b"\n"
            yield zip(count(number + 1), block[:-1].split(b"\n"), repeat(newline), strict=False)
        number += block.count(b"\n")
