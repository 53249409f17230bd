"""Labelled regions of a genome: a BED with labels in its columns, or in a bedGraph with a number per base."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.genome.contigs import ContigStyle, match_contigs
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled_record import ColumnIndices, Columns, LabelledRecord, Track, find_columns
from hyenacli.readers.regions import ResolvedRegion, load_regions, read_bed
from hyenacli.readers.streams import Source, open_binary, source_name

_NAMES = (
    *("chrom", "start", "end", "name", "score", "strand", "thickStart", "thickEnd", "itemRgb"),
    *("blockCount", "blockSizes", "blockStarts"),
)


@dataclass(frozen=True)
class Reference:
    """A genome, and the rule for matching contig names with its own."""

    genome: Genome
    style: ContigStyle = "auto"
    aliases: Mapping[str, str] | None = None


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
