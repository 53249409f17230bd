"""Every substitution of some regions, as if a VCF had listed them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyenacli.genome.region import Region
from hyenacli.readers.variant_record import VariantHeader, VariantRecord
from hyenacli.score.haplotypes import Sequences

_FETCHED = 1 << 16


@dataclass(frozen=True, slots=True)
class NamedRegion:
    """A region under two names.

    Attributes:
        named: with the contig name of the input, which the output keeps.
        region: the same in the genome's spelling.
    """

    named: Region
    region: Region


def substitutions_header(regions: Sequence[NamedRegion], genome: Sequences) -> VariantHeader:
    """The header of a VCF of these regions."""
    lengths = {one.named.contig: genome.lengths[one.region.contig] for one in regions}
    contigs = [f"##contig=<ID={name},length={length}>" for name, length in lengths.items()]
    lines = ["##fileformat=VCFv4.2", *contigs, "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    return VariantHeader("vcf", tuple(f"{line}\n".encode() for line in lines))


def substitutions(regions: Sequence[NamedRegion], genome: Sequences) -> Iterator[VariantRecord]:
    """One record per base of the regions, in order, with the three other bases as ALT; none where it is N.

    Regions that overlap repeat what they share.
    """
    line = 0
    for one in regions:
        name, region = one.named.contig, one.region
        encoded = name.encode()
        for first in range(region.start, region.end, _FETCHED):
            bases = genome.fetch(region.contig, first, min(first + _FETCHED, region.end))
            for position, code in enumerate(bases, start=first):
                ref = bytes((code,))
                if ref == b"N":
                    continue
                line += 1
                alts = tuple(base for base in (b"A", b"C", b"G", b"T") if base != ref)
                columns = (encoded, b"%d" % (position + 1), b".", ref, b",".join(alts), b".", b".", b".")
                yield VariantRecord(line, b"\t".join(columns), b"\n", name, position, ref, alts)
