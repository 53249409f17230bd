"""Every substitution of some regions as records of a VCF, and the pictures of their effects.

L position, V one of A, C, G and T.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hyenacli.genome.region import Region
from hyenacli.readers.variants import VariantHeader
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.haplotypes import Sequences
from hyenacli.variants.heatmap import BASES, draw_heatmap
from hyenacli.variants.scores import ScoredRecord
from hyenacli.writers.atomic import atomic_path

_logger = logging.getLogger("hyena")

_FETCHED_BASES = 1 << 16
# Longest region that a picture can show, in bases.
_MAX_DRAWN = 20_000


class NamedRegion(NamedTuple):
    """A region under two names.

    Attributes:
        named: with the contig name of the input, which the output keeps.
        region: the same in the genome's spelling.
    """

    named: Region
    region: Region


def substitutions_header(regions: Sequence[NamedRegion], genome: Sequences) -> VariantHeader:
    """Return the header of a VCF of these regions."""
    lengths = {named.contig: genome.lengths[region.contig] for named, region in regions}
    contigs = [f"##contig=<ID={name},length={length}>" for name, length in lengths.items()]
    lines = ["##fileformat=VCFv4.2", *contigs, "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    return VariantHeader("vcf", tuple(f"{line}\n".encode() for line in lines))


def substitutions(regions: Sequence[NamedRegion], genome: Sequences) -> Iterator[VariantRecord]:
    """Yield one record per base of the regions, in order, with the three other bases as ALT; none for N.

    Regions that overlap repeat what they share.
    """
    line = 0
    for named, region in regions:
        contig = named.contig.encode()
        for first in range(region.start, region.end, _FETCHED_BASES):
            bases = genome.fetch(region.contig, first, min(first + _FETCHED_BASES, region.end))
            for position, code in enumerate(bases, start=first):
                ref = bytes((code,))
                if ref == b"N":
                    continue
                line += 1
                alts = tuple(base for base in (b"A", b"C", b"G", b"T") if base != ref)
                columns = (contig, b"%d" % (position + 1), b".", ref, b",".join(alts), b".", b".", b".")
                yield VariantRecord(line, b"\t".join(columns), b"\n", named.contig, position, ref, alts)


def draw_regions(
    scored: Iterator[ScoredRecord],
    regions: Sequence[NamedRegion],
    genome: Sequences,
    folder: Path,
    score: str,
    description: str,
) -> Iterator[ScoredRecord]:
    """Pass the scored substitutions of regions on, and draw each region when it is complete.

    Args:
        scored: all of `substitutions`, in order.
        regions: whose they are.
        genome: the reference.
        folder: for CONTIG_START-END.svg, 1-based; made if it is missing.
        score: the name of the score that is drawn.
        description: what it is and how it was made, in a sentence or two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for named, region in regions:
        reference = genome.fetch(region.contig, region.start, region.end)
        effects_LV = np.full((len(reference), len(BASES)), np.nan)
        for record, alleles in islice(scored, len(reference) - reference.count(b"N")):
            for alt, allele in zip(record.alts, alleles, strict=True):
                column = BASES.index(alt.decode())
                effects_LV[record.position - region.start, column] = allele.values.get(score, np.nan)
            yield record, alleles
        if len(reference) > _MAX_DRAWN:
            _logger.warning("%s is too long for a picture, which shows %s bases", named, f"{_MAX_DRAWN:,}")
            continue
        name = re.sub(r"[^\w.-]+", "_", str(named))
        with atomic_path(folder / f"{name}.svg") as path:
            picture = draw_heatmap(named, effects_LV, reference, score=score, description=description)
            path.write_text(picture, encoding="utf-8")
        drawn += 1
    _logger.info("drew %d region%s into %s", drawn, "s" * (drawn != 1), folder)
    yield from scored  # none are left, but whoever counts must see the end
