"""What is to be read: a region of bases with its flanks, and why where that cannot be."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

from hyenacli.errors import UserError
from hyenacli.genome.contigs import named_region
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.readers.fasta import FastaRecord, read_fasta
from hyenacli.readers.genome_file import Genome
from hyenacli.readers.labelled import LabelledRows
from hyenacli.readers.labelled_record import Columns, LabelledRecord
from hyenacli.readers.region_records import Reference
from hyenacli.readers.regions import load_regions
from hyenacli.readers.shards import Shard, fingerprint, survey_fasta, survey_rows

OK, EMPTY = "OK", "EMPTY"


@dataclass(frozen=True, slots=True)
class SequenceRecord:
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

        >>> SequenceRecord("x", "1", 5, 7, bases=b"AACGT", left=2).reading(reverse=True)
        (b'ACGTT', 1)
        """
        if reverse:
            return reverse_complement(self.bases), len(self.bases) - self.left - len(self)
        return self.bases, self.left


def stretches_of_records(records: Iterable[FastaRecord]) -> Iterator[SequenceRecord]:
    """Whole sequences, by their names."""
    for record in records:
        yield whole_record(record.name, record.sequence)


def whole_record(name: str, bases: bytes) -> SequenceRecord:
    """A sequence of its own: contig and id are its name, the region is all of it."""
    return SequenceRecord(name, name, 0, len(bases), bases=bases, status=OK if bases else EMPTY)


def stretches_of_regions(
    regions: Iterable[tuple[Region, Region | None, str]], genome: Genome, flank: int
) -> Iterator[SequenceRecord]:
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
            yield SequenceRecord(*about, status=status)
            continue
        start = max(0, region.start - flank)
        end = min(genome.lengths[region.contig], region.end + flank)
        bases = genome.fetch(region.contig, start, end)
        yield SequenceRecord(*about, bases=bases, left=region.start - start)


@dataclass(frozen=True, slots=True)
class Input:
    """The records of an input, or a shard's.

    Attributes:
        stretches: in their order.
        total: how many, where it is known.
        bases: of all regions together, where it is known.
        shard: what the output says where this is a part of an input, under "shard".
    """

    stretches: Iterable[SequenceRecord]
    total: int | None = None
    bases: int | None = None
    shard: dict[str, Any] = field(default_factory=dict)


def open_regions(
    source: BufferedReader | Sequence[str],
    reference: Reference,
    *,
    flank: int = 0,
    shard: Shard | None = None,
    apart: bool = False,
) -> Input:
    """Regions of a genome: of a BED, or 1-based texts such as chr1:101-200.

    Args:
        source: which.
        reference: the genome; its contigs may have other names in the source.
        flank: bases read on each side, as far as the contig goes.
        shard: the part to take.
        apart: whether no two regions, of the whole input, may have a base in common.

    Raises:
        UserError: as `load_regions` and `Region.parse`, or two regions are not apart.
    """
    genome = reference.genome
    regions: list[tuple[Region, Region | None, str]]
    if isinstance(source, BufferedReader):
        loaded = load_regions(source, genome, reference.style, reference.aliases)
        regions = [(one.record.region, one.region, one.status) for one in loaded]
    else:
        aliases = reference.aliases or {}
        parsed = [named_region(text, genome.lengths, reference.style, aliases) for text in source]
        regions = [(named, region, OK) for named, region in parsed]
    if apart:
        _check_apart([named for named, region, _ in regions if region is not None])
    about = {}
    if shard is not None:
        sha256 = fingerprint((repr(named) for named, _, _ in regions), genome.lengths)
        about, part = shard.describe(len(regions), sha256), shard.part(len(regions))
        regions = regions[part.start : part.stop]
    bases = sum(len(region) for _, region, _ in regions if region is not None)
    return Input(stretches_of_regions(regions, genome, flank), len(regions), bases, about)


def _check_apart(regions: Iterable[Region]) -> None:
    ordered = sorted(regions, key=lambda region: (region.contig, region.start))
    for one, other in pairwise(ordered):
        if one.contig == other.contig and other.start < one.end:
            raise UserError(
                f"has bases in common with {one}, and a bedGraph has one number for a base",
                at=other,
                remedy="join them (bedtools merge), or write a table",
            )


def open_fasta(stream: BufferedReader, source: Path | None, shard: Shard | None = None) -> Input:
    """The whole sequences of a FASTA.

    Args:
        stream: the FASTA.
        source: the same as a path, to count its records where there is a shard.
        shard: the part to take.

    Raises:
        UsageError: as `survey_fasta`.
        UserError: it does not begin as FASTA does; what follows shows when it is read.
    """
    records = read_fasta(stream)
    if shard is None or source is None:
        return Input(stretches_of_records(chain([next(records)], records)))
    count, sha256 = survey_fasta(source)
    part = shard.part(count)
    own = islice(records, part.start, part.stop)
    return Input(stretches_of_records(own), len(part), shard=shard.describe(count, sha256))


def open_rows(
    rows: LabelledRows,
    source: Path,
    columns: Columns,
    *,
    shard: Shard | None = None,
    apart: bool = False,
) -> Input:
    """The whole sequences of a table, a FASTA or a folder, whatever their labels.

    Args:
        rows: the records.
        source: what they are read from, to count them where there is a shard.
        columns: which columns were taken.
        shard: the part to take.
        apart: whether no two sequences may have one name.

    Raises:
        UsageError: as `survey_rows`.
        UserError: there is no record, or the first cannot be read; what follows shows when it is read.
    """
    records = _each_once(rows) if apart else iter(rows)
    if shard is None:
        first = list(islice(records, 1))
        if not first:
            raise UserError("no records", at=rows.names[0])
        return Input(whole_record(record.id, record.sequence) for record in chain(first, records))
    count, sha256 = survey_rows(source, columns)
    part = shard.part(count)
    own = islice(records, part.start, part.stop)
    about = shard.describe(count, sha256)
    return Input((whole_record(record.id, record.sequence) for record in own), len(part), shard=about)


def _each_once(records: Iterable[LabelledRecord]) -> Iterator[LabelledRecord]:
    seen: set[str] = set()
    for record in records:
        if record.sequence and record.id in seen:
            what = f"a second sequence '{record.id}', and a bedGraph has one number for a base"
            raise record.error(what, "rename it, or write a table")
        if record.sequence:
            seen.add(record.id)
        yield record
