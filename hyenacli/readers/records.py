"""Input records: a sequence, or a region of a genome with its flanks, or why there are no bases."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedReader
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.readers.annotation import is_annotation
from hyenacli.readers.features import FeatureChoice, Part
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled import LabelledRows
from hyenacli.readers.regions import (
    Reference,
    ResolvedRegion,
    fetch_parts,
    further_columns,
    further_fields,
    load_regions,
    parse_regions,
)
from hyenacli.readers.sequences import FastaRecord
from hyenacli.readers.shards import Shard, fingerprint, survey_rows
from hyenacli.readers.tables import Columns, Label, LabelledRecord
from hyenacli.readers.text import source_name

_logger = logging.getLogger("hyena")
OK, TOO_LONG = "OK", "TOO_LONG"


@dataclass(slots=True)
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
        line: of the input, 1-based; 0 where it has no lines.
        problem: what is wrong, for messages, unless the status is OK.
        parts: start and end of what the region consists of, as on the + strand; empty for all of it.
        extra: further columns of its row, names and values.
        circular: whether it is the sequence of a circle.
    """

    id: str
    chrom: str
    start: int
    end: int
    strand: str = "."
    bases: bytes = b""
    left: int = 0
    status: str = OK
    line: int = 0
    problem: str = ""
    parts: tuple[Part, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    circular: bool = False

    def __len__(self) -> int:
        """Return the bases of the region, or of its parts."""
        return sum(end - start for start, end in self.spans)

    @property
    def spans(self) -> tuple[Part, ...]:
        """Start and end of the parts of the region, which may be one."""
        return self.parts or ((self.start, self.end),)

    @classmethod
    def of_sequence(cls, name: str, bases: bytes, status: str = OK, line: int = 0, problem: str = "") -> Self:
        """Make the record of a sequence: contig and id are its name, the region is all of it."""
        return cls(name, name, 0, len(bases), bases=bases, status=status, line=line, problem=problem)

    def reading(self, *, reverse: bool) -> tuple[bytes, int]:
        """Return the bases in reading direction, and the number of them before the region.

        >>> SequenceRecord("x", "1", 5, 7, bases=b"AACGT", left=2).reading(reverse=True)
        (b'ACGTT', 1)
        """
        if reverse:
            return reverse_complement(self.bases), len(self.bases) - self.left - len(self)
        return self.bases, self.left


def refuse_longer(record: SequenceRecord, longest: int) -> SequenceRecord:
    """Return a record, without its bases and with the status TOO_LONG if they are more than `longest`."""
    if record.status != OK or len(record) <= longest:
        return record
    problem = f"{len(record):,} bases are more than {longest:,}"
    return replace(record, status=TOO_LONG, problem=problem, bases=b"")


def region_records(
    regions: Iterable[ResolvedRegion], genome: Genome, flank: int, columns: Sequence[str] = ()
) -> Iterator[SequenceRecord]:
    """Read regions of a genome in order, each when it is needed.

    The id is the region's name, or else its 1-based string (chr1:101-200). The output keeps the input's
    contig names.

    Args:
        regions: each on the genome, or with the reason why it is not.
        genome: to read the bases from.
        flank: bases read on each side, as far as the contig goes; on a circle at most once around.
        columns: names of the further columns.
    """
    for resolved in regions:
        named, region = resolved.record.region, resolved.region
        start, end, bases = 0, 0, b""
        if region is not None:
            length = genome.lengths[region.contig]
            if region.contig in genome.circular:
                start = region.start - min(flank, length - len(region))
                end = min(region.end + flank, start + length)
            else:
                start, end = max(0, region.start - flank), min(length, region.end + flank)
            if resolved.parts:
                flanked = (start, region.start), *resolved.parts, (region.end, end)
                bases = fetch_parts(genome, region, flanked)
            else:
                bases = genome.fetch(region.contig, start, end)
        yield SequenceRecord(
            named.name or str(named),
            named.contig,
            named.start,
            named.end,
            named.strand,
            bases,
            region.start - start if region else 0,
            resolved.status,
            resolved.record.line,
            resolved.problem,
            resolved.parts,
            tuple(zip(columns, further_fields(resolved.record, len(columns)), strict=True)),
        )


Usable = TypeVar("Usable", SequenceRecord, FastaRecord)


def warn_of_unusable(records: Iterable[Usable], name: str) -> Iterator[Usable]:
    """Pass records on; after the last, warn of those that have no result, with their first lines.

    Args:
        records: of an input.
        name: of the input in messages.
    """
    lines: dict[str, list[int]] = {}
    first = ""
    for record in records:
        if record.status not in (OK, "NO_CONTIG"):  # contigs have a message of their own
            lines.setdefault(record.status, []).append(record.line)
            first = first or record.problem or "the sequence is empty"
        yield record
    if lines:
        described = "; ".join(
            f"{status} in line{'s' * (len(numbers) > 1)} {abbreviate(map(str, numbers))}"
            for status, numbers in lines.items()
        )
        count = sum(map(len, lines.values()))
        what = f"{count:,} record{'s' * (count > 1)} without a result"
        _logger.warning("%s: %s, the first as %s: %s", name, what, first, described)


def started(records: Iterator[Usable], name: str) -> Iterator[Usable]:
    """Read the first record now, so that its errors come before a model is loaded; warn if there is none.

    An empty part of an input that was cut for several jobs is no error.
    """
    first = list(islice(records, 1))
    if not first:
        _logger.warning("%s: no records", name)
    return chain(first, records)


@dataclass(frozen=True, slots=True)
class Input:
    """The records of an input, or of a shard of it.

    Attributes:
        records: in their order.
        total: number of records; None for a stream.
        bases: of all regions together; None where they have not been counted.
        shard: metadata for the output of a shard, under the key "shard".
        contigs: length of every contig of the regions, by the input's names, on the genome.
        columns: names of the further columns of its records.
    """

    records: Iterable[SequenceRecord]
    total: int | None = None
    bases: int | None = None
    shard: dict[str, Any] = field(default_factory=dict)
    contigs: dict[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def open_regions(
    source: BufferedReader | Sequence[str],
    reference: Reference,
    *,
    flank: int = 0,
    shard: Shard | None = None,
    apart: bool = False,
    in_order: bool = False,
    choice: FeatureChoice | None = None,
    keep_columns: bool = False,
) -> Input:
    """Open regions of a genome: of a BED or an annotation, or 1-based texts such as chr1:101-200.

    Args:
        source: the file or the texts.
        reference: the genome; its contigs may have other names in the source.
        flank: bases read on each side, as far as the contig goes.
        shard: the part to take.
        apart: refuse two regions, of all shards, that have a base in common.
        in_order: read them in the order of contigs' names and positions, not in the input's.
        choice: of the features of an annotation.
        keep_columns: keep the columns of a BED after the strand, as those of features are.

    Raises:
        UserError: as `load_regions` and `Region.parse`, or two regions overlap and must not.
    """
    genome = reference.genome
    columns: tuple[str, ...] = ()
    if isinstance(source, BufferedReader):
        name = source_name(source)
        annotated = choice is not None and is_annotation(source, choice)
        regions = load_regions(source, reference, choice=choice, keep_further=keep_columns)
        if choice is not None and annotated:
            columns = ("type", *choice.attributes)
        elif keep_columns:
            columns = further_columns(regions)
    else:
        name, regions = "-r", parse_regions(source, reference)
    if apart:
        _check_apart(
            replace(resolved.record.region, start=start, end=end)
            for resolved in regions
            if resolved.region is not None
            for start, end in resolved.parts or ((resolved.region.start, resolved.region.end),)
        )
    if in_order:
        regions = sorted(regions, key=lambda resolved: _position(resolved.record.region))
    contigs = {
        resolved.record.region.contig: genome.lengths[resolved.region.contig]
        for resolved in regions
        if resolved.region is not None
    }
    metadata = {}
    if shard is not None:
        sha256 = fingerprint(
            (f"{resolved.record.region!r}{resolved.parts or ''}" for resolved in regions), genome.lengths
        )
        metadata, part = shard.describe(len(regions), sha256), shard.part(len(regions))
        regions = regions[part.start : part.stop]
    bases = sum(len(resolved.region) for resolved in regions if resolved.region is not None)
    records = warn_of_unusable(region_records(regions, genome, flank, columns), name)
    return Input(records, len(regions), bases, metadata, contigs, columns)


def _position(region: Region) -> tuple[str, int]:
    return region.contig, region.start


def _check_apart(regions: Iterable[Region]) -> None:
    ordered = sorted(regions, key=_position)
    for first, second in pairwise(ordered):
        if first.contig == second.contig and second.start < first.end:
            raise UserError(
                f"has bases in common with {first}, and a track has one number for a base",
                at=second,
                remedy="join them (bedtools merge), or write a table",
            )


def open_rows(
    rows: LabelledRows,
    source: Path,
    columns: Columns,
    *,
    shard: Shard | None = None,
    apart: bool = False,
) -> Input:
    """Open the sequences of a table, a FASTA or a folder; labels that were read are further columns.

    Args:
        rows: the records.
        source: the file or folder, to count the records where there is a shard.
        columns: the columns that were taken.
        shard: the part to take.
        apart: refuse two sequences of the same name.

    Raises:
        UsageError: as `survey_rows`.
        UserError: the first record cannot be read; what follows shows when it is read.
    """
    labelled = _unique(rows) if apart else iter(rows)
    contigs = rows.kinds[0] == "fasta"  # rows of a table are of no contig
    kept = rows.label_names if columns.labels else ()
    records = (
        SequenceRecord(  # by position, as in `_read_fasta`
            record.id,
            record.id if contigs else "",
            0,
            len(record.sequence),
            ".",
            record.sequence,
            0,
            record.status,
            record.line,
            record.problem,
            (),
            tuple(zip(kept, _texts(record.label), strict=False)) if kept else (),
        )
        for record in labelled
    )
    name = rows.names[0]
    if shard is None:
        return Input(warn_of_unusable(started(records, name), name), columns=kept)
    count, sha256 = survey_rows(source, columns)
    part = shard.part(count)
    chosen = warn_of_unusable(islice(records, part.start, part.stop), name)
    return Input(chosen, len(part), shard=shard.describe(count, sha256), columns=kept)


def _texts(label: Label) -> tuple[str, ...]:
    if isinstance(label, tuple):
        return label
    return ("" if label is None else str(label),)


def _unique(records: Iterable[LabelledRecord]) -> Iterator[LabelledRecord]:
    ids: set[str] = set()
    for record in records:
        if record.sequence and record.id in ids:
            what = f"a second sequence '{record.id}', and a track has one number for a base"
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
        raise UsageError(
            "-r stands instead of an INPUT",
            remedy="give one of them, or write the part of INPUT that you need to a file",
        )
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
