"""FASTA cut into records as they stand in the file, before anything is read into them."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

from hyenacli.errors import UserError
from hyenacli.genome.dna import first_invalid, normalise
from hyenacli.readers.streams import BOM

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class FastaBlock:
    """One record of a FASTA file, byte for byte.

    Attributes:
        source: what messages call the file.
        line: 1-based line of the header.
        offset: 0-based position of `body` in the decompressed file.
        header: the header line without '>' and line end.
        body: everything from the line after the header up to the next record.
    """

    source: str
    line: int
    offset: int
    header: bytes
    body: bytes

    def title(self) -> tuple[str, str]:
        """The record's name (up to the first blank) and its description (the rest).

        Raises:
            UserError: the name is empty or no printable UTF-8, or the file has the line ends of old Macs.
        """
        if b"\r" in self.header:
            remedy = "convert the line ends to those of Unix"
            raise UserError(
                "a carriage return inside the line", at=self.source, line=self.line, remedy=remedy
            )
        if not self.header or self.header[:1].isspace():
            remedy = "write a name directly after '>'"
            raise UserError("the record has no name", at=self.source, line=self.line, remedy=remedy)
        name, *rest = self.header.split(None, 1)
        if min(name) < 32:
            raise UserError("the record's name has a control character", at=self.source, line=self.line)
        try:
            return name.decode(), b"".join(rest).rstrip().decode(errors="replace")
        except UnicodeDecodeError:
            raise UserError("the record's name is not UTF-8", at=self.source, line=self.line) from None

    def letters(self) -> bytes:
        """The sequence in the case it is written in, without line ends and the blanks before them."""
        body = self.body
        if b"\r" in body or b" " in body or b"\t" in body:
            return b"".join(line.rstrip(b" \t\r") for line in body.split(b"\n"))
        return body.translate(None, b"\n")

    def sequence(self) -> bytes:
        """The normalised sequence.

        Raises:
            UserError: something else than IUPAC nucleotide codes; names the record and the line.
        """
        letters = self.letters()
        try:
            return normalise(letters)
        except ValueError:
            raise self._not_dna() from None

    def _not_dna(self) -> UserError:
        lines = enumerate(self.body.split(b"\n"), self.line + 1)
        stripped = ((number, line.rstrip(b" \t\r")) for number, line in lines)
        number, letter = next((n, text[at]) for n, text in stripped if (at := first_invalid(text)) >= 0)
        return UserError(
            f"{chr(letter)!r} in record '{self.title()[0]}' is not a nucleotide code",
            at=self.source,
            line=number,
            remedy="only DNA and RNA in IUPAC codes are read, without gaps",
        )


def read_blocks(stream: io.BufferedReader) -> Iterator[FastaBlock]:
    """The records of a FASTA stream in order; memory holds one at a time.

    Raises:
        UserError: there is text before the first '>', or no record at all.
    """
    offset = len(stream.read(len(BOM))) if stream.peek(1).startswith(BOM) else 0
    line = 1
    line_start = True
    first = stream.readline(_CHUNK)
    while first and not first.strip():
        line_start = first.endswith(b"\n")
        offset += len(first)
        line += first.count(b"\n")
        first = stream.readline(_CHUNK)
    if not first:
        raise UserError("no FASTA records", at=stream.name)
    if not (line_start and first.startswith(b">")):
        raise UserError(
            "text before the first record", at=stream.name, line=line, remedy="FASTA begins with '>'"
        )
    for text in _split_at_headers(chain([first], iter(partial(stream.read, _CHUNK), b""))):
        end = text.find(b"\n") + 1 or len(text)
        block = FastaBlock(stream.name, line, offset + end, text[1:end].rstrip(b"\r\n"), text[end:])
        offset += len(text)
        line += text.count(b"\n")
        # A record may be a chromosome: no second copy of it stays while it is worked on.
        del text
        yield block


def _split_at_headers(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join and cut chunks so that each piece is one whole record; the first chunk begins with '>'."""
    parts: list[bytes] = []
    line_start = False
    for chunk in chunks:
        begin = 0
        if line_start and chunk.startswith(b">"):
            yield _taken(parts)
        while (cut := chunk.find(b"\n>", begin) + 1) > 0:
            parts.append(chunk[begin:cut])
            yield _taken(parts)
            begin = cut
        parts.append(chunk[begin:])
        line_start = chunk.endswith(b"\n")
    yield _taken(parts)


def _taken(parts: list[bytes]) -> bytes:
    """All parts in one; the list is empty then."""
    whole = b"".join(parts)
    parts.clear()
    return whole
