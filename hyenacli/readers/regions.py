"""Regions of a genome: BED files, matched with the genome's contigs before anything expensive begins."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hyenacli.errors import UserError
from hyenacli.genome.contigs import ContigMap, ContigStyle, match_contigs
from hyenacli.genome.region import Region, Strand
from hyenacli.readers.genome import Genome
from hyenacli.readers.streams import BOM, Source, open_binary, source_name

_STRANDS: dict[str, Strand] = {"+": "+", "-": "-"}
_HEADERS = (b"track", b"browser")
_logger = logging.getLogger("hyena")


@dataclass(frozen=True, slots=True)
class BedRecord:
    """One line of a BED file.

    Attributes:
        region: 0-based half-open, with the file's contig name; name from column 4, strand from column 6.
        fields: every column as it stands in the file; what is not UTF-8 is replaced.
        line: 1-based line number.
    """

    region: Region
    fields: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class ResolvedRegion:
    """A BED record and its region on the genome.

    Attributes:
        record: the line as read, with the contig name of the BED file.
        region: the same with the genome's contig name; None when the genome has no such contig.
    """

    record: BedRecord
    region: Region | None

    @property
    def status(self) -> Literal["OK", "NO_CONTIG"]:
        """The record's status in the output."""
        return "NO_CONTIG" if self.region is None else "OK"


def load_regions(
    source: Source, genome: Genome, style: ContigStyle = "auto", aliases: Mapping[str, str] | None = None
) -> list[ResolvedRegion]:
    """Read every record of a BED file in order, each on the genome or marked as on none of its contigs.

    Raises:
        UserError: the BED file cannot be read, holds no region, shares no contig with the genome, or has a
            region that does not lie inside its contig.
    """
    with open_binary(source) as stream:
        name = source_name(stream)
        records = list(read_bed(stream))
    if not records:
        raise UserError("no regions", at=name)
    contigs = match_contigs(
        (record.region.contig for record in records),
        genome.lengths,
        style=style,
        aliases=aliases or {},
        input_name=name,
        genome_name=str(genome.path),
    )
    _logger.info("%s: %s", name, contigs.summary())
    return [ResolvedRegion(record, _on_genome(record, contigs, genome, name)) for record in records]


def read_bed(source: Source) -> Iterator[BedRecord]:
    """Read the records of a BED file (plain, gzip, bgzip, or '-' for standard input) in file order.

    BED3 to BED12 and any further columns, separated by tabs, or by runs of blanks on a line without a tab.
    Blank lines, `#` comments, `track` and `browser` lines are skipped. A region of no bases, which BED
    permits, is refused: nothing can be computed over it. So are the line ends of old Macs, which would hide
    every line but the first.

    Raises:
        UserError: `open_binary` refuses the input, or a line is not BED; the message names file and line.
    """
    with open_binary(source) as stream:
        for number, raw in enumerate(stream, 1):
            line = (raw if number > 1 else raw.removeprefix(BOM)).rstrip(b"\r\n")
            if b"\r" in line:
                remedy = "convert the line ends to those of Unix"
                raise UserError(
                    "a carriage return inside the line", at=stream.name, line=number, remedy=remedy
                )
            columns = line.split(b"\t") if b"\t" in line else line.split()
            if not line.strip() or line.startswith(b"#") or columns[0].split(b" ")[0] in _HEADERS:
                continue
            fields = tuple(column.decode(errors="replace") for column in columns)
            if fields[0].encode() != columns[0]:
                raise UserError("the contig (column 1) is not UTF-8", at=stream.name, line=number)
            yield BedRecord(_region(fields, stream.name, number), fields, number)


def read_aliases(path: Path) -> dict[str, str]:
    """Read two columns, the input's contig name and the genome's, as for `bcftools annotate --rename-chrs`.

    Raises:
        UserError: the file cannot be read, a line has not two columns, or a name is given two meanings.
    """
    aliases: dict[str, str] = {}
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.decode(errors="replace")
            columns = line.split()
            if not columns or line.startswith("#"):
                continue
            if len(columns) != 2:
                remedy = "write the input's name and the genome's name"
                raise UserError(f"{len(columns)} columns instead of 2", at=path, line=number, remedy=remedy)
            name, target = columns
            if aliases.setdefault(name, target) != target:
                raise UserError(f"'{name}' is both '{aliases[name]}' and '{target}'", at=path, line=number)
    return aliases


def _region(fields: tuple[str, ...], file: str, line: int) -> Region:
    if len(fields) < 3:
        raise UserError(
            f"{len(fields)} column{'s' * (len(fields) > 1)} where BED has at least 3",
            at=file,
            line=line,
            remedy="write contig, start and end, separated by tabs",
        )
    if not fields[0].strip():
        raise UserError("the contig (column 1) is empty", at=file, line=line)
    start, end = (_position(fields[i], name, file, line) for i, name in ((1, "start"), (2, "end")))
    if end < start:
        raise UserError(
            f"end {end} is before start {start}", at=file, line=line, remedy="swap the two columns"
        )
    if end == start:
        remedy = "remove the line or widen the region (the base before position 5 is 3 4, not 4 4)"
        raise UserError(
            f"start and end are both {start}: a region of no bases", at=file, line=line, remedy=remedy
        )
    name = fields[3] if len(fields) > 3 else ""
    strand = _STRANDS.get(fields[5], ".") if len(fields) > 5 else "."
    return Region(fields[0], start, end, strand, name)


def _position(text: str, name: str, file: str, line: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    if text.startswith("-") and text[1:].isdigit():
        remedy = "BED counts bases from 0"
        raise UserError(f"{name} {text} is negative", at=file, line=line, remedy=remedy)
    remedy = "write a whole number without separators, and begin header lines with '#'"
    raise UserError(f"{name} '{text}' is not a position", at=file, line=line, remedy=remedy)


def _on_genome(record: BedRecord, contigs: ContigMap, genome: Genome, source: str) -> Region | None:
    contig = contigs.resolve(record.region.contig)
    if contig is None:
        return None
    length = genome.lengths[contig]
    if record.region.end > length:
        raise UserError(
            f"end {record.region.end:,} is outside contig {contig} of {length:,} bases in {genome.path}",
            at=source,
            line=record.line,
            remedy="use the genome build that the coordinates are from",
        )
    return replace(record.region, contig=contig)
