"""Sequences with names, read once from start to end: FASTA, plain or compressed.

A record may be a chromosome: memory holds a piece of it until a reader joins the pieces.
"""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count

from hyenacli.errors import UserError, abbreviate, quote
from hyenacli.genome.dna import first_invalid, normalised, normalised_lines
from hyenacli.readers.annotated import ANNOTATED, read_annotated
from hyenacli.readers.fastq import read_fastq
from hyenacli.readers.text import (
    FASTQ,
    Source,
    carriage_return,
    file_format,
    open_binary,
    refuse_foreign,
    source_name,
)

PIECE = 1 << 20
"""Bytes of a file that are read together."""
_BLANKS = b" \t\r"
_TITLE = re.compile(rb".([!-~]+)(?:[ \t]+([ -~]*))?\r?\n?")
"""A header without characters that need a closer look: its name, and the rest."""
_TITLES = re.compile(r"^@([!-~]+)(?: +([ -~]*))?\n", re.MULTILINE)
"""Such headers of FASTQ, many together."""
_REMEDY = "only DNA and RNA in IUPAC codes are read, without gaps"


@dataclass(slots=True)  # frozen ones take three times as long to make, and reads are short
class FastaRecord:
    """One FASTA record.

    Attributes:
        name: the header up to its first blank; records of one file may share it.
        description: the rest of the header, '' when there is none.
        sequence: normalised bases (upper-case A C G T N); may be empty.
        text: the record byte for byte as in the file, where it was asked to be kept.
        line: 1-based line of the header, or of the first letter that is not a nucleotide code.
        problem: the letter, for messages; then there is no sequence.
        circular: whether the file calls it circular.
    """

    name: str
    description: str
    sequence: bytes
    text: bytes = b""
    line: int = 0
    problem: str = ""
    circular: bool = False

    @property
    def status(self) -> str:
        """OK, EMPTY or BAD_LETTER."""
        return "OK" if self.sequence else "BAD_LETTER" if self.problem else "EMPTY"


@dataclass(slots=True)
class FastaEntry:
    """One record of a FASTA stream whose sequence has not been read yet; valid until the next entry is read.

    Attributes:
        source: name of the file in messages.
        line: 1-based line of the header.
        header_line: the header byte for byte, with '>' (of FASTQ, '@') and line end.
        body: everything from the line after the header up to the next record, byte for byte, in pieces; read
            it once, through one of the methods or directly.
        circular: whether the file calls it circular, as GenBank and EMBL can.
        apart: whether the file does not have the lines of the body after the header.
    """

    source: str
    line: int
    header_line: bytes
    body: Iterable[bytes]
    circular: bool = False
    apart: bool = False

    @property
    def body_line(self) -> int:
        """1-based line of the body; of the header if it is apart from that."""
        return self.line if self.apart else self.line + 1

    @property
    def header(self) -> bytes:
        """The header without '>' and line end."""
        return self.header_line[1:].rstrip(b"\r\n")

    def title(self) -> tuple[str, str]:
        """Return the record's name (up to the first blank) and its description (the rest).

        Raises:
            UserError: the name is empty or not printable UTF-8, or the file has the line ends of old Macs.
        """
        if (title := _TITLE.fullmatch(self.header_line)) is not None:
            return title[1].decode(), (title[2] or b"").rstrip().decode()
        if b"\r" in self.header:
            raise carriage_return(self.source, self.line)
        if not self.header or self.header[:1].isspace():
            remedy = f"write a name directly after '{chr(self.header_line[0])}'"
            raise UserError("the record has no name", at=self.source, line=self.line, remedy=remedy)
        name, *rest = self.header.split(None, 1)
        if min(name) < 32:
            raise UserError("the record's name has a control character", at=self.source, line=self.line)
        try:
            return name.decode(), b"".join(rest).rstrip().decode(errors="replace")
        except UnicodeDecodeError:
            raise UserError("the record's name is not UTF-8", at=self.source, line=self.line) from None

    def text(self) -> bytes:
        """Read the record byte for byte; its sequence can still be read afterwards."""
        body = b"".join(self.body)
        self.body = [body]
        return b">" + self.header_line[1:] + body

    def blocks(self, *, normal: bool = False) -> Iterator[bytes]:
        """Read the sequence in non-empty blocks, without white space at line ends.

        Args:
            normal: as `normalise` returns it, not as the file has it.

        Raises:
            BadLetterError: a letter is not an IUPAC nucleotide code; names the record and the line.
        """
        line = self.body_line
        for piece in self.body:
            letters = piece.translate(None, b"\n")
            if (bases := normalised(letters)) is None:  # blanks at line ends, or other letters
                letters = b"".join(text.rstrip(_BLANKS) for text in piece.split(b"\n"))
                if (bases := normalised(letters)) is None:
                    raise self._not_dna(piece, line)
            line += piece.count(b"\n")
            if letters:
                yield bases if normal else letters

    def record(self, *, keep_text: bool = False) -> FastaRecord:
        """Read the record; where a letter is not a nucleotide code, it has no sequence."""
        name, description = self.title()
        text = self.text() if keep_text else b""
        try:
            return FastaRecord(
                name,
                description,
                b"".join(self.blocks(normal=True)),
                text,
                self.line,
                circular=self.circular,
            )
        except BadLetterError as error:
            return FastaRecord(name, description, b"", text, error.line, error.problem)

    def _not_dna(self, piece: bytes, first_line: int) -> "BadLetterError":
        lines = enumerate((text.rstrip(_BLANKS) for text in piece.split(b"\n")), first_line)
        number, letter = next((n, text[at]) for n, text in lines if (at := first_invalid(text)) >= 0)
        problem = f"{chr(letter)!r} in record {quote(self.title()[0])} is not a nucleotide code"
        return BadLetterError(problem, self.source, number)


class BadLetterError(UserError):
    """A letter of a sequence that is not an IUPAC nucleotide code."""

    def __init__(self, problem: str, source: str, line: int) -> None:
        super().__init__(problem, at=source, line=line, remedy=_REMEDY)
        self.problem, self.line = problem, line


def bad_letters_error(source: Source, first: BadLetterError) -> UserError:
    """Return the error that counts all lines of a FASTA with letters that are not nucleotide codes.

    Args:
        source: the file, to be read again.
        first: the error about the first of them.
    """
    lines: list[int] = []
    with suppress(UserError), open_binary(source) as stream:  # the first fault is reported first
        for entry in read_entries(stream):
            number = entry.body_line
            for piece in entry.body:
                for line, text in enumerate(piece.split(b"\n"), number):
                    if first_invalid(text.rstrip(_BLANKS)) >= 0 and lines[-1:] != [line]:
                        lines.append(line)
                number += piece.count(b"\n")
    if len(lines) < 2:
        return first
    what = f"{len(lines):,} lines with letters that are not nucleotide codes, the first as {first.problem}"
    where = f"{source_name(source)}, lines {abbreviate(f'{line:,}' for line in lines)}"
    return UserError(what, at=where, remedy=_REMEDY)


def read_fasta(source: Source, *, keep_text: bool = False, piece: int = PIECE) -> Iterator[FastaRecord]:
    """Read the records of a FASTA file, gzip or bgzip file, or of standard input ('-'), in file order.

    Memory holds one record at a time. Lower case, U, IUPAC codes, CRLF line ends, blank lines and blanks at
    line ends are read; records without sequence, with other letters than nucleotide codes, and repeated
    names are passed on.

    Args:
        source: the file.
        keep_text: keep each record's text as well.
        piece: bytes read together.

    Raises:
        UserError: `open_binary` refuses the input, text stands before the first '>', there is no record, or
            a record has no name; the message names file and line.
    """
    with open_binary(source) as stream:
        yield from read_records(stream, keep_text=keep_text, piece=piece)


def read_records(
    stream: io.BufferedReader, *, keep_text: bool = False, piece: int = PIECE
) -> Iterator[FastaRecord]:
    """Read the records of a stream as `read_fasta` does; it is of any format of `read_entries`.

    Raises:
        UserError: as `read_entries`, or a record has no name.
    """
    if not keep_text and file_format(stream) == FASTQ:
        yield from _fastq_records(stream, piece)
        return
    for entry in read_entries(stream, piece):
        yield entry.record(keep_text=keep_text)


def read_entries(stream: io.BufferedReader, piece: int = PIECE) -> Iterator[FastaEntry]:
    """Read the headers of a stream of sequences in order; what an entry leaves unread is skipped.

    It is FASTA, or FASTQ (whose qualities are not used), GenBank, EMBL or 2bit.

    Raises:
        UserError: as `read_annotated`, a FASTQ record is not whole, there is text before the first '>', or
            no record at all.
    """
    start = stream.peek(1)
    if not start:  # only where `open_binary` allows it
        return
    kind = file_format(stream)
    if kind in ANNOTATED:
        yield from _annotated_entries(stream)
        return
    if kind == FASTQ:
        for number, headers, bases in read_fastq(stream, piece):
            yield from _fastq_entries(str(stream.name), number, headers, bases)
        return
    if not start.lstrip().startswith(b">"):
        refuse_foreign(stream)
    scanner = _Scanner(stream, piece)
    scanner.skip_to_first_record()
    while scanner.rest():
        line, header_line = scanner.line, scanner.take_line()
        body = scanner.take_body()
        yield FastaEntry(stream.name, line, header_line, body)
        for _ in body:
            pass


def _annotated_entries(stream: io.BufferedReader) -> Iterator[FastaEntry]:
    for entry in read_annotated(stream):
        header = f">{entry.name} {entry.description}\n".encode()
        body = chain(entry.pieces(), [b"\n"])
        yield FastaEntry(str(stream.name), entry.line, header, body, entry.circular, apart=True)


def _fastq_records(stream: io.BufferedReader, piece: int) -> Iterator[FastaRecord]:
    """Read records of FASTQ many together, where their headers and letters need no closer look."""
    for number, headers, bases in read_fastq(stream, piece):
        titles = _TITLES.findall(b"".join(headers).decode("latin-1"))
        sequences = normalised_lines(b"".join(bases))
        if sequences is None or len(titles) < len(headers):
            for entry in _fastq_entries(str(stream.name), number, headers, bases):
                yield entry.record()
            continue
        for line, (name, description), sequence in zip(count(number, 4), titles, sequences, strict=False):
            yield FastaRecord(name, description.rstrip(), sequence, b"", line)


def _fastq_entries(
    name: str, number: int, headers: Iterable[bytes], bases: Iterable[bytes]
) -> Iterator[FastaEntry]:
    for line, header, body in zip(count(number, 4), headers, bases, strict=False):
        yield FastaEntry(name, line, header, [body])


class _Scanner:
    """A FASTA stream that is cut into headers and pieces of sequence.

    Attributes:
        line: 1-based line of the next byte.
    """

    def __init__(self, stream: io.BufferedReader, piece: int) -> None:
        self._stream, self._piece = stream, piece
        self._text, self._start = b"", 0
        self.line = 1

    def rest(self) -> bool:
        """Return False at the end of the stream."""
        if self._start == len(self._text):
            self._text, self._start = self._stream.read(self._piece), 0
        return bool(self._text)

    def _take(self, end: int) -> bytes:
        text = self._text[self._start : end]
        self._start = end
        self.line += text.count(b"\n")
        return text

    def skip_to_first_record(self) -> None:
        line_start = True
        while self.rest():
            text = self._text[self._start :]
            blank = self._take(len(self._text) - len(text.lstrip()))
            line_start = blank.endswith(b"\n") if blank else line_start
            if self._start < len(self._text):
                break
        else:
            raise UserError("no FASTA records", at=self._stream.name)
        if not (line_start and self._text.startswith(b">", self._start)):
            remedy = "FASTA begins with '>'"
            raise UserError(
                "text before the first record", at=self._stream.name, line=self.line, remedy=remedy
            )

    def take_line(self) -> bytes:
        parts, end = list[bytes](), 0
        while not end and self.rest():
            end = self._text.find(b"\n", self._start) + 1
            parts.append(self._take(end or len(self._text)))
        return b"".join(parts)

    def take_body(self) -> Iterator[bytes]:
        """Read up to the next header; pieces before the last end with something else than white space.

        So blanks before a line end, and a line end before a header, are never torn from each other.
        """
        line_start, blanks = True, list[bytes]()  # blanks: the white space since the last piece
        while self.rest() and not (line_start and self._text.startswith(b">", self._start)):
            next_record = self._text.find(b"\n>", self._start) + 1
            end = next_record or len(self._text.rstrip(_BLANKS + b"\n"))
            if end > self._start:
                yield b"".join((*blanks, self._take(end)))
                blanks.clear()
            if next_record:
                return
            line_start = self._text.endswith(b"\n")
            blanks.append(self._take(len(self._text)))
        yield b"".join(blanks)
