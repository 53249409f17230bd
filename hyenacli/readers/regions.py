"""Regions of a genome: BED files, matched with its contigs before anything expensive begins; their labels.

Labels are in columns of the BED, or in a `Signal` with a number per base.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from hyenacli.errors import UsageError, UserError, quote
from hyenacli.genome.contigs import ContigMap, ContigStyle, match_contigs, named_region, parse_circular
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region, Strand
from hyenacli.readers.annotation import is_annotation, read_features
from hyenacli.readers.features import (
    FEATURE_COLUMNS,
    Feature,
    FeatureChoice,
    Part,
)
from hyenacli.readers.genome import Genome
from hyenacli.readers.tables import ColumnIndices, Columns, LabelledRecord, find_columns
from hyenacli.readers.text import (
    Source,
    bare,
    open_binary,
    read_lines,
    refuse_foreign,
    source_name,
    split_at_blanks,
)

if TYPE_CHECKING:
    from hyenacli.readers.signal import Signal

_STRANDS: dict[str, Strand] = {"+": "+", "-": "-"}
_HEADERS = ("track", "browser")
_NAMES = (
    *("chrom", "start", "end", "name", "score", "strand", "thickStart", "thickEnd", "itemRgb"),
    *("blockCount", "blockSizes", "blockStarts"),
)
_N_STANDARD = 6
"""Columns of a BED up to the strand."""
_logger = logging.getLogger("hyena")


@dataclass(frozen=True, slots=True)
class BedRecord:
    """One line of a BED file.

    Attributes:
        region: 0-based half-open, with the file's contig name; name from column 4, strand from column 6.
        fields: every column, without blanks and quotes around it; what is not UTF-8 is replaced.
        line: 1-based line number.
    """

    region: Region
    fields: tuple[str, ...]
    line: int


RegionRecord = BedRecord | Feature


@dataclass(frozen=True)
class Reference:
    """A genome, and the rule for matching contig names with its own."""

    genome: Genome
    style: ContigStyle = "auto"
    aliases: Mapping[str, str] = field(default_factory=dict)

    def match(
        self,
        names: Iterable[str] | Mapping[str, int],
        input_name: str,
        declared: Mapping[str, int] | None = None,
    ) -> ContigMap:
        """Match an input's contigs with the genome's, as `match_contigs`."""
        return match_contigs(
            names,
            self.genome.lengths,
            style=self.style,
            aliases=self.aliases,
            input_name=input_name,
            genome_name=str(self.genome.path),
            declared=declared,
        )


@dataclass(frozen=True, slots=True)
class ResolvedRegion:
    """A record of a BED or an annotation, and its region on the genome.

    Attributes:
        record: as read, with the contig name of its file.
        region: the same with the genome's contig name; None unless the status is OK.
        status: OK, NO_CONTIG, EMPTY (a region of no bases), OUT_OF_RANGE (it ends outside its contig), or
            that of a feature.
        problem: what is wrong, for messages.
    """

    record: RegionRecord
    region: Region | None
    status: str = "OK"
    problem: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Start and end of the parts of the record, on the + strand; empty for all of its region."""
        return self.record.parts if isinstance(self.record, Feature) else ()


def load_regions(
    source: Source,
    reference: Reference,
    *,
    clip: bool = False,
    keep_fields: bool = False,
    keep_further: bool = False,
    choice: FeatureChoice | None = None,
) -> list[ResolvedRegion]:
    """Read every region of a file in order, each on the genome or with the reason why it is not.

    Args:
        source: a BED, or an annotation where a choice is given.
        reference: the genome.
        clip: end regions with their contig, as samtools and bcftools do.
        keep_fields: keep the columns of a BED too, which take as much memory as the regions.
        keep_further: keep the columns of those lines of a BED that have more than the strand.
        choice: of the features of an annotation.

    Raises:
        UsageError: as `read_features`, or features are chosen of a BED.
        UserError: the file cannot be read, or shares no contig with the genome.
    """
    genome = reference.genome
    with open_binary(source) as stream:
        name = source_name(stream)
        keep_from = 0 if keep_fields else _N_STANDARD + 1 if keep_further else sys.maxsize
        records = _read_records(stream, choice, keep_from)
    if not records:
        _logger.warning("%s: no regions", name)
        return []
    contigs = reference.match((record.region.contig for record in records), name)
    contigs.report()
    targets = {contig: contigs.resolve(contig) for contig in contigs.names}
    return [
        ResolvedRegion(record, None, record.status, record.problem)
        if isinstance(record, Feature) and record.status != "OK"
        else _on_genome(record, targets[record.region.contig], genome, clip=clip)
        for record in records
    ]


def bed_columns(width: int) -> list[str]:
    """Return the names of the columns of a BED, which has none for those after the twelfth."""
    return [*_NAMES[:width], *(f"column{i}" for i in range(len(_NAMES) + 1, width + 1))]


def further_columns(regions: Iterable[ResolvedRegion]) -> tuple[str, ...]:
    """Return the names of the columns that the records of a BED have after the strand."""
    width = max((len(region.record.fields) for region in regions), default=0)
    return tuple(bed_columns(width)[_N_STANDARD:])


def further_fields(record: RegionRecord, n_columns: int) -> tuple[str, ...]:
    """Return the texts of a record in the columns after the strand, "" where its line is shorter."""
    fields = record.fields[_N_STANDARD : _N_STANDARD + n_columns]
    return fields + ("",) * (n_columns - len(fields))


def _read_records(
    stream: BufferedReader, choice: FeatureChoice | None, keep_from: int
) -> Sequence[RegionRecord]:
    """Read the records; those of a BED keep their columns if they have at least `keep_from`."""
    if choice is not None and is_annotation(stream, choice):
        return read_features(stream, choice)
    if choice is not None and choice != FeatureChoice():
        remedy = "--feature, --attributes and the like are for GFF3, GTF, GenBank and EMBL"
        raise UsageError("has no features", at=source_name(stream), remedy=remedy)
    return [
        record if len(record.fields) >= keep_from else BedRecord(record.region, (), record.line)
        for record in read_bed(stream)
    ]


def _on_genome(record: RegionRecord, contig: str | None, genome: Genome, *, clip: bool) -> ResolvedRegion:
    region = record.region
    if contig is None:
        problem = f"the genome has no contig {quote(region.contig)}"
        return ResolvedRegion(record, None, "NO_CONTIG", problem)
    length = genome.lengths[contig]
    if contig in genome.circular and region.start < length and 0 < len(region) <= length:
        return ResolvedRegion(record, replace(region, contig=contig))  # perhaps across the end
    if region.end > length and not (clip and region.start < length):
        problem = f"end {region.end:,} is outside contig {contig} of {length:,} bases in {genome.path}"
        return ResolvedRegion(record, None, "OUT_OF_RANGE", problem)
    if not len(region):
        return ResolvedRegion(record, None, "EMPTY", f"start and end are both {region.start:,}")
    if contig == region.contig and region.end <= length:
        return ResolvedRegion(record, region)
    return ResolvedRegion(record, replace(region, contig=contig, end=min(region.end, length)))


def read_bed(source: Source) -> Iterator[BedRecord]:
    """Read the records of a BED file (plain, gzip, bgzip, or '-' for standard input) in file order.

    BED3 to BED12 and any further columns, separated by tabs, or by runs of blanks on a line without a tab.
    Blank lines, `#` comments, `track` and `browser` lines are skipped.

    Raises:
        UserError: `open_binary` refuses the input, or a line is not BED; the message names file and line, or
            the other format that the file begins as.
    """
    with open_binary(source) as stream:
        head, first = stream.peek(1), True
        for number, line in read_lines(stream, errors="replace"):
            fields = split_fields(line)
            if not any(fields) or line.startswith("#") or fields[0].split(" ")[0] in _HEADERS:
                continue
            try:
                region = _region(fields, stream.name, number)
            except UserError:
                if first:  # names and scores may make a line look like another format's, too
                    refuse_foreign(stream, head)
                if not line.startswith(">"):
                    raise
                remedy = "give regions as contig, start and end"
                raise UserError(
                    "a FASTA header, not a region", at=stream.name, line=number, remedy=remedy
                ) from None
            first = False
            yield BedRecord(region, fields, number)


def read_aliases(path: Path) -> dict[str, str]:
    """Read two columns, the input's contig name and the genome's, as for `bcftools annotate --rename-chrs`.

    Raises:
        UserError: the file cannot be read, a line has not two columns, or a name is given two meanings.
    """
    aliases: dict[str, str] = {}
    with open_binary(path) as stream:
        for number, line in read_lines(stream):
            columns = list(map(bare, split_at_blanks(line)))
            if not columns or line.startswith("#"):
                continue
            if len(columns) != 2:
                remedy = "write the input's name and the genome's name"
                raise UserError(f"{len(columns)} columns instead of 2", at=path, line=number, remedy=remedy)
            name, target = columns
            if aliases.setdefault(name, target) != target:
                raise UserError(f"'{name}' is both '{aliases[name]}' and '{target}'", at=path, line=number)
    return aliases


def split_fields(line: str) -> tuple[str, ...]:
    """Split a line at its tabs, or at runs of blanks where it has none; R puts quotes around texts."""
    return tuple(map(bare, line.split("\t") if "\t" in line else split_at_blanks(line)))


def _region(fields: tuple[str, ...], file: str, line: int) -> Region:
    if "\N{REPLACEMENT CHARACTER}" in fields[0]:
        raise UserError("the contig (column 1) is not UTF-8", at=file, line=line)
    if len(fields) < 3:
        raise UserError(
            f"{len(fields)} column{'s' * (len(fields) > 1)} where BED has at least 3",
            at=file,
            line=line,
            remedy="write contig, start and end, separated by tabs",
        )
    if not fields[0].strip():
        raise UserError("the contig (column 1) is empty", at=file, line=line)
    start, end = (_position(fields[i], name, file, line) for i, name in ((1, "start"), (2, "end")))
    if end < start:
        raise UserError(
            f"end {end} is before start {start}", at=file, line=line, remedy="correct or remove the line"
        )
    name = fields[3] if len(fields) > 3 else ""
    strand = _STRANDS.get(fields[5], ".") if len(fields) > 5 else "."
    return Region(sys.intern(fields[0]), start, end, strand, name)


def _position(text: str, name: str, file: str, line: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    if text.startswith("-") and text[1:].isdigit():
        remedy = "BED counts bases from 0"
        raise UserError(f"{name} {quote(text)} is negative", at=file, line=line, remedy=remedy)
    remedy = "write a whole number without separators, and begin header lines with '#'"
    raise UserError(f"{name} {quote(text)} is not a position", at=file, line=line, remedy=remedy)


def parse_regions(texts: Sequence[str], reference: Reference) -> list[ResolvedRegion]:
    """Parse 1-based regions of the command line, such as chr1:101-200, as rows of a BED.

    Raises:
        UserError: as `Region.parse`.
    """
    contigs = reference.match((), "-r")
    parsed = (named_region(text, contigs) for text in texts)
    return [ResolvedRegion(BedRecord(named, (), 0), region) for named, region in parsed]


@contextmanager
def open_reference(
    fasta: Path, style: ContigStyle, aliases: Path | None, circular: str | None = None
) -> Iterator[Reference]:
    """Open the genome of regions.

    Args:
        fasta: the genome.
        style: how contig names are matched, auto or exact.
        aliases: table of contig names, if there is one.
        circular: the value of --circular.

    Raises:
        UsageError: the genome has no such circle.
        UserError: the genome or the table cannot be read.
    """
    names = read_aliases(aliases) if aliases else {}
    with Genome(fasta) as genome:
        reference = Reference(genome, style, names)
        genome.circular |= parse_circular(circular, reference.match((), "--circular"))
        yield reference


def read_regions(
    source: Source,
    reference: Reference,
    columns: Columns,
    signal: "Signal | None",
    *,
    labelled: bool,
    choice: FeatureChoice | None = None,
) -> tuple[tuple[str, ...], Iterator[LabelledRecord]]:
    """Read the names of the label columns of a BED or an annotation, and its records, in order.

    Sequences are read 5' to 3' on the region's strand, and so is a text with a label per base. A record is
    named by column 4, or else by its 1-based region.

    Args:
        source: the file.
        reference: the genome.
        columns: to read; `sequence` is not used.
        signal: numbers per base instead of labels from columns.
        labelled: whether labels are required.
        choice: of the features of an annotation.

    Raises:
        UserError: as `load_regions`; a column is missing, in all records or in one, or a split is unknown.
    """
    with open_binary(source) as stream:
        file = source_name(stream)
        annotated = choice is not None and is_annotation(stream, choice)
        if choice is not None and annotated:
            choice = choice.including(columns, labelled=labelled and signal is None)
        regions = load_regions(stream, reference, keep_fields=True, choice=choice)
    if not regions:
        raise UserError("no regions", at=file)
    width = max(len(region.record.fields) for region in regions)
    if choice is not None and annotated:
        header = [*FEATURE_COLUMNS, *choice.attributes]
    else:
        header = bed_columns(width)
    indices = find_columns(header, columns, file, labelled=labelled and signal is None)
    names = tuple(header[i] for i in indices.labels) if signal is None else ("signal",)
    return names, _records(regions, reference.genome, indices, signal, file)


def _records(
    regions: Sequence[ResolvedRegion],
    genome: Genome,
    indices: ColumnIndices,
    signal: "Signal | None",
    file: str,
) -> Iterator[LabelledRecord]:
    width = 1 + max(indices.all(), default=0)
    for resolved in regions:
        fields, region = resolved.record.fields, resolved.region
        record = LabelledRecord(
            id=resolved.record.region.name or str(resolved.record.region),
            sequence=_bases(genome, region, resolved.parts) if region else b"",
            region=region or resolved.record.region,
            file=file,
            line=resolved.record.line,
            status=resolved.status,
            problem=resolved.problem,
        )
        if len(fields) < width:
            what = f"{len(fields)} columns, but column {width} is needed"
            raise record.error(what, "separate columns by tabs")
        record = indices.complete(record, fields)
        if signal is not None:
            record = replace(record, label=signal.over(region, resolved.parts) if region else None)
        yield record


def _bases(genome: Genome, region: Region, parts: Sequence[Part]) -> bytes:
    bases = fetch_parts(genome, region, parts)
    return reverse_complement(bases) if region.strand == "-" else bases


def fetch_parts(genome: Genome, region: Region, parts: Sequence[Part]) -> bytes:
    """Return the bases of a region's parts, joined as on the + strand; of all of it where it has none."""
    spans = parts or ((region.start, region.end),)
    return b"".join(genome.fetch(region.contig, *_within(span, region.contig, genome)) for span in spans)


def _within(span: Part, contig: str, genome: Genome) -> Part:
    """Return a span that begins behind the end of a circle as it is on the circle."""
    start, end = span
    around = genome.lengths[contig] if start >= genome.lengths[contig] else 0
    return start - around, end - around
