"""The input of `score-variants`: a file of variants, or regions whose every substitution is a variant."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from hyenacli.console import log
from hyenacli.errors import UsageError, abbreviate
from hyenacli.genome.contigs import ContigMap
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome, Sequences
from hyenacli.readers.regions import Reference, load_regions, open_reference, parse_regions
from hyenacli.readers.shards import Shard, fingerprint
from hyenacli.readers.text import open_binary, sniff_format
from hyenacli.readers.variants import VariantHeader, open_variants
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.journal import BLOCK_RECORDS
from hyenacli.variants.settings import ScoreVariantsSettings

_FETCHED_BASES = 1 << 16
_LETTERS = "[A-Za-z]+"
_TYPED = re.compile(
    rf"(?P<contig>\S+):(?P<position>[0-9][0-9,]*):(?P<ref>{_LETTERS})>(?P<alts>{_LETTERS}(?:,{_LETTERS})*)"
)


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
        resolve: gives a contig of the input in the genome's spelling, None where the genome has none.
        total: number of records, if it has been counted.
        shard: what the output of a shard says of itself, under "shard".
        regions: whose substitutions the records are; none where a file lists the variants.
        typed: the variants were typed on the command line; `records` can be read again.
    """

    name: str
    genome: Genome
    header: VariantHeader
    records: Iterable[VariantRecord]
    resolve: Callable[[str], str | None]
    total: int | None = None
    shard: dict[str, Any] = field(default_factory=dict)
    regions: Sequence[NamedRegion] = ()
    typed: bool = False


@contextmanager
def open_input(
    settings: ScoreVariantsSettings, shard: Shard | None, block_records: int = BLOCK_RECORDS
) -> Iterator[VariantInput]:
    """Open the genome, and the records of a file or of regions, with what is to be said of their contigs.

    A file is read to its end first: what is wrong with a line or a contig shows before a model is loaded.

    Args:
        settings: of the command.
        shard: the part to read.
        block_records: records, from the first on, that stay in one shard.

    Raises:
        UsageError: a part of a stream, which can be read only once, or a file of variants with --all-snvs.
        UserError: bad input, or no contig of the input is the genome's.
    """
    naming = settings.contig_style, settings.contig_aliases, settings.circular
    with open_reference(settings.fasta, *naming) as reference:
        source = settings.input or Path("-")
        if (typed := parse_typed(str(source))) and not settings.all_snvs:
            if settings.region or settings.regions_file:
                what = "-r and -R pick records of a file"
                raise UsageError(what, remedy="leave them out, or name a VCF")
            yield _open_typed(typed, reference, shard, block_records)
        elif settings.all_snvs:
            yield _open_substitutions(settings, reference, shard, block_records)
        elif source.is_file():
            with _open_file(settings, reference, shard, block_records) as opened:
                yield opened
        else:
            if shard is not None:
                what = "a stream cannot be read twice, to count its records and to score them"
                remedy = "write it to a file, or score it in one process, without --shard"
                raise UsageError(what, at=source, remedy=remedy)
            with _open_stream(settings, reference, block_records) as opened:
                yield opened


def parse_typed(text: str) -> list[VariantRecord]:
    """Return the variants of a text such as `chr1:12345:A>G chr1:12350:AT>A`; none if it is not all variants.

    >>> [(r.contig, r.position, r.ref, r.alts) for r in parse_typed("chr1:12,345:A>G,T")]
    [('chr1', 12344, b'A', (b'G', b'T'))]
    >>> parse_typed("calls.vcf.gz")
    []
    """
    records = []
    for line, word in enumerate(text.split(), start=1):
        match = _TYPED.fullmatch(word)
        if match is None:
            return []
        contig, ref, alts = match["contig"], match["ref"].encode(), match["alts"].encode()
        position = int(match["position"].replace(",", ""))
        columns = (contig.encode(), b"%d" % position, b".", ref, alts, b".", b".", b".")
        spelled = tuple(alts.split(b","))
        records.append(VariantRecord(line, b"\t".join(columns), b"\n", contig, position - 1, ref, spelled))
    return records


def _open_typed(
    records: Sequence[VariantRecord], reference: Reference, shard: Shard | None, block_records: int
) -> VariantInput:
    """Return variants that were typed on the command line."""
    names = Counter(record.contig for record in records)
    contigs = reference.match(names, "the variants given")
    contigs.report()
    resolved = {name: contigs.resolve(name) for name in names}
    lengths = {name: reference.genome.lengths[contig] for name, contig in resolved.items() if contig}
    typed = VariantInput(
        name="the variants given",
        genome=reference.genome,
        header=vcf_header(lengths),
        records=records,
        resolve=contigs.resolve,
        total=len(records),
        typed=True,
    )
    texts = (record.text.decode() for record in records)
    return _select(typed, shard, fingerprint(texts, reference.genome.lengths), block_records)


@contextmanager
def _open_file(
    settings: ScoreVariantsSettings, reference: Reference, shard: Shard | None, block_records: int
) -> Iterator[VariantInput]:
    source, regions = settings.input or Path("-"), _file_regions(settings, reference)
    resolve = reference.match((), str(source)).resolve
    with open_variants(source, regions, resolve) as variants:
        counts, sha256 = variants.survey()
    contigs = reference.match(counts, variants.name, variants.header.contig_lengths)
    contigs.report()
    total = sum(counts.values())
    if regions is not None and not total:
        log.warning("%s: no record lies in the regions", variants.name)
    with open_variants(source, regions, resolve) as variants:
        complete = VariantInput(
            name=variants.name,
            genome=reference.genome,
            header=variants.header,
            records=variants,
            resolve=contigs.resolve,
            total=total,
        )
        yield _select(complete, shard, sha256, block_records)


@contextmanager
def _open_stream(
    settings: ScoreVariantsSettings, reference: Reference, block_records: int
) -> Iterator[VariantInput]:
    source, regions = settings.input or Path("-"), _file_regions(settings, reference)
    with open_variants(source, regions, reference.match((), str(source)).resolve) as variants:
        first = list(islice(variants, block_records))
        if regions is not None and not first:
            log.warning("%s: no record lies in the regions", variants.name)
        names = Counter(record.contig for record in first)
        if len(first) == block_records:  # of what follows, only the header can tell
            names.update(dict.fromkeys(variants.header.contigs, 0))
        declared = variants.header.contig_lengths
        contigs = replace(reference.match((), variants.name, declared), names=names)
        if names and len(contigs.missing) == len(names):
            reference.match(names, variants.name, declared)  # says so
        replace(contigs, names=Counter(record.contig for record in first)).report()
        yield VariantInput(
            name=variants.name,
            genome=reference.genome,
            header=variants.header,
            records=chain(first, variants),
            resolve=_FirstNames(contigs),
        )


class _FirstNames:
    """The contigs of a stream: of two names for one contig of the genome, the one that comes first has it."""

    def __init__(self, contigs: ContigMap):
        self._contigs, self._first = contigs, dict[str, str]()

    def __call__(self, name: str) -> str | None:
        """Return a contig in the genome's spelling, None where it has none or the name is not clear."""
        contigs, candidates = self._contigs, self._contigs.candidates(name)
        target, what = contigs.resolve(name), ""
        if len(candidates) > 1:
            what = f"contig '{name}' could be any of {abbreviate(candidates)} in {contigs.genome_name}"
        elif target is not None and name not in contigs.aliases:
            first = self._first.setdefault(target, name)
            if first != name:
                what = f"'{first}' and '{name}' would both be '{target}' of {contigs.genome_name}"
        if what:
            remedy = "say which with --contig-aliases FILE"
            log.warning("%s: %s: its records are not scored; %s", contigs.input_name, what, remedy)
            return None
        return target


def _file_regions(settings: ScoreVariantsSettings, reference: Reference) -> list[Region] | None:
    """Return the regions of -r and -R in the genome's spelling, None for all."""
    if not settings.region and not settings.regions_file:
        return None
    rows = parse_regions(settings.region or (), reference)
    if settings.regions_file:
        rows += load_regions(settings.regions_file, reference, clip=True)
    return [row.region for row in rows if row.region is not None]


def _open_substitutions(
    settings: ScoreVariantsSettings, reference: Reference, shard: Shard | None, block_records: int
) -> VariantInput:
    """Return every substitution of the regions of a BED, or of -r, as variants."""
    genome = reference.genome
    if settings.input is None:
        rows = parse_regions(settings.region or (), reference)
    else:
        with open_binary(settings.input, allow_empty=True) as stream:
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
    whole = VariantInput(
        name=name,
        genome=genome,
        header=substitutions_header(regions, genome),
        records=substitutions(regions, genome),
        resolve={named.contig: region.contig for named, region in regions}.get,
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
    return vcf_header({named.contig: genome.lengths[region.contig] for named, region in regions})


def vcf_header(lengths: Mapping[str, int]) -> VariantHeader:
    """Return the header of a VCF without samples, of contigs of these lengths."""
    contigs = [f"##contig=<ID={name},length={length}>" for name, length in lengths.items()]
    lines = ["##fileformat=VCFv4.2", *contigs, "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    return VariantHeader("vcf", tuple(f"{line}\n".encode() for line in lines))


def substitutions(regions: Sequence[NamedRegion], genome: Sequences) -> Iterator[VariantRecord]:
    """Yield one record per base of the regions, in order, with the three other bases as ALT; none for N.

    Regions that overlap repeat what they share.
    """
    line = 0
    for named, region in regions:
        contig, length = named.contig.encode(), genome.lengths[region.contig]
        for first in range(region.start, region.end, _FETCHED_BASES):
            bases = genome.fetch(region.contig, first, min(first + _FETCHED_BASES, region.end))
            for unrolled, code in enumerate(bases, start=first):
                ref, position = bytes((code,)), unrolled % length
                if ref == b"N":
                    continue
                line += 1
                alts = tuple(base for base in (b"A", b"C", b"G", b"T") if base != ref)
                columns = (contig, b"%d" % (position + 1), b".", ref, b",".join(alts), b".", b".", b".")
                yield VariantRecord(line, b"\t".join(columns), b"\n", named.contig, position, ref, alts)
