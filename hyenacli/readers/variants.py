"""Files of variants (VCF, BCF, tables), recognised by content, with all records or those in regions."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

import pysam

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.text import Source, compression, open_binary, sniff_format
from hyenacli.readers.variant_table import TableLayout, parse_column_names, read_table
from hyenacli.readers.vcf import (
    VariantRecord,
    bcf_as_text,
    is_vcf_header,
    number_lines,
    number_lines_in_blocks,
    parse_declaration,
    quiet_htslib,
    read_header,
    read_records,
)

VariantFormat = Literal["vcf", "bcf", "table"]
# The largest position that htslib looks up.
_MAX_POSITION = (1 << 31) - 1


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
    """

    name: str
    header: VariantHeader
    records: Iterator[VariantRecord]

    def __iter__(self) -> Iterator[VariantRecord]:
        return self.records


@contextmanager
def open_variants(
    source: Source, regions: Sequence[Region] | None = None, *, block_bytes: int = 1 << 16
) -> Iterator[Variants]:
    """Open variants for reading from start to end; memory holds a block, or a line that is longer.

    Args:
        source: VCF, BCF, or a table (TSV, CSV or blanks) with columns chrom, pos (1-based), ref and alt;
            plain, gzip or bgzip; a path, or '-' for standard input. The content decides, not the name.
        regions: only records of which a base of REF (0-based, POS - 1 up to POS - 1 + length) lies in one of
            these, named in the file's spelling; None for all. Beside a bgzip VCF file a .tbi or .csi no older
            than the file is used.
        block_bytes: of a VCF read at once.

    Raises:
        UserError: `open_binary` refuses the input, it holds no variants, its header has no #CHROM line; while
            reading, a line is not a variant or the input is cut short. The message names file and line.
    """
    chosen = None if regions is None else _RegionSet(regions)
    with open_binary(source) as stream:
        kind = _sniff(stream)
        if kind == "table":
            layout, records = read_table(number_lines(stream), stream.name)
            yield _variants(stream.name, VariantHeader(kind, table=layout), records, chosen)
            return
        with bcf_as_text(stream) if kind == "bcf" else nullcontext(stream) as raw_lines:
            lines = number_lines(raw_lines)
            header = VariantHeader(kind, read_header(lines, stream.name))
            if kind == "vcf":
                lines = number_lines_in_blocks(stream, len(header.lines), header.newline, block_bytes)
            index = _usable_index(source, chosen) if chosen and kind == "vcf" else None
            if index and chosen:
                indexed = _indexed_lines(Path(stream.name), index, chosen)
                lines = ((0, text, header.newline) for text in indexed)
            yield _variants(stream.name, header, read_records(lines, stream.name), chosen)


def _variants(
    name: str, header: VariantHeader, records: Iterator[VariantRecord], chosen: "_RegionSet | None"
) -> Variants:
    return Variants(name, header, records if chosen is None else filter(chosen.overlaps, records))


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
        return "table"
    if kind == "vcf":
        return "vcf"
    remedy = "give VCF, BCF, or a table with columns chrom, pos, ref and alt"
    raise UserError(f"holds {kind.upper()}, no variants", at=stream.name, remedy=remedy)


class _RegionSet:
    """Regions of any order and overlap, merged.

    Attributes:
        spans: contig -> disjoint intervals (start, end) in rising order, 0-based half-open.
    """

    def __init__(self, regions: Iterable[Region]):
        raw: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for region in regions:
            if len(region):
                raw[region.contig].append((region.start, region.end))
        self.spans = {contig: _merge(sorted(spans)) for contig, spans in raw.items()}

    def overlaps(self, record: VariantRecord) -> bool:
        """Return whether a base of the record's REF lies in a region."""
        spans = self.spans.get(record.contig, ())
        last = bisect_left(spans, (record.end, 0)) - 1
        return last >= 0 and spans[last][1] > record.position


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _usable_index(source: Source, regions: _RegionSet) -> Path | None:
    """Return the tabix index beside a bgzip file, if it is no older than the file and covers the regions."""
    if not isinstance(source, (str, Path)) or str(source) == "-":
        return None
    if not all(c.isascii() and spans[-1][1] <= _MAX_POSITION for c, spans in regions.spans.items()):
        return None
    path = Path(source)
    for suffix in (".tbi", ".csi"):
        index = Path(f"{path}{suffix}")
        if index.is_file() and index.stat().st_mtime >= path.stat().st_mtime:
            return index if compression(path) == "bgzip" else None
    return None


def _indexed_lines(path: Path, index: Path, regions: _RegionSet) -> Iterator[bytes]:
    """Yield the lines of a bgzip VCF, without line ends, that may overlap a region: in file order, each once.

    Raises:
        UserError: the index cannot be used.
    """
    try:
        # Latin-1 gives every byte back as it was.
        with quiet_htslib(), pysam.TabixFile(str(path), index=str(index), encoding="latin-1") as file:
            for contig in file.contigs:
                before = None  # the end of the interval before, which has yielded what begins in front of it
                for start, end in regions.spans.get(contig, ()):
                    for line in file.fetch(contig, start, end):
                        if before is None or int(line.split("\t", 2)[1]) > before:
                            yield line.encode("latin-1")
                    before = end
    except (OSError, ValueError) as error:
        remedy = "make it again with tabix -f -p vcf, or remove it"
        raise UserError("the index cannot be read", at=index, remedy=remedy) from error
