"""Input records: a sequence, or a region of a genome with its flanks, or why there are no bases."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Self

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.contigs import named_region
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled import LabelledRows
from hyenacli.readers.labelled_record import Columns, LabelledRecord
from hyenacli.readers.regions import Reference, load_regions
from hyenacli.readers.sequences import read_fasta
from hyenacli.readers.shards import Shard, fingerprint, survey_fasta, survey_rows

OK, EMPTY = "OK", "EMPTY"


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """One input record.

    Attributes:
        id: name in the output; records may share it.
        chrom: contig as the input spells it, or the name of a sequence that is not of a genome.
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
        """Return the bases of the region."""
        return self.end - self.start

    @classmethod
    def of_sequence(cls, name: str, bases: bytes) -> Self:
        """Make the record of a sequence: contig and id are its name, the region is all of it."""
        return cls(name, name, 0, len(bases), bases=bases, status=OK if bases else EMPTY)

    def reading(self, *, reverse: bool) -> tuple[bytes, int]:
        """Return the bases in reading direction, and the number of them before the region.

        >>> SequenceRecord("x", "1", 5, 7, bases=b"AACGT", left=2).reading(reverse=True)
        (b'ACGTT', 1)
        """
        if reverse:
            return reverse_complement(self.bases), len(self.bases) - self.left - len(self)
        return self.bases, self.left


def region_records(
    regions: Iterable[tuple[Region, Region | None, str]], genome: Genome, flank: int
) -> Iterator[SequenceRecord]:
    """Read regions of a genome in order, each when it is needed.

    The id is the region's name, or else its 1-based string (chr1:101-200). The output keeps the input's
    contig names.

    Args:
        regions: each as the input names it and in the genome's spelling, or None and a status that says why
            the genome does not have it.
        genome: to read the bases from.
        flank: bases read on each side, as far as the contig goes.
    """
    for named, region, status in regions:
        identity = (named.name or str(named), named.contig, named.start, named.end, named.strand)
        if region is None:
            yield SequenceRecord(*identity, status=status)
            continue
        start = max(0, region.start - flank)
        end = min(genome.lengths[region.contig], region.end + flank)
        bases = genome.fetch(region.contig, start, end)
        yield SequenceRecord(*identity, bases=bases, left=region.start - start)


@dataclass(frozen=True, slots=True)
class Input:
    """The records of an input, or of a shard of it.

    Attributes:
        records: in their order.
        total: number of records; None for a stream.
        bases: of all regions together; None where they have not been counted.
        shard: metadata for the output of a shard, under the key "shard".
    """

    records: Iterable[SequenceRecord]
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
    """Open regions of a genome: of a BED, or 1-based texts such as chr1:101-200.

    Args:
        source: the BED or the texts.
        reference: the genome; its contigs may have other names in the source.
        flank: bases read on each side, as far as the contig goes.
        shard: the part to take.
        apart: refuse two regions, of all shards, that have a base in common.

    Raises:
        UserError: as `load_regions` and `Region.parse`, or two regions overlap and must not.
    """
    genome = reference.genome
    regions: list[tuple[Region, Region | None, str]]
    if isinstance(source, BufferedReader):
        loaded = load_regions(source, genome, reference.style, reference.aliases)
        regions = [(resolved.record.region, resolved.region, resolved.status) for resolved in loaded]
    else:
        aliases = reference.aliases or {}
        parsed = [named_region(text, genome.lengths, reference.style, aliases) for text in source]
        regions = [(named, region, OK) for named, region in parsed]
    if apart:
        _check_apart([named for named, region, _ in regions if region is not None])
    metadata = {}
    if shard is not None:
        sha256 = fingerprint((repr(named) for named, _, _ in regions), genome.lengths)
        metadata, part = shard.describe(len(regions), sha256), shard.part(len(regions))
        regions = regions[part.start : part.stop]
    bases = sum(len(region) for _, region, _ in regions if region is not None)
    return Input(region_records(regions, genome, flank), len(regions), bases, metadata)


def _check_apart(regions: Iterable[Region]) -> None:
    ordered = sorted(regions, key=lambda region: (region.contig, region.start))
    for first, second in pairwise(ordered):
        if first.contig == second.contig and second.start < first.end:
            raise UserError(
                f"has bases in common with {first}, and a bedGraph has one number for a base",
                at=second,
                remedy="join them (bedtools merge), or write a table",
            )


def open_fasta(stream: BufferedReader, source: Path | None, shard: Shard | None = None) -> Input:
    """Open the sequences of a FASTA.

    Args:
        stream: the FASTA.
        source: the same as a path, to count its records where there is a shard.
        shard: the part to take.

    Raises:
        UsageError: as `survey_fasta`.
        UserError: it does not begin as FASTA does; what follows shows when it is read.
    """
    records = (SequenceRecord.of_sequence(record.name, record.sequence) for record in read_fasta(stream))
    if shard is None or source is None:
        return Input(chain([next(records)], records))
    count, sha256 = survey_fasta(source)
    part = shard.part(count)
    return Input(islice(records, part.start, part.stop), len(part), shard=shard.describe(count, sha256))


def open_rows(
    rows: LabelledRows,
    source: Path,
    columns: Columns,
    *,
    shard: Shard | None = None,
    apart: bool = False,
) -> Input:
    """Open the sequences of a table, a FASTA or a folder, whatever their labels.

    Args:
        rows: the records.
        source: the file or folder, to count the records where there is a shard.
        columns: the columns that were taken.
        shard: the part to take.
        apart: refuse two sequences of the same name.

    Raises:
        UsageError: as `survey_rows`.
        UserError: there is no record, or the first cannot be read; what follows shows when it is read.
    """
    labelled = _unique(rows) if apart else iter(rows)
    records = (SequenceRecord.of_sequence(record.id, record.sequence) for record in labelled)
    if shard is None:
        first = list(islice(records, 1))
        if not first:
            raise UserError("no records", at=rows.names[0])
        return Input(chain(first, records))
    count, sha256 = survey_rows(source, columns)
    part = shard.part(count)
    return Input(islice(records, part.start, part.stop), len(part), shard=shard.describe(count, sha256))


def _unique(records: Iterable[LabelledRecord]) -> Iterator[LabelledRecord]:
    ids: set[str] = set()
    for record in records:
        if record.sequence and record.id in ids:
            what = f"a second sequence '{record.id}', and a bedGraph has one number for a base"
            raise record.error(what, "rename it, or write a table")
        if record.sequence:
            ids.add(record.id)
        yield record


def check_input(source: Path, regions: Sequence[str] | None, *, several_processes: bool) -> None:
    """Check that an input has no regions beside it, and is not a stdin that several processes would share.

    Raises:
        UsageError: it has, or is.
    """
    if regions is not None:
        raise UsageError("-r stands instead of an INPUT", remedy="give one of them")
    if several_processes and str(source) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")


def require_regions(
    regions: Sequence[str] | None, fasta: Path | None, verb: str
) -> tuple[Sequence[str], Path]:
    """Return the regions that the command line gives instead of an input, and their genome.

    Raises:
        UsageError: one of them is missing.
    """
    if regions is None:
        raise UsageError(f"nothing to {verb}", remedy="name an INPUT, or regions with -r")
    if fasta is None:
        raise UsageError("-r names regions of a genome", remedy="give the genome with -f/--fasta")
    return regions, fasta
