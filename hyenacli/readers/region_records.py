"""Labelled regions of a genome: a BED with labels in its columns, or a bedGraph with a number per base."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.genome.contigs import ContigStyle, match_contigs
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.readers.bed import read_bed
from hyenacli.readers.genome_file import Genome
from hyenacli.readers.labelled_record import Columns, Label, LabelledRecord, Places, Track, find_columns
from hyenacli.readers.regions import ResolvedRegion, load_regions
from hyenacli.readers.streams import Source, open_binary, source_name

_NAMES = (
    *("chrom", "start", "end", "name", "score", "strand", "thickStart", "thickEnd", "itemRgb"),
    *("blockCount", "blockSizes", "blockStarts"),
)


@dataclass(frozen=True)
class Reference:
    """A genome, and how contig names are matched with its own."""

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
        for contig, mine in rows.items():
            target = contigs.resolve(contig)
            if target is not None:
                self._spans[target] = self._sorted(mine)

    def _sorted(
        self, rows: list[tuple[int, int, float, int]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Track]:
        rows.sort()
        starts, ends = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
        again = np.flatnonzero(starts[1:] < ends[:-1])
        if again.size:
            line = rows[int(again[0]) + 1][3]
            what = f"covers a base that line {rows[int(again[0])][3]} covers too"
            raise UserError(what, at=self.name, line=line, remedy="give every base one number")
        return starts, ends, np.array([row[2] for row in rows], np.float32)

    def over(self, region: Region) -> Track:
        """The numbers of a region's bases (L,) in reading direction, NaN where there is none."""
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
    """The names of the label columns of a BED, and its records, in order.

    Sequences are read 5' to 3' on the region's strand, and so is a text with a label per base. A record is
    called what column 4 says, or else its 1-based region.

    Args:
        source: the BED.
        reference: the genome.
        columns: which columns to take; `sequence` is not used.
        signal: numbers per base instead of labels from columns.
        labelled: whether there must be labels.

    Raises:
        UserError: as `load_regions`; a column is missing, in all records or in one, or a split has no
            meaning.
    """
    with open_binary(source) as stream:
        file = source_name(stream)
        regions = load_regions(stream, reference.genome, reference.style, reference.aliases)
    width = max(len(region.record.fields) for region in regions)
    header = [*_NAMES[:width], *(f"column{i}" for i in range(len(_NAMES) + 1, width + 1))]
    places = find_columns(header, columns, file, labelled=labelled and signal is None)
    if signal is not None:
        return ("signal",), _records(regions, reference.genome, places, signal, file)
    return tuple(header[i] for i in places.labels), _records(regions, reference.genome, places, None, file)


def _records(
    regions: Sequence[ResolvedRegion], genome: Genome, places: Places, signal: Signal | None, file: str
) -> Iterator[LabelledRecord]:
    others = [place for place in (places.id, places.group, places.split) if place is not None]
    width = 1 + max((*places.labels, *others), default=0)
    for resolved in regions:
        fields, line, region = resolved.record.fields, resolved.record.line, resolved.record.region
        if len(fields) < width:
            what = f"{len(fields)} columns, but column {width} is needed"
            raise UserError(what, at=file, line=line, remedy="separate columns by tabs")
        try:
            split = places.split_of(fields)
        except ValueError as error:
            raise UserError(str(error), at=file, line=line) from None
        there = resolved.region
        label: Label = places.label(fields)
        if signal is not None:
            label = None if there is None else signal.over(there)
        yield LabelledRecord(
            id=(region.name or str(region)) if places.id is None else fields[places.id],
            sequence=b"" if there is None else _bases(genome, there),
            label=label,
            group=places.group_of(fields),
            split=split,
            region=there or region,
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
        found = f"'{fields[3]}' is not a number" if len(fields) > 3 else "there is no column 4"
        remedy = "a bedGraph has contig, start, end and a number"
        raise UserError(found, at=file, line=line, remedy=remedy) from None
