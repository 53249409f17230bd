"""Files of variants (VCF, BCF, tables), recognised by content, with all records or those in regions.

A table has columns chrom, pos (1-based), ref and alt, with or without a line that names them.
"""

import csv
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Literal

from hyenacli.errors import UserError, quote
from hyenacli.genome.region import Region
from hyenacli.readers.text import (
    Source,
    bare,
    carriage_return,
    is_missing,
    open_binary,
    refuse_foreign,
    sniff_format,
)
from hyenacli.readers.vcf import (
    Lines,
    RegionSet,
    VariantRecord,
    bcf_as_text,
    count_records,
    indexed_lines,
    is_vcf_header,
    number_lines,
    number_lines_in_blocks,
    parse_declaration,
    read_header,
    read_records,
    usable_index,
)

_logger = logging.getLogger("hyena")
VariantFormat = Literal["vcf", "bcf", "table"]
_LENGTH = re.compile(rb"[<,]length=(\d{1,18})[,>]")
_REQUIRED = ("chrom", "pos", "ref", "alt")
_SYNONYMS = {"chr": "chrom"}
_VCF_COLUMNS = (b"chrom", b"pos", b"id", b"ref", b"alt", b"qual", b"filter", b"info")
_NAME_COLUMNS = "name the columns chrom, pos, ref and alt in the first line, or put them first in this order"
_BASES = frozenset(b"ACGTUNacgtun")
# csv reads text only; bytes that are not UTF-8 come back as they were.
_ANY_BYTES = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How the lines of a table fall into columns.

    Attributes:
        names: of the columns, as written; invented where the table has no header line.
        delimiter: what separates them; None for any run of blanks.
        indices: of the columns chrom, pos, ref and alt, and of id if the table has it.
    """

    names: tuple[bytes, ...]
    delimiter: bytes | None
    indices: Mapping[str, int]

    def cells(self, text: bytes) -> list[bytes]:
        """Split a line into its columns.

        Raises:
            csv.Error: the line cannot be read as CSV.
        """
        return split_cells(text, self.delimiter)


def split_cells(text: bytes, delimiter: bytes | None) -> list[bytes]:
    """Split a line into its columns, as CSV with quotes where the delimiter is a comma.

    >>> split_cells(b'chr1,5,"A,C"', b","), split_cells(b"chr1  5 A", None)
    ([b'chr1', b'5', b'A,C'], [b'chr1', b'5', b'A'])
    """
    if delimiter != b",":
        return text.split(delimiter)
    return [cell.encode(*_ANY_BYTES) for cell in next(csv.reader([text.decode(*_ANY_BYTES)]), [])]


@dataclass(frozen=True, slots=True)
class VariantHeader:
    """What stands above the records.

    Attributes:
        kind: the format of the file.
        lines: the raw lines with their line ends, up to and including #CHROM; none for a table.
        table: the columns of a table, None for VCF and BCF.
    """

    kind: VariantFormat
    lines: tuple[bytes, ...] = ()
    table: TableLayout | None = None

    @property
    def contigs(self) -> tuple[str, ...]:
        """The contigs that ##contig lines declare, in order; a file need not declare any."""
        declarations = (parse_declaration(line) for line in self.lines)
        return tuple(name.decode(errors="replace") for kind, name in declarations if kind == b"contig")

    @property
    def contig_lengths(self) -> dict[str, int]:
        """The lengths of contigs, where ##contig lines declare them."""
        declared = {}
        for line in self.lines:
            length = _LENGTH.search(line)
            if length and (declaration := parse_declaration(line))[0] == b"contig":
                declared[declaration[1].decode(errors="replace")] = int(length[1])
        return declared

    @property
    def newline(self) -> bytes:
        """The line end of the header."""
        return b"\r\n" if self.lines and self.lines[-1].endswith(b"\r\n") else b"\n"


@dataclass(frozen=True)
class Variants:
    """An open file of variants; iterate over it, once, for its records.

    Attributes:
        name: what messages call the file.
        header: what stands above the records, and the format of the file.
        records: in file order.
        text: of a VCF, without regions: the stream, at its records.
    """

    name: str
    header: VariantHeader
    records: Iterator[VariantRecord]
    text: BufferedReader | None = None

    def __iter__(self) -> Iterator[VariantRecord]:
        return self.records

    def survey(self) -> tuple[dict[str, int], str]:
        """Read all records, and return how many of them each contig has, and their sha256.

        Raises:
            UserError: a line is not a variant, or the input is cut short.
        """
        if self.text is not None:
            return count_records(self.text, len(self.header.lines), self.name)
        counts: Counter[str] = Counter()
        digest = hashlib.sha256()
        for record in self.records:
            counts[record.contig] += 1
            digest.update(record.text + b"\n")
        return dict(counts), digest.hexdigest()


@contextmanager
def open_variants(
    source: Source,
    regions: Sequence[Region] | None = None,
    resolve: Callable[[str], str | None] = str,
    *,
    block_bytes: int = 1 << 16,
) -> Iterator[Variants]:
    """Open variants for reading from start to end; memory holds a block, or a line that is longer.

    Args:
        source: VCF, BCF, or a table (TSV, CSV or blanks) with columns chrom, pos (1-based), ref and alt;
            plain, gzip or bgzip; a path, or '-' for standard input. The content decides, not the name.
        regions: only records that have a base in one of these, None for all. As for bcftools, a record
            reaches from POS over its REF, or to INFO's END or over SVLEN if that is further. Beside a bgzip
            VCF file a .tbi or .csi no older than the file is used.
        resolve: returns the name in `regions` of a contig of the file.
        block_bytes: of a VCF read at once.

    Raises:
        UserError: `open_binary` refuses the input, it holds no variants, its header has no #CHROM line; while
            reading, a line is not a variant or the input is cut short. The message names file and line.
    """
    chosen = None if regions is None else RegionSet(regions, resolve)
    with open_binary(source) as stream:
        name, kind = stream.name, _sniff(stream)
        if kind == "table":
            layout, records = read_table(number_lines(stream), name)
            yield Variants(name, VariantHeader(kind, table=layout), _filtered(records, chosen))
            return
        with bcf_as_text(stream) if kind == "bcf" else nullcontext(stream) as raw_lines:
            lines = number_lines(raw_lines)
            header = VariantHeader(kind, read_header(lines, name))
            if kind == "vcf":
                lines = number_lines_in_blocks(stream, len(header.lines), header.newline, block_bytes)
            index = usable_index(source, chosen) if chosen and kind == "vcf" else None
            if index and chosen:
                indexed = indexed_lines(Path(name), index, chosen)
                lines = ((0, text, header.newline) for text in indexed)
            text = stream if kind == "vcf" and chosen is None else None
            yield Variants(name, header, _filtered(read_records(lines, name), chosen), text)


def _filtered(records: Iterator[VariantRecord], regions: "RegionSet | None") -> Iterator[VariantRecord]:
    return records if regions is None else filter(regions.overlaps, records)


def _sniff(stream: BufferedReader) -> VariantFormat:
    """Return the format of a stream, without taking a byte from it."""
    head = stream.peek(1)
    if head.startswith(b"BCF"):
        return "bcf"
    if head.startswith(b"##fileformat=VCF"):
        return "vcf"
    lines = (line for line in head.splitlines() if line.strip() and not line.startswith(b"##"))
    first = next(lines, b"")
    if not is_vcf_header(first) and parse_column_names(first):
        return "table"
    try:
        kind = sniff_format(stream)
    except UserError:  # the reader of tables has the better message
        refuse_foreign(stream)
        return "table"
    if kind == "vcf":
        return "vcf"
    remedy = "give VCF, BCF, or a table with columns chrom, pos, ref and alt"
    raise UserError(f"holds {kind.upper()}, no variants", at=stream.name, remedy=remedy)


def parse_column_names(text: bytes) -> TableLayout | None:
    """Return the layout that a header line gives, None if the line is not a header of a table of variants.

    Upper case, `#` before the first name, other columns and any order are fine.
    """
    text = text.rstrip(b"\r\n")
    delimiter = _delimiter(text)
    try:
        names = tuple(split_cells(text, delimiter))
    except csv.Error:
        return None
    indices: dict[str, int] = {}
    for index, name in enumerate(names):
        indices.setdefault(_plain_name(name), index)
    if not all(name in indices for name in _REQUIRED):
        return None
    return TableLayout(
        names, delimiter, {name: indices[name] for name in (*_REQUIRED, "id") if name in indices}
    )


def _plain_name(name: bytes) -> str:
    """Return the name of a column as it is compared: in lower case, without `#`, and chrom for chr."""
    plain = bare(name).lstrip(b"#").lower().decode(errors="replace")
    return _SYNONYMS.get(plain, plain)


def _refuse_same_names(layout: TableLayout, name: str, line: int) -> None:
    """Raise UserError if two columns have the name of one that is read."""
    plain = [_plain_name(column) for column in layout.names]
    for column, index in layout.indices.items():
        if plain.count(column) > 1:
            second = plain.index(column, index + 1)
            what = f"columns {index + 1} and {second + 1} are both {column}"
            raise UserError(what, at=name, line=line, remedy="rename or remove one of them")


def read_table(lines: Lines, name: str) -> tuple[TableLayout, Iterator[VariantRecord]]:
    """Read the layout of a table, and its records; blank lines and `#` comments are skipped.

    Args:
        lines: (number, text, line end).
        name: what messages call the file.

    Raises:
        UserError: the first line that is neither blank nor a comment is neither header nor variant, or it
            names a column twice; while reading, a line is not a variant. The message names file and line.
    """
    rest = iter(lines)
    for number, text, newline in rest:
        if b"\r" in text:  # the line ends of old Macs, which hide every line but the first
            raise carriage_return(name, number)
        if not text.strip() or text.startswith(b"##"):
            continue
        layout = parse_column_names(text)
        if layout:
            _refuse_same_names(layout, name, number)
            return layout, _records(rest, layout, name)
        if text.startswith(b"#"):
            continue
        layout = _unnamed_layout(text, number, name)
        first = _record((number, text, newline), layout, name)
        return layout, chain([first], _records(rest, layout, name))
    raise UserError("no variants", at=name)


def _delimiter(text: bytes) -> bytes | None:
    """Return what separates the columns of the first line; an ALT of several alleles has commas as well."""
    if b"\t" in text:
        return b"\t"
    return b"," if text.count(b",") >= len(_REQUIRED) - 1 else None


def _unnamed_layout(text: bytes, number: int, name: str) -> TableLayout:
    """Return the layout of a table without header, from its first line."""
    delimiter = _delimiter(text)
    try:
        cells = split_cells(text, delimiter)
    except csv.Error:
        cells = []
    if len(cells) < len(_REQUIRED) or not bare(cells[1]).isdigit():
        raise UserError(
            "neither VCF nor BCF nor a table of variants", at=name, line=number, remedy=_NAME_COLUMNS
        )
    required: tuple[bytes, ...] = tuple(name.encode() for name in _REQUIRED)
    _, _, third, fourth, *others = map(bare, cells)
    if others and third != b"-" and not _BASES.issuperset(third) and _BASES.issuperset(fourth):
        required = _VCF_COLUMNS[: len(cells)]
        columns = b" ".join(required[:5]).decode().upper()
        _logger.info("%s: no line names the columns, which are read as those of a VCF: %s", name, columns)
    more = (f"column{i}".encode() for i in range(len(required) + 1, len(cells) + 1))
    indices = {column.decode(): index for index, column in enumerate(required)}
    return TableLayout((*required, *more), delimiter, indices)


def _records(lines: Lines, layout: TableLayout, name: str) -> Iterator[VariantRecord]:
    for line in lines:
        if line[1].strip() and not line[1].startswith(b"#"):
            yield _record(line, layout, name)


def _record(line: tuple[int, bytes, bytes], layout: TableLayout, name: str) -> VariantRecord:
    number, text, newline = line
    try:
        cells = layout.cells(text)
    except csv.Error as error:
        raise UserError(f"cannot be read as CSV: {error}", at=name, line=number) from None
    if len(cells) != len(layout.names):
        if layout.delimiter == b"," and text.count(b'"') % 2:
            remedy = "write a blank in place of line breaks inside cells"
            raise UserError("a cell in quotes has a line break", at=name, line=number, remedy=remedy)
        what = f"{len(cells)} columns where the table has {len(layout.names)}"
        raise UserError(what, at=name, line=number, remedy="separate all lines' columns alike")
    chrom, pos, ref, alt = (bare(cells[layout.indices[required]]) for required in _REQUIRED)
    alts = () if alt == b"." or is_missing(alt) else tuple(alt.split(b","))
    ref = b"." if is_missing(ref) else ref
    if fault := _fault(chrom, pos, ref, alts):
        what, remedy = fault
        raise UserError(what, at=name, line=number, remedy=remedy)
    return VariantRecord(number, text, newline, chrom.decode(), int(pos) - 1, ref, alts)


def _fault(chrom: bytes, pos: bytes, ref: bytes, alts: tuple[bytes, ...]) -> tuple[str, str] | None:
    """Return what is wrong and the remedy: only name or order tells the columns, so each is checked."""
    if not _is_contig(chrom):
        return f"{quote(chrom)} (chrom) is not the name of a contig", "write a name without blanks"
    if not pos.isdigit() or len(pos) > 18:
        remedy = "every variant needs one" if is_missing(pos) else "write a whole number without separators"
        return f"{quote(pos)} (pos) is not a position", remedy
    if not ref.isalpha() and ref not in (b"-", b"."):
        return f"{quote(ref)} (ref) is not a sequence", _NAME_COLUMNS
    if not all(alts):
        return f"{quote(b','.join(alts))} (alt) has an empty allele", "write one comma between two alleles"
    if any(set(alt) & set(b" \t;=\r") for alt in alts):
        return f"{quote(b','.join(alts))} (alt) is not an allele", _NAME_COLUMNS
    return None


def _is_contig(chrom: bytes) -> bool:
    """Return whether this is a name that a VCF can hold: UTF-8 without blanks."""
    try:
        return chrom.decode().split() == [chrom.decode()]
    except UnicodeDecodeError:
        return False
