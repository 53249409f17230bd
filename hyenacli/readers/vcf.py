"""VCF, BCF and tables of variants, as records that keep the line they were read from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.bcf import bcf_as_text
from hyenacli.readers.streams import Source, open_binary, sniff_format
from hyenacli.readers.variant_record import (
    VariantHeader,
    VariantRecord,
    VariantsKind,
    numbered_lines,
    numbered_lines_of_blocks,
)
from hyenacli.readers.variant_regions import RegionSet, indexed_lines, usable_index
from hyenacli.readers.variant_table import Lines, named_columns, read_table

_COLUMNS = (b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO")


@dataclass(frozen=True)
class Variants:
    """An open file of variants; iterate over it, once, for its records.

    Attributes:
        name: what messages call the file.
        header: what stands above the records, and what kind of file it is.
        records: in file order.
    """

    name: str
    header: VariantHeader
    records: Iterator[VariantRecord]

    @property
    def kind(self) -> VariantsKind:
        """What the file is."""
        return self.header.kind

    @property
    def contigs(self) -> tuple[str, ...]:
        """The contigs that the header declares, in order; there may be none."""
        return self.header.contigs

    def __iter__(self) -> Iterator[VariantRecord]:
        return self.records


@contextmanager
def open_variants(source: Source, regions: Sequence[Region] | None = None) -> Iterator[Variants]:
    """Open variants for reading from start to end; memory holds 64 KiB of lines, or one that is longer.

    Args:
        source: VCF, BCF, or a table (TSV, CSV or blanks) with columns chrom, pos (1-based), ref and alt;
            plain, gzip or bgzip; a path, or '-' for standard input. What it is shows in its content.
        regions: only records of which a base of REF (0-based, POS - 1 up to POS - 1 + length) lies in one of
            these, named in the file's spelling; None for all. Beside a bgzip VCF file a .tbi or .csi no older
            than the file is used.

    Raises:
        UserError: `open_binary` refuses the input, it is something else than variants, its header has no
            #CHROM line; while reading, a line is no variant or the input is cut short. The message names file
            and line.
    """
    wanted = None if regions is None else RegionSet(regions)
    with open_binary(source) as stream:
        kind = _kind(stream)
        if kind == "table":
            layout, records = read_table(numbered_lines(stream), stream.name)
            yield _variants(stream.name, VariantHeader(kind, table=layout), records, wanted)
            return
        with bcf_as_text(stream) if kind == "bcf" else nullcontext(stream) as raw_lines:
            lines = numbered_lines(raw_lines)
            header = _header(lines, kind, stream.name)
            if kind == "vcf":
                lines = numbered_lines_of_blocks(stream, len(header.lines), header.newline)
            index = usable_index(source, wanted) if wanted and kind == "vcf" else None
            if index and wanted:
                found = indexed_lines(Path(stream.name), index, wanted)
                lines = ((0, text, header.newline) for text in found)
            yield _variants(stream.name, header, _records(lines, stream.name), wanted)


def _variants(
    name: str, header: VariantHeader, records: Iterator[VariantRecord], wanted: RegionSet | None
) -> Variants:
    return Variants(name, header, records if wanted is None else filter(wanted.overlap, records))


def _kind(stream: BufferedReader) -> VariantsKind:
    """What a stream is, without taking a byte from it."""
    head = stream.peek(1)
    if head.startswith(b"BCF"):
        return "bcf"
    if head.startswith(b"##fileformat=VCF"):
        return "vcf"
    lines = (line for line in head.splitlines() if line.strip() and not line.startswith(b"##"))
    first = next(lines, b"")
    if not first.startswith(b"\t".join(_COLUMNS)) and named_columns(first):
        return "table"
    try:
        found = sniff_format(stream)
    except UserError:  # its reader says better what is wrong
        return "table"
    if found == "vcf":
        return "vcf"
    remedy = "give VCF, BCF, or a table with columns chrom, pos, ref and alt"
    raise UserError(f"holds {found.upper()}, no variants", at=stream.name, remedy=remedy)


def _header(lines: Lines, kind: VariantsKind, name: str) -> VariantHeader:
    """Take the header from the lines of a VCF."""
    taken = []
    for number, text, newline in lines:
        taken.append(text + newline)
        if text.startswith(b"##") or not text.strip():
            continue
        if tuple(text.split(b"\t", 8)[:8]) == _COLUMNS and b"\r" not in text:
            return VariantHeader(kind, tuple(taken))
        if text.startswith(b"#CHROM"):
            remedy = "it begins with " + b" ".join(_COLUMNS).decode() + ", separated by tabs"
            raise UserError("the #CHROM line is not that of a VCF", at=name, line=number, remedy=remedy)
        raise UserError("the header ends without a #CHROM line", at=name, line=number)
    raise UserError("the header has no #CHROM line", at=name, remedy="the file may be cut short")


def _records(lines: Lines, name: str) -> Iterator[VariantRecord]:
    """The records of lines below the header; all in one loop, as files have many millions of them."""
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


def _not_a_record(number: int, text: bytes, name: str) -> UserError:
    """What keeps a line from being a record."""
    columns = text.split(b"\t", 8)
    remedy: str | None = None
    if text.startswith(b"#"):
        what, remedy = "a header line below the header", "join VCF files with bcftools concat"
    elif len(columns) < 8:
        what = f"{len(columns)} column{'s' * (len(columns) > 1)} where VCF has at least 8, separated by tabs"
    elif not columns[1].isdigit() or len(columns[1]) > 18:
        what = f"POS {columns[1][:40].decode(errors='replace')!r} is not a position"
    elif not columns[3]:
        what = "REF is empty"
    elif b"" in columns[4].split(b","):
        what, remedy = "ALT is empty", "write '.' for no allele"
    else:
        what = "CHROM is empty or not UTF-8"
    return UserError(what, at=name, line=number or None, remedy=remedy)
