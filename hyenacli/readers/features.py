"""Features of annotation: which are read, and what is kept of each.

A record has one line in a BED; a feature may have several parts, as the exons of a transcript.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from hyenacli.errors import UsageError, quote
from hyenacli.genome.region import Region
from hyenacli.options import FeatureOptions
from hyenacli.readers.tables import Columns

Part = tuple[int, int]
"""Start and end, 0-based half-open."""
FEATURE_COLUMNS = ("chrom", "start", "end", "name", "score", "strand", "type")


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """Which features are read, and what of them.

    Attributes:
        types: of features, as gene and CDS; empty for the only type of a file.
        id_attribute: the attribute that names a record; None for the usual ones.
        joined: whether the lines of one feature are one record, and a transcript is its exons.
        attributes: kept as columns.
    """

    types: tuple[str, ...] = ()
    id_attribute: str | None = None
    joined: bool = False
    attributes: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: FeatureOptions, fasta: Path | None) -> "FeatureChoice":
        """Return what a command line chooses.

        Args:
            options: the flags.
            fasta: the genome, of which features are regions.

        Raises:
            UsageError: an attribute has the name of another column, or there is no genome.
        """
        given = {
            "--feature": options.feature,
            "--id-attribute": options.id_attribute,
            "--merge-parts": options.merge_parts == "exon",
            "--attributes": options.attributes,
        }
        for flag in (flag for flag in given if given[flag] and fasta is None):
            remedy = (
                "give the genome with -f/--fasta (a GenBank or EMBL file may be its own), or leave it out"
            )
            raise UsageError("features are regions of a genome", at=flag, remedy=remedy)
        attributes = _words(options.attributes)
        for name in attributes:
            if name in FEATURE_COLUMNS or attributes.count(name) > 1:
                raise UsageError(f"'{name}' is a column already", at="--attributes", remedy="leave it out")
        joined = options.merge_parts == "exon"
        return cls(_words(options.feature), options.id_attribute, joined, attributes)

    def including(self, columns: Columns, *, labelled: bool) -> "FeatureChoice":
        """Return the same with the attributes that a table's columns would name."""
        optional = (columns.id, columns.group, columns.split)
        names = [*(columns.labels if labelled else ()), *filter(None, optional)]
        new = [name for name in names if name not in (*FEATURE_COLUMNS, *self.attributes)]
        return replace(self, attributes=(*self.attributes, *new))


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


@dataclass(slots=True)  # frozen ones take four times as long to make
class Feature:
    """One record of an annotation.

    Attributes:
        region: from its first base to its last, with the file's contig name, 0-based half-open.
        parts: that it consists of, where it is not all of its region; in rising order.
        score: as written.
        kind: its type, as gene or CDS.
        values: of the chosen attributes.
        line: 1-based line of its first part.
        status: OK, NO_PARTS (a transcript without exons) or SEVERAL_STRANDS (its parts lie on both strands,
            or on another contig).
        problem: what is wrong, for messages.
    """

    region: Region
    parts: tuple[Part, ...]
    score: str
    kind: str
    values: tuple[str, ...]
    line: int
    status: str = "OK"
    problem: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The texts of `FEATURE_COLUMNS`, then of the chosen attributes, made on demand."""
        region = self.region
        start, end = str(region.start), str(region.end)
        return (region.contig, start, end, region.name, self.score, region.strand, self.kind, *self.values)


def scattered(feature: Feature) -> Feature:
    """Return a feature that cannot be read, because its parts lie on several strands or contigs."""
    name = quote(feature.region.name or str(feature.region))
    problem = f"parts of {name} are on several strands or contigs"
    return replace(feature, status="SEVERAL_STRANDS", problem=problem)
