"""What is to be embedded: a region of bases with its flanks, and why where that cannot be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyenacli.genome.dna import reverse_complement

if TYPE_CHECKING:
    from hyenacli.genome.region import Region
    from hyenacli.readers.fasta import FastaRecord
    from hyenacli.readers.genome_file import Genome

OK, EMPTY = "OK", "EMPTY"


@dataclass(frozen=True, slots=True)
class Stretch:
    """One input record.

    Attributes:
        id: name in the output; records may share one.
        chrom: contig as the input spells it, or the name of a sequence of its own.
        start: first base of the region, 0-based.
        end: end of the region, 0-based and exclusive, as in BED.
        strand: +, - or . (unknown, read as +).
        bases: left flank, region and right flank as on the + strand; upper-case A C G T N.
        left: bases of the left flank.
        status: OK, or why there is nothing to embed (then `bases` is empty).
    """

    id: str
    chrom: str
    start: int
    end: int
    strand: str = "."
    bases: bytes = b""
    left: int = 0
    status: str = OK

    def __len__(self) -> int:
        """Bases of the region."""
        return self.end - self.start

    def reading(self, *, reverse: bool) -> tuple[bytes, int]:
        """The bases in reading direction, and how many precede the region.

        >>> Stretch("x", "1", 5, 7, bases=b"AACGT", left=2).reading(reverse=True)
        (b'ACGTT', 1)
        """
        if reverse:
            return reverse_complement(self.bases), len(self.bases) - self.left - len(self)
        return self.bases, self.left


def stretches_of_records(records: "Iterable[FastaRecord]") -> Iterator[Stretch]:
    """Whole sequences: contig and id are the record's name, the region is all of it."""
    for record in records:
        status = OK if record.sequence else EMPTY
        end = len(record.sequence)
        yield Stretch(record.name, record.name, 0, end, bases=record.sequence, status=status)


def stretches_of_regions(
    regions: "Iterable[tuple[Region, Region | None, str]]", genome: "Genome", flank: int
) -> Iterator[Stretch]:
    """Regions of a genome, in order, read when they are asked for.

    The id is the region's name, or else its 1-based string (chr1:101-200). The output keeps the input's
    contig names.

    Args:
        regions: each as the input names it and in the genome's spelling, or None and a status that says why
            the genome does not have it.
        genome: where the bases are.
        flank: bases read on each side, as far as the contig goes.
    """
    for named, region, status in regions:
        about = (named.name or str(named), named.contig, named.start, named.end, named.strand)
        if region is None:
            yield Stretch(*about, status=status)
            continue
        start = max(0, region.start - flank)
        end = min(genome.lengths[region.contig], region.end + flank)
        bases = genome.fetch(region.contig, start, end)
        yield Stretch(*about, bases=bases, left=region.start - start)
