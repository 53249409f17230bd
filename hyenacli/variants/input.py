"""The input of `score-variants`: a file of variants, or regions whose every substitution is a variant."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from hyenacli.console import log, stderr
from hyenacli.errors import UsageError, UserError
from hyenacli.genome.contigs import ContigMap, match_contigs
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome
from hyenacli.readers.regions import Reference, load_regions, parse_regions, read_aliases
from hyenacli.readers.shards import Shard, fingerprint
from hyenacli.readers.text import open_binary, sniff_format
from hyenacli.readers.variants import VariantHeader, Variants, open_variants
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.haplotypes import Sequences
from hyenacli.variants.journal import BLOCK_RECORDS, count_and_hash
from hyenacli.variants.settings import ScoreVariantsSettings

_FETCHED_BASES = 1 << 16


class NamedRegion(NamedTuple):
    """A region under two names.

    Attributes:
        named: with the contig name of the input, which the output keeps.
        region: the same in the genome's spelling.
    """

    named: Region
    region: Region


@dataclass(frozen=True, kw_only=True)
class VariantInput:
    """The records to score, and the genome they are on.

    Attributes:
        name: what messages call the input.
        genome: the reference.
        header: what stands above the records.
        records: of the whole input, or of a shard.
        contigs: the input's, in the genome's spelling.
        total: number of records, if it has been counted.
        shard: what the output of a shard says of itself, under "shard".
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


@contextmanager
def open_input(
    settings: ScoreVariantsSettings, shard: Shard | None, block_records: int = BLOCK_RECORDS
) -> Iterator[VariantInput]:
    """Open the genome, and the records of a file or of regions.

    Args:
        settings: of the command.
        shard: the part to read.
        block_records: records, from the first on, that stay in one shard.

    Raises:
        UsageError: a part of a stream, which can be read only once, or a file of variants with --all-snvs.
        UserError: bad input, or no contig of the input is the genome's.
    """
    aliases = read_aliases(settings.contig_aliases) if settings.contig_aliases else {}
    with Genome(settings.fasta) as genome:
        if settings.all_snvs:
            reference = Reference(genome, settings.contig_style, aliases)
            yield _open_substitutions(settings, reference, shard, block_records)
        else:
            with _open_file(settings, genome, aliases, shard, block_records) as source:
                yield source


@contextmanager
def _open_file(
    settings: ScoreVariantsSettings,
    genome: Genome,
    aliases: Mapping[str, str],
    shard: Shard | None,
    block_records: int,
) -> Iterator[VariantInput]:
    """Open a file of variants; it is read twice where the number of its records is needed."""
    source = settings.input or Path("-")
    reference = Reference(genome, settings.contig_style, aliases)
    regions, resolve = _file_regions(settings, reference), reference.match((), str(source)).resolve
    stream = str(source) == "-" or not source.is_file()
    if shard is not None and stream:
        what = "a stream cannot be read twice, to count its records and to score them"
        remedy = "write it to a file, or score it in one process, without --shard"
        raise UsageError(what, at=source, remedy=remedy)
    total, sha256 = None, ""
    if not stream and (shard is not None or stderr().is_terminal):
        with open_variants(source, regions, resolve) as variants:
            total, sha256 = count_and_hash(variants, block_records)
    with open_variants(source, regions, resolve) as variants:
        first = list(islice(variants, block_records))
        if regions is not None and not first:
            log.warning("%s: no record lies in the regions", variants.name)
        match = partial(
            match_contigs,
            genome=genome.lengths,
            style=settings.contig_style,
            aliases=aliases,
            input_name=variants.name,
            genome_name=str(genome.path),
        )
        complete = len(first) < block_records
        contigs = _match(match, variants, first, None if stream else source, complete=complete)
        contigs.report()
        whole = VariantInput(
            name=variants.name,
            genome=genome,
            header=variants.header,
            records=chain(first, variants),
            contigs=contigs,
            total=total,
        )
        yield _select(whole, shard, sha256, block_records)


def _file_regions(settings: ScoreVariantsSettings, reference: Reference) -> list[Region] | None:
    """Return the regions of -r and -R in the genome's spelling, None for all."""
    if not settings.region and not settings.regions_file:
        return None
    rows = parse_regions(settings.region or (), reference)
    if settings.regions_file:
        rows += load_regions(settings.regions_file, reference, clip=True)
    return [row.region for row in rows if row.region is not None]


def _match(
    match: Callable[[Iterable[str]], ContigMap],
    variants: Variants,
    first: Sequence[VariantRecord],
    source: Path | None,
    *,
    complete: bool,
) -> ContigMap:
    """Match the contigs of the first records, or of the header where there are none; of all, if none matches.

    Args:
        match: of names.
        variants: the open file.
        first: its first records.
        source: the file, None for a stream, of which the header's contigs are taken for those of all records.
        complete: the first records are all.
    """
    names = list(dict.fromkeys(record.contig for record in first))
    try:
        # Headers declare contigs of which the file has no record, so the records' contigs come first.
        return match(names or variants.header.contigs)
    except UserError:
        if complete or not (source or variants.header.contigs):
            raise
    if source is None:
        return match(variants.header.contigs)
    with open_variants(source) as whole_file:
        return match(dict.fromkeys(record.contig for record in whole_file))


def _open_substitutions(
    settings: ScoreVariantsSettings, reference: Reference, shard: Shard | None, block_records: int
) -> VariantInput:
    """Return every substitution of the regions of a BED, or of -r, as variants."""
    genome = reference.genome
    if settings.input is None:
        rows = parse_regions(settings.region or (), reference)
    else:
        with open_binary(settings.input) as stream:
            if sniff_format(stream, otherwise="bed") != "bed":
                remedy = "--all-snvs takes regions; leave it out for a VCF"
                raise UsageError("is not a BED", at=settings.input, remedy=remedy)
            rows = load_regions(stream, reference)
    regions = [NamedRegion(row.record.region, row.region) for row in rows if row.region is not None]
    if missing := len(rows) - len(regions):
        log.warning("%s: %d regions lie on no contig of the genome", settings.input, missing)
    bases = (genome.fetch(region.contig, region.start, region.end) for _, region in regions)
    total = sum(len(sequence) - sequence.count(b"N") for sequence in bases)
    if skipped := sum(len(region) for _, region in regions) - total:
        log.info("N has no substitutions: %s base%s left out", f"{skipped:,}", "s" * (skipped != 1))
    name = str(settings.input or "-r")
    contigs = ContigMap(
        names=dict.fromkeys((named.contig for named, _ in regions), 0),
        genome=genome.lengths,
        style="exact",
        aliases={named.contig: region.contig for named, region in regions},
        input_name=name,
        genome_name=str(genome.path),
    )
    whole = VariantInput(
        name=name,
        genome=genome,
        header=substitutions_header(regions, genome),
        records=substitutions(regions, genome),
        contigs=contigs,
        total=total,
        regions=regions,
    )
    return _select(whole, shard, fingerprint(map(repr, regions), genome.lengths), block_records)


def _select(whole: VariantInput, shard: Shard | None, sha256: str, block_records: int) -> VariantInput:
    """Return one shard of an input whose records have been counted; without one all of it."""
    if shard is None or whole.total is None:
        return whole
    part = shard.part(whole.total, block_records)
    records = islice(whole.records, part.start, part.stop)
    return replace(whole, records=records, total=len(part), shard=shard.describe(whole.total, sha256))


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
