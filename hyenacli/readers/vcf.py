"""VCF as records that keep the line they were read from, and BCF as the VCF text that it stands for."""

import hashlib
import os
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BufferedReader, BytesIO
from itertools import chain, count, repeat
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import pysam

from hyenacli.errors import UserError, quote
from hyenacli.genome.region import Region
from hyenacli.readers.text import Source, compression

Lines = Iterable[tuple[int, bytes, bytes]]
"""The 1-based number, text and line end of every line."""

_COLUMNS = (b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO")
# The ID of a header line such as ##contig, after any other keys; quoted text may hold commas.
_DECLARATION = re.compile(rb'##(\w+)=<(?:(?:[^",>]|"[^"]*")*,)*?ID=([^,>]+)')
_PIPE_BYTES = 1 << 18
# Symbolic alleles that replace the bases after POS, as many as SVLEN says.
_SPANNING = (b"<DEL", b"<DUP", b"<INV", b"<CNV")
# The largest position that htslib looks up.
_MAX_POSITION = (1 << 31) - 1
# Lines that `read_records` takes, in a fraction of its time; others may also be records.
_RECORDS = re.compile(
    rb"(?:[^\t\n#\x80-\xff][^\t\n\x80-\xff]*+\t[0-9]{1,18}+\t[^\t\n]*+\t[^\t\n]++\t[^\t\n,]++(?:,[^\t\n,]++)*+"
    rb"\t[^\t\n]*+\t[^\t\n]*+\t[^\n]*+\n)*+"
)
_CONTIG = re.compile(rb"^[^\t]+", re.MULTILINE)


class VariantRecord(NamedTuple):
    """One line of a VCF file or of a table of variants; a tuple because files have many millions of them.

    Attributes:
        line: 1-based number in the decompressed text (of a BCF file, in the text that it stands for); 0 where
            the record was looked up through an index.
        text: the line, without its line end.
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


def spell_allele(record: VariantRecord, alt: bytes, longest: int | None = None) -> str:
    """Return an allele as it can be typed, REF and ALT shortened where they exceed `longest` letters."""
    ref, alternate = (
        text.decode(errors="replace")
        if longest is None or len(text) <= longest
        else f"{text[: longest - 3].decode(errors='replace')}..."
        for text in (record.ref, alt)
    )
    return f"{record.contig}:{record.position + 1}:{ref}>{alternate}"


def parse_declaration(line: bytes) -> tuple[bytes, bytes]:
    """Return what a header line declares and its ID, both empty where it declares nothing.

    >>> parse_declaration(b'##contig=<assembly="a,ID=b",ID=chr1,length=5>'), parse_declaration(b"##source=x")
    ((b'contig', b'chr1'), (b'', b''))
    """
    match = _DECLARATION.match(line)
    return (match[1], match[2]) if match else (b"", b"")


def number_lines(lines: Iterable[bytes], before: int = 0, newline: bytes = b"\n") -> Lines:
    """Yield the 1-based number, text and line end of every line.

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


def number_lines_in_blocks(stream: BufferedReader, before: int, newline: bytes, block_bytes: int) -> Lines:
    """Do as `number_lines` with less work per line; memory holds a block, or a line if that is longer."""
    return chain.from_iterable(_blocks(stream, before, newline, block_bytes))


def _whole_lines(stream: BufferedReader, block_bytes: int) -> Iterator[bytes]:
    while block := stream.read1(block_bytes):
        yield block + stream.readline()


def _blocks(stream: BufferedReader, number: int, newline: bytes, block_bytes: int) -> Iterator[Lines]:
    for block in _whole_lines(stream, block_bytes):
        if b"\r" in block or not block.endswith(b"\n"):
            yield number_lines(BytesIO(block), number, newline)
            newline = b"\r\n" if block.endswith(b"\r\n") else b"\n"
        else:
            newline = b"\n"
            yield zip(count(number + 1), block[:-1].split(b"\n"), repeat(newline), strict=False)
        number += block.count(b"\n")


def is_vcf_header(line: bytes) -> bool:
    """Return whether a line begins as the #CHROM line of a VCF."""
    return line.startswith(b"\t".join(_COLUMNS))


def read_header(lines: Lines, name: str) -> tuple[bytes, ...]:
    """Read the header's lines with their line ends, up to and including #CHROM.

    Args:
        lines: of a VCF, from its first one on.
        name: what messages call the file.

    Raises:
        UserError: there is no #CHROM line, or it is not that of a VCF.
    """
    header = []
    for number, text, newline in lines:
        header.append(text + newline)
        if text.startswith(b"##") or not text.strip():
            continue
        if tuple(text.split(b"\t", 8)[:8]) == _COLUMNS and b"\r" not in text:
            return tuple(header)
        if text.startswith(b"#CHROM"):
            remedy = "it begins with " + b" ".join(_COLUMNS).decode() + ", separated by tabs"
            raise UserError("the #CHROM line is not that of a VCF", at=name, line=number, remedy=remedy)
        raise UserError("the header ends without a #CHROM line", at=name, line=number)
    raise UserError("the header has no #CHROM line", at=name, remedy="the file may be cut short")


def read_records(lines: Lines, name: str) -> Iterator[VariantRecord]:
    """Read the records of the lines below the header, in one loop: files have many millions of them.

    Raises:
        UserError: a line is not a record; the message names file and line.
    """
    new, comma = tuple.__new__, ord(",")  # half the time of VariantRecord(...), a tenth of b"," in alt
    before, decoded = b"", ""
    for number, text, newline in lines:
        columns = text.split(b"\t", 7)
        if len(columns) < 8:
            if not text.strip():
                continue
            raise _not_a_record(number, text, name)
        contig, pos, _, ref, alt, _, _, _ = columns
        if contig != before:
            try:
                before, decoded = contig, contig.decode()
            except UnicodeDecodeError:
                raise _not_a_record(number, text, name) from None
        alts = tuple(alt.split(b",")) if comma in alt else () if alt == b"." else (alt,)
        if not (contig and pos.isdigit() and len(pos) <= 18 and ref) or b"" in alts:
            raise _not_a_record(number, text, name)
        yield new(VariantRecord, (number, text, newline, decoded, int(pos) - 1, ref, alts))


def count_records(
    stream: BufferedReader, before: int, name: str, block_bytes: int = 1 << 18
) -> tuple[dict[str, int], str]:
    """Count the records of every contig below the header, checked as by `read_records`, in less time.

    Args:
        stream: at the first line below the header.
        before: how many lines stand above.
        name: what messages call the file.
        block_bytes: read together.

    Returns:
        Contig -> number of records, in the order of their first records; the sha256 of all lines.

    Raises:
        UserError: as `read_records`.
    """
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    for block in _whole_lines(stream, block_bytes):
        digest.update(block)
        n_lines = block.count(b"\n")
        if not _RECORDS.fullmatch(block):
            lines = number_lines(BytesIO(block), before)
            counts.update(record.contig for record in read_records(lines, name))
        elif block.count(b"\n" + (first := block[: block.index(b"\t")]) + b"\t") + 1 == n_lines:
            counts[first.decode()] += n_lines
        else:
            counts.update(contig.decode() for contig in _CONTIG.findall(block))
        before += n_lines
    return dict(counts), digest.hexdigest()


def _not_a_record(number: int, text: bytes, name: str) -> UserError:
    """Return the error that says why a line is not a record."""
    columns = text.split(b"\t", 8)
    remedy: str | None = None
    if text.startswith(b"#"):
        what, remedy = "a header line below the header", "join VCF files with bcftools concat"
    elif len(columns) < 8:
        what = f"{len(columns)} column{'s' * (len(columns) > 1)} where VCF has at least 8, separated by tabs"
        remedy = "write '.' for what is missing, or copy the file again if its end is cut off"
    elif not columns[1].isdigit() or len(columns[1]) > 18:
        what = f"POS {quote(columns[1])} is not a position"
        remedy = "write a whole number without separators"
    elif not columns[3]:
        what, remedy = "REF is empty", "write the reference's bases"
    elif b"" in columns[4].split(b","):
        what, remedy = "ALT is empty", "write '.' for no allele"
    else:
        what, remedy = "CHROM is empty or not UTF-8", "write the name of a contig"
    return UserError(what, at=name, line=number or None, remedy=remedy)


class RegionSet:
    """Regions of any order and overlap, merged."""

    def __init__(self, regions: Iterable[Region], resolve: Callable[[str], str | None]):
        raw: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for region in regions:
            if len(region):
                raw[region.contig].append((region.start, region.end))
        spans = {contig: _merge(sorted(spans)) for contig, spans in raw.items()}
        self.largest = max((merged[-1][1] for merged in spans.values()), default=0)
        self.spans = cache(lambda name: spans.get(resolve(name) or "", []))
        """Disjoint intervals (start, end) of a contig of the file in rising order, 0-based half-open."""

    def overlaps(self, record: VariantRecord) -> bool:
        """Return whether a base of the record lies in a region."""
        spans = self.spans(record.contig)
        start = bisect_right(spans, (record.position, _MAX_POSITION)) - 1
        if start >= 0 and spans[start][1] > record.position:
            return True
        return start + 1 < len(spans) and spans[start + 1][0] < _end(record)


def _end(record: VariantRecord) -> int:
    """Return one past the last base of a record, 0-based: of REF, END or SVLEN, whichever is further."""
    end = record.end
    if b"END=" in record.text or b"SVLEN=" in record.text:
        info = record.text.split(b"\t", 8)[7:8]  # a table has none
        for item in b"".join(info).split(b";"):
            key, _, value = item.partition(b"=")
            if key == b"END" and value.isdigit():
                end = max(end, int(value))
            elif key == b"SVLEN" and any(alt.startswith(_SPANNING) for alt in record.alts):
                lengths = [int(number) for number in value.replace(b"-", b"").split(b",") if number.isdigit()]
                end = max(end, record.position + 1 + max(lengths, default=0))
    return end


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def usable_index(source: Source, regions: RegionSet) -> Path | None:
    """Return the tabix index beside a bgzip file, if it is no older than the file and covers the regions."""
    if not isinstance(source, (str, Path)) or str(source) == "-":
        return None
    if regions.largest > _MAX_POSITION:
        return None
    path = Path(source)
    for suffix in (".tbi", ".csi"):
        index = Path(f"{path}{suffix}")
        if index.is_file() and index.stat().st_mtime >= path.stat().st_mtime:
            return index if compression(path) == "bgzip" else None
    return None


def indexed_lines(path: Path, index: Path, regions: RegionSet) -> Iterator[bytes]:
    """Yield the lines of a bgzip VCF, without line ends, that may overlap a region: in file order, each once.

    Raises:
        UserError: the index cannot be used.
    """
    try:
        # Latin-1 gives every byte back as it was.
        with quiet_htslib(), pysam.TabixFile(str(path), index=str(index), encoding="latin-1") as file:
            for contig in file.contigs:
                before = None  # the end of the interval before, which has yielded what begins in front of it
                for start, end in regions.spans(contig):
                    # pysam reads names as UTF-8, and looks them up in the file's encoding
                    for line in file.fetch(contig.encode().decode("latin-1"), start, end):
                        if before is None or int(line.split("\t", 2)[1]) > before:
                            yield line.encode("latin-1")
                    before = end
    except (OSError, ValueError) as error:
        remedy = "make it again with tabix -f -p vcf, or remove it"
        raise UserError("the index cannot be read", at=index, remedy=remedy) from error


@contextmanager
def quiet_htslib() -> Iterator[None]:
    """Keep htslib from writing to stderr: our own messages say more."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


@contextmanager
def bcf_as_text(stream: BufferedReader) -> Iterator[Iterator[bytes]]:
    """Yield the lines of the VCF that a BCF stream stands for, header first, each with its line end.

    htslib reads files and pipes but not Python's streams, so a thread feeds it through a pipe; memory holds
    one record.

    Raises:
        UserError: the data are damaged or cut short, now or while reading.
    """
    failures: list[Exception] = []
    closed = Event()
    outlet, inlet = os.pipe()
    feeder = Thread(target=_feed, args=(stream, inlet, failures, closed))
    feeder.start()
    with os.fdopen(outlet, "rb", 0) as pipe:
        try:
            with quiet_htslib():
                with _damage_reported(stream.name, failures):
                    file = pysam.VariantFile(pipe)
                with file:
                    yield _bcf_lines(file, stream.name, failures)
        finally:
            closed.set()
            # pysam does not close a file that it cannot open: the thread would wait for ever to write.
            while pipe.read(_PIPE_BYTES):
                pass
            feeder.join()


def _bcf_lines(file: pysam.VariantFile, name: str, failures: list[Exception]) -> Iterator[bytes]:
    with _damage_reported(name, failures):
        yield from str(file.header).encode().splitlines(keepends=True)
        for record in file:
            yield str(record).encode()
    if failures:
        raise failures[0]


def _feed(stream: BufferedReader, inlet: int, failures: list[Exception], closed: Event) -> None:
    with os.fdopen(inlet, "wb", 0) as pipe:
        try:
            while not closed.is_set() and (chunk := stream.read(_PIPE_BYTES)):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[pipe.write(rest) :]
        except Exception as error:  # raised again by the thread that reads, which sees the pipe end after it
            failures.append(error)


@contextmanager
def _damage_reported(name: str, failures: list[Exception]) -> Iterator[None]:
    """Raise a UserError for what htslib cannot read, or else the failure of the feeding thread."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:  # TypeError: pysam trips over the name of a pipe
        if failures:
            raise failures[0] from None
        if isinstance(error, UnicodeDecodeError):
            remedy = "give VCF, as bcftools view writes it"
            raise UserError("BCF with text that is not UTF-8", at=name, remedy=remedy) from error
        remedy = "copy it again, or look at it with bcftools view"
        raise UserError("the BCF data are damaged or cut short", at=name, remedy=remedy) from error
