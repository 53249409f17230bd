"""Features of annotation as regions: GFF3, GTF, and the feature tables of GenBank and EMBL.

GFF counts bases from 1 and includes both ends (https://github.com/The-Sequence-Ontology/Specifications). A
record has one line in a BED; here it may have several, as the exons of a transcript.
"""

import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from hyenacli.errors import UsageError, UserError, abbreviate, quote
from hyenacli.genome.region import Region, Strand
from hyenacli.options import FeatureOptions
from hyenacli.readers.annotated import read_annotated
from hyenacli.readers.tables import Columns
from hyenacli.readers.text import InputFormat, carriage_return, file_format, sniff_format

Part = tuple[int, int]
"""Start and end, 0-based half-open."""
FEATURE_COLUMNS = ("chrom", "start", "end", "name", "score", "strand", "type")

_GFF = "a GFF or GTF"
_FLAT = ("a GenBank file", "an EMBL file")
_STRANDS: dict[bytes | int, Strand] = {b"+": "+", b"-": "-", 1: "+", -1: "-"}
_GTF = re.compile(r'\s*([^\s"]+)\s+(?:"([^"]*)"|([^;"\s]+))\s*;?')
_IDS = {
    "GFF3": ("ID", "Name", "locus_tag", "gene", "Parent"),
    "GTF": ("transcript_id", "gene_id"),
    "flat": ("locus_tag", "gene", "protein_id", "label", "standard_name"),
}


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
    def of(cls, options: FeatureOptions) -> "FeatureChoice":
        """Return what a command line chooses.

        Raises:
            UsageError: an attribute has the name of another column.
        """
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


@dataclass(frozen=True, slots=True)
class Feature:
    """One record of an annotation.

    Attributes:
        region: from its first base to its last, with the file's contig name, 0-based half-open.
        parts: that it consists of, where it is not all of its region; in rising order.
        score: as written.
        kind: its type, as gene or CDS.
        values: of the chosen attributes.
        line: 1-based line of its first part; of a flat file the number of the feature.
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


def sniff_regions(
    stream: io.BufferedReader, choice: FeatureChoice, otherwise: InputFormat | None = None
) -> InputFormat:
    """Return the kind of an input as `sniff_format` does; an annotation has regions, as a BED.

    GenBank and EMBL files are sequences unless features of them are chosen.
    """
    return "bed" if is_annotation(stream, choice) else sniff_format(stream, otherwise)


def is_annotation(stream: io.BufferedReader, choice: FeatureChoice) -> bool:
    """Return whether features are read from a stream; see `sniff_regions`."""
    name = file_format(stream)
    return name == _GFF or (name in _FLAT and bool(choice.types))


def read_features(stream: io.BufferedReader, choice: FeatureChoice) -> list[Feature]:
    """Read the chosen features of an annotation, in file order.

    Raises:
        UsageError: the file has several types of features and none is chosen.
        UserError: a line is not one of GFF, no feature is of a chosen type, or none has a chosen attribute.
    """
    if file_format(stream) == _GFF:
        reader = _GffReader(choice, str(stream.name))
        features = reader.read(stream)
        types, attributes = reader.types, reader.attributes
    else:
        features, types, attributes = _read_flat(stream, choice)
    name = str(stream.name)
    _check_types(choice, types, name)
    for attribute in (*choice.attributes, *([choice.id_attribute] if choice.id_attribute else [])):
        if features and attribute not in attributes:
            remedy = f"they have {abbreviate(sorted(attributes), 12)}"
            raise UserError(f"no chosen feature has the attribute '{attribute}'", at=name, remedy=remedy)
    return features


def _check_types(choice: FeatureChoice, types: Mapping[str, int], name: str) -> None:
    listed = abbreviate([f"{kind} ({count:,})" for kind, count in types.items()], 12)
    if not types:
        return
    if not choice.types and len(types) > 1:
        remedy = f"choose with --feature of: {listed}"
        raise UsageError("has features of several types", at=name, remedy=remedy)
    for kind in choice.types:
        if kind not in types:
            raise UserError(f"no feature of type '{kind}'", at=name, remedy=f"it has {listed}")


@dataclass(frozen=True, slots=True)
class _Line:
    """A chosen line of a GFF, or a part of a transcript, with the attributes that are used."""

    kind: str
    contig: str
    start: int
    end: int
    score: str
    strand: Strand
    attributes: dict[str, str]
    number: int
    gtf: bool


class _GffReader:
    """The features of one GFF3 or GTF.

    Attributes:
        types: how many lines have each type.
        attributes: names of those of the chosen lines.
    """

    def __init__(self, choice: FeatureChoice, name: str) -> None:
        self.types: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self._choice, self._name = choice, name
        self._contigs: dict[bytes, str] = {}
        chosen = filter(None, (choice.id_attribute, *choice.attributes))
        self._kept = dict.fromkeys((*_IDS["GFF3"], *_IDS["GTF"], *chosen))
        self._last_name = ""

    def read(self, stream: Iterable[bytes]) -> list[Feature]:
        """Read the features; with joined parts a transcript is complete only at the end."""
        choice = self._choice
        if not choice.joined:
            return [self._feature(line, ()) for line in self._lines(stream)]
        exons: dict[str, list[_Line]] = defaultdict(list)
        records: dict[tuple[str, ...], list[_Line]] = {}
        for line in self._lines(stream):
            chosen = not choice.types or line.kind in choice.types
            for parent in _parents(line) if line.kind == "exon" else ():
                exons[parent].append(line)
            for key in _keys(line) if chosen else ():
                records.setdefault((line.kind, line.contig, key), []).append(line)
        with_exons = {
            kind for (kind, _, key), lines in records.items() if key in exons and _own_id(lines[0]) == key
        }
        return [self._joined(key, lines, exons, with_exons) for key, lines in records.items()]

    def _joined(
        self,
        key: tuple[str, ...],
        lines: list[_Line],
        exons: Mapping[str, list[_Line]],
        with_exons: set[str],
    ) -> Feature:
        kind, _, name = key
        if kind not in with_exons:
            return self._feature(lines[0], lines)
        if name not in exons:
            problem = f"{kind} {quote(name)} has no exons"
            return replace(self._feature(lines[0], ()), status="NO_PARTS", problem=problem)
        return self._feature(lines[0], exons[name])

    def _lines(self, stream: Iterable[bytes]) -> Iterator[_Line]:
        """Yield the chosen lines, and exons where they may be parts; up to the sequences, if any."""
        choice = self._choice
        types = {kind.encode() for kind in choice.types}
        if choice.types and choice.joined:
            types.add(b"exon")
        counts: Counter[bytes] = Counter()
        for number, raw in enumerate(stream, 1):
            if raw.startswith((b"##FASTA", b">")):
                break
            if raw.startswith(b"#") or not raw.strip():
                continue
            columns = raw.split(b"\t")
            if len(columns) < 8:
                raise self._not_gff(raw, number)
            counts[columns[2]] += 1
            if not types or columns[2] in types:
                yield self._line(columns, number)
        self.types.update({kind.decode(errors="replace"): count for kind, count in counts.items()})

    def _line(self, columns: list[bytes], number: int) -> _Line:
        contig = self._contigs.get(columns[0])
        if contig is None:
            contig = self._contigs[columns[0]] = unquote(columns[0].decode(errors="replace"))
        try:
            start, end = int(columns[3]), int(columns[4])
        except ValueError:
            what = f"{quote(b'-'.join(columns[3:5]).decode(errors='replace'))} are not two positions"
            raise UserError(what, at=self._name, line=number) from None
        if not 1 <= start <= end:
            what = f"start {start} and end {end} are not in order, from 1 on"
            remedy = "GFF counts bases from 1, both ends included"
            raise UserError(what, at=self._name, line=number, remedy=remedy)
        text = columns[8].decode(errors="replace").rstrip("\r\n") if len(columns) > 8 else ""
        if "\r" in text:
            raise carriage_return(self._name, number)
        gtf = "=" not in text.partition('"')[0]
        attributes = _gtf_attributes(text) if gtf else _gff_attributes(text)
        self.attributes.update(attributes)
        attributes = {key: attributes[key] for key in self._kept if key in attributes}
        kind, score = (sys.intern(columns[i].decode(errors="replace")) for i in (2, 5))
        strand = _STRANDS.get(columns[6], ".")
        return _Line(kind, contig, start - 1, end, score, strand, attributes, number, gtf)

    def _not_gff(self, raw: bytes, number: int) -> UserError:
        n_columns = raw.count(b"\t") + 1
        what = f"{n_columns} columns where GFF has 9, separated by tabs"
        remedy = "replace the blanks between columns by tabs" if len(raw.split()) > 8 else None
        return UserError(what, at=self._name, line=number, remedy=remedy)

    def _feature(self, line: _Line, lines: Sequence[_Line]) -> Feature:
        """Return the feature of a line, which consists of `lines` if there are several."""
        parts = tuple(sorted({(part.start, part.end) for part in lines})) or ((line.start, line.end),)
        region = Region(
            line.contig, parts[0][0], max(end for _, end in parts), line.strand, self._name_of(line)
        )
        feature = _make(region, parts, line.score, line.kind, line.attributes, self._choice, line.number)
        if any((part.strand, part.contig) != (line.strand, line.contig) for part in lines):
            return _scattered(feature)
        return feature

    def _name_of(self, line: _Line) -> str:
        """Return the name of a line's feature; lines that follow each other share the text."""
        if (name := self._find_name(line)) != self._last_name:
            self._last_name = name
        return self._last_name

    def _find_name(self, line: _Line) -> str:
        if self._choice.id_attribute is not None:
            return line.attributes.get(self._choice.id_attribute, "")
        names = ("gene_id",) if line.gtf and line.kind == "gene" else _IDS["GTF" if line.gtf else "GFF3"]
        return next((line.attributes[name] for name in names if line.attributes.get(name)), "")


def _make(
    region: Region,
    parts: tuple[Part, ...],
    score: str,
    kind: str,
    attributes: Mapping[str, str],
    choice: FeatureChoice,
    line: int,
) -> Feature:
    values = tuple(attributes.get(name, "") for name in choice.attributes)
    return Feature(region, parts if len(parts) > 1 else (), score, kind, values, line)


def _scattered(feature: Feature) -> Feature:
    """Return a feature that cannot be read, because its parts lie on several strands or contigs."""
    name = quote(feature.region.name or str(feature.region))
    problem = f"parts of {name} are on several strands or contigs"
    return replace(feature, status="SEVERAL_STRANDS", problem=problem)


def _parents(line: _Line) -> Iterable[str]:
    parent = line.attributes.get("transcript_id" if line.gtf else "Parent", "")
    return (parent,) if line.gtf else parent.split(",")


def _own_id(line: _Line) -> str:
    """Return the name by which exons call a transcript."""
    if line.gtf:
        return line.attributes.get("transcript_id", "") if line.kind == "transcript" else ""
    return line.attributes.get("ID", "")


def _keys(line: _Line) -> Iterable[str]:
    """Return what the lines of one feature have in common; an exon may belong to several transcripts."""
    if line.gtf:
        name = "gene_id" if line.kind == "gene" else "transcript_id"
        return (line.attributes.get(name) or f"line {line.number}",)
    if line.kind == "exon" and line.attributes.get("Parent"):
        return line.attributes["Parent"].split(",")
    return (line.attributes.get("ID") or line.attributes.get("Parent") or f"line {line.number}",)


def _gff_attributes(text: str) -> dict[str, str]:
    r"""Parse column 9 of GFF3.

    >>> _gff_attributes("ID=g1;Note=a%3Bb,c; ")
    {'ID': 'g1', 'Note': 'a;b,c'}
    """
    pairs = (item.strip().partition("=") for item in text.split(";"))
    return {unquote(key): unquote(value) if "%" in value else value for key, _, value in pairs if key}


def _gtf_attributes(text: str) -> dict[str, str]:
    """Parse column 9 of GTF; values of a key that repeats are joined by commas.

    >>> _gtf_attributes('gene_id "g;1"; level 2; tag "a"; tag "b";')
    {'gene_id': 'g;1', 'level': '2', 'tag': 'a,b'}
    """
    attributes: dict[str, str] = {}
    for key, quoted, plain in _GTF.findall(text):
        value = quoted or plain
        attributes[key] = f"{attributes[key]},{value}" if key in attributes else value
    return attributes


def _read_flat(
    stream: io.BufferedReader, choice: FeatureChoice
) -> tuple[list[Feature], Counter[str], set[str]]:
    """Read the features of GenBank or EMBL; a part of a feature is a row unless parts are joined."""
    features: list[Feature] = []
    types: Counter[str] = Counter()
    attributes: set[str] = set()
    number = 0
    for entry in read_annotated(stream):
        circle = len(entry.sequence) if entry.circular else 0
        for feature in entry.features:
            number += 1
            types[feature.type] += 1
            if feature.type not in choice.types:
                continue
            values = {key: ",".join(map(str, texts)) for key, texts in feature.qualifiers.items()}
            attributes.update(values)
            names = _IDS["flat"] if choice.id_attribute is None else (choice.id_attribute,)
            name = next((values[key] for key in names if values.get(key)), "")
            strands = {_STRANDS.get(part.strand, ".") for part in feature.location.parts}
            scattered = len(strands) > 1 or any(part.ref is not None for part in feature.location.parts)
            strand = "." if scattered else strands.pop()
            parts = _in_order(feature.location.parts, strand, circle)
            for group in [parts] if choice.joined or scattered else [(part,) for part in parts]:
                region = Region(entry.name, group[0][0], max(end for _, end in group), strand, name)
                made = _make(region, group, ".", feature.type, values, choice, number)
                features.append(_scattered(made) if scattered else made)
    return features, types, attributes


def _in_order(parts: Sequence[Any], strand: Strand, circle: int) -> tuple[Part, ...]:
    """Return parts as on the + strand; beyond the end of a circle they go on counting.

    Args:
        parts: of Biopython, in the order in which they are read.
        strand: of all of them.
        circle: length of the contig, 0 if it is none.
    """
    spans = [(int(part.start), int(part.end)) for part in parts]
    ordered: list[Part] = []
    for start, end in reversed(spans) if strand == "-" else spans:
        around = circle if ordered and circle and start < ordered[-1][0] else 0
        if around and ordered[-1][1] == start + around:
            ordered[-1] = ordered[-1][0], end + around
        else:
            ordered.append((start + around, end + around))
    return tuple(ordered)
