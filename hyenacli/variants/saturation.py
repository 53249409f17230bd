"""Every substitution of some regions, as if a VCF had listed them, and the pictures of their effects.

L position, V one of A, C, G and T.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from hyenacli.genome.region import Region
from hyenacli.readers.variant_record import VariantHeader, VariantRecord
from hyenacli.variants.haplotypes import Sequences
from hyenacli.variants.heatmap import BASES, draw_heatmap
from hyenacli.variants.scorer import AlleleScore
from hyenacli.writers.atomic import atomic_path

_logger = logging.getLogger("hyena")
Scored = tuple[VariantRecord, Sequence[AlleleScore]]

_FETCHED = 1 << 16
# Bases of a region that a picture can show.
_MAX_DRAWN = 20_000


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


def draw_regions(
    scored: Iterator[Scored],
    regions: Sequence[NamedRegion],
    genome: Sequences,
    folder: Path,
    score: str,
    about: str,
) -> Iterator[Scored]:
    """Pass the scored substitutions of regions on, and draw each region when it is complete.

    Args:
        scored: all of `substitutions`, in order.
        regions: whose they are.
        genome: the reference.
        folder: for CONTIG_START-END.svg, 1-based.
        score: which one.
        about: how it was made.
    """
    drawn = 0
    for one in regions:
        reference = genome.fetch(one.region.contig, one.region.start, one.region.end)
        effects_LV = np.full((len(reference), len(BASES)), np.nan)
        for record, scores in islice(scored, len(reference) - reference.count(b"N")):
            for alt, found in zip(record.alts, scores, strict=True):
                column = BASES.index(alt.decode())
                effects_LV[record.position - one.region.start, column] = found.values.get(score, np.nan)
            yield record, scores
        if len(reference) > _MAX_DRAWN:
            _logger.warning(
                "%s is too long for a picture, which shows %s bases", one.named, f"{_MAX_DRAWN:,}"
            )
            continue
        name = re.sub(r"[^\w.-]+", "_", str(one.named))
        with atomic_path(folder / f"{name}.svg") as path:
            picture = draw_heatmap(one.named, effects_LV, reference, score=score, description=about)
            path.write_text(picture, encoding="utf-8")
        drawn += 1
    _logger.info("drew %d region%s into %s", drawn, "s" * (drawn != 1), folder)
    yield from scored  # nothing is left, but whoever counts must see the end
