"""The regions of a BED file on a genome, checked before anything expensive begins."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hyenacli.errors import UserError
from hyenacli.genome.contigs import ContigMap, ContigStyle, match_contigs
from hyenacli.genome.region import Region
from hyenacli.readers.bed import BedRecord, read_bed
from hyenacli.readers.genome_file import Genome
from hyenacli.readers.streams import Source, open_binary, source_name

_logger = logging.getLogger("hyena")


@dataclass(frozen=True, slots=True)
class ResolvedRegion:
    """A BED record and where it lies on the genome.

    Attributes:
        record: the line as read, with the contig name of the BED file.
        region: the same with the genome's contig name; None when the genome has no such contig.
    """

    record: BedRecord
    region: Region | None

    @property
    def status(self) -> Literal["OK", "NO_CONTIG"]:
        """What the output says about the record."""
        return "NO_CONTIG" if self.region is None else "OK"


def load_regions(
    source: Source, genome: Genome, style: ContigStyle = "auto", aliases: Mapping[str, str] | None = None
) -> list[ResolvedRegion]:
    """Every record of a BED file in order, each on the genome or marked as lying on none of its contigs.

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
