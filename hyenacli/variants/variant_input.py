"""What `score-variants` reads: a file of variants, or regions whose every substitution is a variant."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.contigs import ContigMap, ContigStyle, match_contigs, named_region, spellings
from hyenacli.readers.genome import Genome
from hyenacli.readers.regions import load_regions
from hyenacli.readers.shards import Shard, fingerprint
from hyenacli.readers.streams import open_binary, sniff_format
from hyenacli.readers.variant_record import VariantHeader, VariantRecord
from hyenacli.readers.vcf import Variants, open_variants
from hyenacli.variants.annotate import BLOCK, survey
from hyenacli.variants.saturation import NamedRegion, substitutions, substitutions_header

_logger = logging.getLogger("hyena")


@dataclass(frozen=True, kw_only=True)
class VariantInput:
    """What is to be scored.

    Attributes:
        name: what messages call it.
        genome: the reference.
        header: what stands above the records.
        records: of the whole input, or of a shard.
        contigs: the input's, in the genome's spelling.
        total: how many records, where that is known.
        shard: what the output says where this is a part of an input, under "shard".
        regions: whose substitutions the records are; none where a file lists the variants.
    """

    name: str
    genome: Genome
    header: VariantHeader
    records: Iterable[VariantRecord]
    contigs: ContigMap
    total: int | None = None
    shard: dict[str, Any] = field(default_factory=dict)
    regions: Sequence[NamedRegion] = ()


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How the input's contigs and the genome's may differ in name."""

    style: ContigStyle = "auto"
    aliases: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def open_file(
    source: Path,
    genome: Genome,
    naming: Naming,
    *,
    texts: Sequence[str],
    bed: Path | None,
    shard: Shard | None,
    count: bool,
) -> Iterator[VariantInput]:
    """Open a file of variants; its contigs are compared with the genome's.

    Args:
        source: VCF, BCF or table, `-` for stdin.
        genome: the reference.
        naming: how contigs are matched.
        texts: regions (1-based) whose records are read, beside those of `bed`; without any, all records.
        bed: a BED of such regions.
        shard: the part to read.
        count: read the file twice, to know its number of records.

    Raises:
        UsageError: a part of a stream, which can be read only once.
        UserError: bad input, or no contig of the input is the genome's.
    """
    regions = None
    if texts or bed:
        regions = [named_region(text, genome.lengths, naming.style, naming.aliases)[1] for text in texts]
        if bed:
            loaded = load_regions(bed, genome, naming.style, naming.aliases)
            regions += [one.region for one in loaded if one.region is not None]
        regions = [
            replace(region, contig=name)
            for region in regions
            for name in spellings(region.contig, naming.style, naming.aliases)
        ]
    stream = str(source) == "-" or not source.is_file()
    if shard is not None and stream:
        raise UsageError(
            "a stream cannot be read twice, to count its records and to score them",
            at=source,
            remedy="write it to a file, or score it in one process, without --shard",
        )
    known, sha256 = None, ""
    if (count or shard is not None) and not stream:
        with open_variants(source, regions) as variants:
            known, sha256 = survey(variants)
    with open_variants(source, regions) as variants:
        first = list(islice(variants, BLOCK))
        if regions is not None and not first:
            _logger.warning("%s: no record lies in the regions", variants.name)
        contigs = _match(variants, first, source, genome, naming, whole=len(first) < BLOCK, again=not stream)
        _logger.info("%s: %s", variants.name, contigs.summary())
        rest = chain(first, variants)
        found: dict[str, Any] = {
            "name": variants.name,
            "genome": genome,
            "header": variants.header,
            "contigs": contigs,
        }
        if shard is None or known is None:
            yield VariantInput(**found, records=rest, total=known)
            return
        part = shard.part(known, BLOCK)
        about = shard.describe(known, sha256)
        yield VariantInput(**found, records=islice(rest, part.start, part.stop), total=len(part), shard=about)


def _match(
    variants: Variants,
    first: Sequence[VariantRecord],
    source: Path,
    genome: Genome,
    naming: Naming,
    *,
    whole: bool,
    again: bool,
) -> ContigMap:
    """The contigs of the first records, or of the header where there are none; of all, if none matches.

    Where a file cannot be read `again` to know all, those of its header do.
    """

    def match(names: Iterable[str]) -> ContigMap:
        return match_contigs(
            names,
            genome.lengths,
            style=naming.style,
            aliases=naming.aliases,
            input_name=variants.name,
            genome_name=str(genome.path),
        )

    seen = list(dict.fromkeys(record.contig for record in first))
    try:
        # Headers declare contigs of which the file has no record: they are only asked where records are not.
        return match(seen or variants.contigs)
    except UserError:
        if whole or not (again or variants.contigs):
            raise
    if not again:
        return match(variants.contigs)
    with open_variants(source) as whole_file:
        return match(dict.fromkeys(record.contig for record in whole_file))


@contextmanager
def open_substitutions(
    bed: Path | None, texts: Sequence[str], genome: Genome, naming: Naming, *, shard: Shard | None
) -> Iterator[VariantInput]:
    """Every substitution of regions, as variants.

    Args:
        bed: the regions, as BED; None where `texts` names them (1-based).
        texts: regions, where there is no BED.
        genome: the reference.
        naming: how contigs are matched.
        shard: the part of it.

    Raises:
        UserError: bad regions.
    """
    if bed is None:
        regions = [
            NamedRegion(*named_region(text, genome.lengths, naming.style, naming.aliases)) for text in texts
        ]
    else:
        with open_binary(bed) as stream:
            if sniff_format(stream, otherwise="bed") != "bed":
                raise UsageError(
                    "is no BED", at=bed, remedy="--all-snvs takes regions; leave it out for a VCF"
                )
            loaded = load_regions(stream, genome, naming.style, naming.aliases)
        regions = [NamedRegion(one.record.region, one.region) for one in loaded if one.region is not None]
        if len(regions) < len(loaded):
            _logger.warning("%s: %d regions lie on no contig of the genome", bed, len(loaded) - len(regions))
    bases = (genome.fetch(one.region.contig, one.region.start, one.region.end) for one in regions)
    total = sum(len(sequence) - sequence.count(b"N") for sequence in bases)
    if skipped := sum(len(one.region) for one in regions) - total:
        _logger.info("N has no substitutions: %s base%s left out", f"{skipped:,}", "s" * (skipped != 1))
    contigs = ContigMap(
        tuple(dict.fromkeys(one.named.contig for one in regions)),
        *(frozenset(genome.lengths), {}, "exact"),
        {one.named.contig: one.region.contig for one in regions},
        str(bed or "-r"),
        str(genome.path),
    )
    records: Iterable[VariantRecord] = substitutions(regions, genome)
    about = {}
    if shard is not None:
        sha256 = fingerprint((repr(one) for one in regions), genome.lengths)
        about, part = shard.describe(total, sha256), shard.part(total, BLOCK)
        records, total = islice(records, part.start, part.stop), len(part)
    yield VariantInput(
        name=str(bed or "-r"),
        genome=genome,
        header=substitutions_header(regions, genome),
        records=records,
        contigs=contigs,
        total=total,
        shard=about,
        regions=regions,
    )
