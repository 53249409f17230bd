"""Regions of a genome: BED files, matched with its contigs before anything expensive begins; their labels.

Labels are in columns of the BED, or in a bedGraph with a number per base.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.genome.contigs import ContigMap, ContigStyle, match_contigs
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region, Strand
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled_record import ColumnIndices, Columns, LabelledRecord, Track, find_columns
from hyenacli.readers.text import Source, bare, open_binary, read_lines, source_name, split_at_blanks

_STRANDS: dict[str, Strand] = {"+": "+", "-": "-"}
_HEADERS = ("track", "browser")
_NAMES = (
    *("chrom", "start", "end", "name", "score", "strand", "thickStart", "thickEnd", "itemRgb"),
    *("blockCount", "blockSizes", "blockStarts"),
)
_logger = logging.getLogger("hyena")


@dataclass(frozen=True, slots=True)
class BedRecord:
    """One line of a BED file.

    Attributes:
        region: 0-based half-open, with the file's contig name; name from column 4, strand from column 6.
        fields: every column, without blanks and quotes around it; what is not UTF-8 is replaced.
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
    permits, is refused: nothing can be computed over it.

    Raises:
        UserError: `open_binary` refuses the input, or a line is not BED; the message names file and line.
    """
    with open_binary(source) as stream:
        for number, line in read_lines(stream, errors="replace"):
            fields = split_fields(line)
            if not any(fields) or line.startswith("#") or fields[0].split(" ")[0] in _HEADERS:
                continue
            if "\N{REPLACEMENT CHARACTER}" in fields[0]:
                raise UserError("the contig (column 1) is not UTF-8", at=stream.name, line=number)
            yield BedRecord(_region(fields, stream.name, number), fields, number)


def read_aliases(path: Path) -> dict[str, str]:
    """Read two columns, the input's contig name and the genome's, as for `bcftools annotate --rename-chrs`.

    Raises:
        UserError: the file cannot be read, a line has not two columns, or a name is given two meanings.
    """
    aliases: dict[str, str] = {}
    with open_binary(path) as stream:
        for number, line in read_lines(stream):
            columns = list(map(bare, split_at_blanks(line)))
            if not columns or line.startswith("#"):
                continue
            if len(columns) != 2:
                remedy = "write the input's name and the genome's name"
                raise UserError(f"{len(columns)} columns instead of 2", at=path, line=number, remedy=remedy)
            name, target = columns
            if aliases.setdefault(name, target) != target:
                raise UserError(f"'{name}' is both '{aliases[name]}' and '{target}'", at=path, line=number)
    return aliases


def split_fields(line: str) -> tuple[str, ...]:
    """Split a line at its tabs, or at runs of blanks where it has none; R puts quotes around texts."""
    return tuple(map(bare, line.split("\t") if "\t" in line else split_at_blanks(line)))


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


@dataclass(frozen=True)
class Reference:
    """A genome, and the rule for matching contig names with its own."""

    genome: Genome
    style: ContigStyle = "auto"
    aliases: Mapping[str, str] | None = None


@contextmanager
def open_reference(fasta: Path, style: ContigStyle, aliases: Path | None) -> Iterator[Reference]:
    """Open the genome of regions.

    Args:
        fasta: the genome.
        style: how contig names are matched, auto or exact.
        aliases: table of contig names, if there is one.

    Raises:
        UserError: the genome or the table cannot be read.
    """
    names = read_aliases(aliases) if aliases else {}
    with Genome(fasta) as genome:
        yield Reference(genome, style, names)


class Signal:
    """The numbers of a bedGraph, by contig of the genome; a base that no line covers has none.

    Raises:
        UserError: the file cannot be read, a line has no number, two lines cover one base, or no contig is
            one of the genome.
    """

    def __init__(self, source: Source, reference: Reference) -> None:
        with open_binary(source) as stream:
            self.name = source_name(stream)
            rows: dict[str, list[tuple[int, int, float, int]]] = {}
            for record in read_bed(stream):
                row = (record.region.start, record.region.end, _number(record.fields, self.name, record.line))
                rows.setdefault(record.region.contig, []).append((*row, record.line))
        if not rows:
            raise UserError("no lines", at=self.name)
        contigs = match_contigs(
            rows,
            reference.genome.lengths,
            style=reference.style,
            aliases=reference.aliases or {},
            input_name=self.name,
            genome_name=str(reference.genome.path),
        )
        self._spans: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], Track]] = {}
        for contig, contig_rows in rows.items():
            target = contigs.resolve(contig)
            if target is not None:
                self._spans[target] = self._sorted(contig_rows)

    def _sorted(
        self, rows: list[tuple[int, int, float, int]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Track]:
        rows.sort()
        starts, ends = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
        overlaps = np.flatnonzero(starts[1:] < ends[:-1])
        if overlaps.size:
            first = int(overlaps[0])
            line = rows[first + 1][3]
            what = f"covers a base that line {rows[first][3]} covers too"
            raise UserError(what, at=self.name, line=line, remedy="give every base one number")
        return starts, ends, np.array([row[2] for row in rows], np.float32)

    def over(self, region: Region) -> Track:
        """Return the numbers of a region's bases (L,) in reading direction, NaN for a base without one."""
        track = np.full(len(region), np.nan, np.float32)
        if region.contig in self._spans:
            starts, ends, values = self._spans[region.contig]
            first = int(np.searchsorted(ends, region.start, side="right"))
            last = int(np.searchsorted(starts, region.end, side="left"))
            for i in range(first, last):
                track[max(0, starts[i] - region.start) : ends[i] - region.start] = values[i]
        return track[::-1].copy() if region.strand == "-" else track


def read_regions(
    source: Source, reference: Reference, columns: Columns, signal: Signal | None, *, labelled: bool
) -> tuple[tuple[str, ...], Iterator[LabelledRecord]]:
    """Read the names of the label columns of a BED, and its records, in order.

    Sequences are read 5' to 3' on the region's strand, and so is a text with a label per base. A record is
    named by column 4, or else by its 1-based region.

    Args:
        source: the BED.
        reference: the genome.
        columns: to read; `sequence` is not used.
        signal: numbers per base instead of labels from columns.
        labelled: whether labels are required.

    Raises:
        UserError: as `load_regions`; a column is missing, in all records or in one, or a split is unknown.
    """
    with open_binary(source) as stream:
        file = source_name(stream)
        regions = load_regions(stream, reference.genome, reference.style, reference.aliases)
    width = max(len(region.record.fields) for region in regions)
    header = [*_NAMES[:width], *(f"column{i}" for i in range(len(_NAMES) + 1, width + 1))]
    indices = find_columns(header, columns, file, labelled=labelled and signal is None)
    names = tuple(header[i] for i in indices.labels) if signal is None else ("signal",)
    return names, _records(regions, reference.genome, indices, signal, file)


def _records(
    regions: Sequence[ResolvedRegion],
    genome: Genome,
    indices: ColumnIndices,
    signal: Signal | None,
    file: str,
) -> Iterator[LabelledRecord]:
    width = 1 + max(indices.all(), default=0)
    for resolved in regions:
        fields, line, region = resolved.record.fields, resolved.record.line, resolved.record.region
        if len(fields) < width:
            what = f"{len(fields)} columns, but column {width} is needed"
            raise UserError(what, at=file, line=line, remedy="separate columns by tabs")
        try:
            split = indices.split_of(fields)
        except ValueError as error:
            raise UserError(str(error), at=file, line=line) from None
        on_genome = resolved.region
        label = indices.label_of(fields)
        if signal is not None:
            label = signal.over(on_genome) if on_genome else None
        yield LabelledRecord(
            id=(region.name or str(region)) if indices.id is None else fields[indices.id],
            sequence=_bases(genome, on_genome) if on_genome else b"",
            label=label,
            group=indices.group_of(fields),
            split=split,
            region=on_genome or region,
            file=file,
            line=line,
            status=resolved.status,
        )


def _bases(genome: Genome, region: Region) -> bytes:
    bases = genome.fetch(region.contig, region.start, region.end)
    return reverse_complement(bases) if region.strand == "-" else bases


def _number(fields: tuple[str, ...], file: str, line: int) -> float:
    try:
        return float(fields[3])
    except (ValueError, IndexError):
        what = f"'{fields[3]}' is not a number" if len(fields) > 3 else "there is no column 4"
        remedy = "a bedGraph has contig, start, end and a number"
        raise UserError(what, at=file, line=line, remedy=remedy) from None
