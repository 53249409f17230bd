"""GFF3 and GTF: a feature of several lines, as a transcript of exons, may be one record.

Both count bases from 1 and include both ends (https://github.com/The-Sequence-Ontology/Specifications).
An annotation has millions of lines: what is not used is not parsed, and not kept.
"""

import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote

from hyenacli.errors import UserError, quote
from hyenacli.genome.region import Region, Strand
from hyenacli.readers.features import Feature, FeatureChoice, Part, scattered
from hyenacli.readers.text import carriage_return

_STRANDS: dict[str, Strand] = {"+": "+", "-": "-"}
# A quote within quotes is doubled, or behind a backslash.
_VALUE = r'(?:"([^"\\]*(?:(?:\\.|"")[^"\\]*)*)"|([^;"\s]+))'
_GTF = re.compile(rf'\s*([^\s"]+)\s+{_VALUE}\s*;?')
_GFF_IDS = ("ID", "Name", "locus_tag", "gene", "Parent")
_GTF_IDS = ("transcript_id", "gene_id")
_BROWSER = (b"track ", b"browser ")
_WITHOUT_EXONS = {b"CDS", b"exon"}
_N_TABS = 7
"""Of a line without attributes, which GFF allows."""


class _Line(NamedTuple):
    """A chosen line, or a part of a transcript; `text` is its column 9."""

    kind: str
    contig: str
    start: int
    end: int
    score: str
    strand: Strand
    text: str
    number: int
    gtf: bool

    def attributes(self) -> dict[str, str]:
        """Return all attributes."""
        return _gtf_attributes(self.text) if self.gtf else _gff_attributes(self.text)

    def get(self, name: str, default: str = "") -> str:
        """Return one attribute as `attributes` has it; the others are not parsed, as far as that is safe."""
        text = self.text.lstrip(" ")
        if self.gtf and "\\" not in text and '""' not in text:
            found = _gtf_pattern(name).finditer(text)
            values = [match[1] or match[2] for match in found if text.count('"', 0, match.start()) % 2 == 0]
            return ",".join(values) if values else default
        start = -1 if self.gtf or "; " in text else f";{text}".rfind(f";{name}=")
        if start >= 0:
            value = text[start + len(name) + 1 :].partition(";")[0].rstrip()
            return unquote(value) if "%" in value else value
        return self.attributes().get(name, default) if self.gtf or "%" in text or "; " in text else default


@dataclass(slots=True)
class _Spans:
    """Where the lines of one record are, in little memory.

    Attributes:
        contig: of the first.
        strand: of the first.
        mixed: whether another lies on another contig or strand.
        positions: start, end, start, end ...
    """

    contig: str
    strand: Strand
    mixed: bool = False
    positions: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, line: _Line) -> None:
        """Add the span of a line."""
        self.mixed |= (line.contig, line.strand) != (self.contig, self.strand)
        self.positions.extend((line.start, line.end))

    def parts(self) -> tuple[Part, ...]:
        """Return the spans in rising order, each once."""
        return tuple(sorted(set(zip(self.positions[::2], self.positions[1::2], strict=True))))


class _Record(NamedTuple):
    """A record of joined lines: the feature of its first, whether exons call it by its key, all its lines."""

    feature: Feature
    has_own_id: bool
    spans: _Spans


class GffReader:
    """The features of one GFF3 or GTF.

    Attributes:
        types: how many lines have each type.
        attributes: names of those of the chosen lines, up to the line with which each attribute that is asked
            for has been seen.
    """

    def __init__(self, choice: FeatureChoice, name: str) -> None:
        self.types: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self._choice, self._name = choice, name
        self._unseen = {*choice.attributes, *filter(None, [choice.id_attribute])}
        self._contigs: dict[str, str] = {}
        self._last_name = ""

    def read(self, stream: Iterable[bytes]) -> list[Feature]:
        """Read the features; with joined parts a transcript is complete only at the end.

        Raises:
            UserError: a line is not GFF; the message names file and line.
        """
        if not self._choice.joined:
            return [self._feature(line) for line in self._lines(stream)]
        return list(self._joined(stream))

    def _joined(self, stream: Iterable[bytes]) -> Iterator[Feature]:
        types = self._choice.types
        exons: dict[str, _Spans] = {}
        records: dict[tuple[str, str, str], _Record] = {}
        for line in self._lines(stream):
            for parent in _parents(line) if line.kind == "exon" else ():
                if parent not in exons:
                    exons[parent] = _Spans(line.contig, line.strand)
                exons[parent].add(line)
            for name in _keys(line) if not types or line.kind in types else ():
                key = (line.kind, line.contig, name)
                if key not in records:
                    spans = _Spans(line.contig, line.strand)
                    records[key] = _Record(self._feature(line), _own_id(line) == name, spans)
                records[key].spans.add(line)
        with_exons = {
            kind for (kind, _, name), record in records.items() if record.has_own_id and name in exons
        }
        for (kind, _, name), record in records.items():
            if kind not in with_exons:
                yield _with_parts(record.feature, record.spans)
            elif name in exons:
                yield _with_parts(record.feature, exons[name])
            else:
                problem = f"{kind} {quote(name)} has no exons"
                yield replace(record.feature, status="NO_PARTS", problem=problem)

    def _lines(self, stream: Iterable[bytes]) -> Iterator[_Line]:
        """Yield the chosen lines, and exons where they may be parts; up to the sequences, if any."""
        choice = self._choice
        types = {kind.encode() for kind in choice.types}
        if choice.joined and types - _WITHOUT_EXONS:
            types.add(b"exon")
        counts: Counter[bytes] = Counter()
        for number, raw in enumerate(stream, 1):
            if raw[:1] in (b"#", b">") or raw.isspace():
                if raw.startswith((b"##FASTA", b">")):
                    break
                continue
            if raw.count(b"\t") < _N_TABS:
                if raw.startswith(_BROWSER):
                    continue
                raise self._not_gff(raw, number)
            kind = raw.split(b"\t", 3)[2]
            counts[kind] += 1
            if not types or kind in types:
                yield self._line(raw.decode(errors="replace").rstrip("\r\n").split("\t"), number)
        self.types.update({kind.decode(errors="replace"): count for kind, count in counts.items()})

    def _line(self, columns: list[str], number: int) -> _Line:
        contig = self._contigs.get(columns[0])
        if contig is None:
            contig = self._contigs[columns[0]] = unquote(columns[0])
        try:
            start, end = int(columns[3]), int(columns[4])
        except ValueError:
            what = f"{quote('-'.join(columns[3:5]))} are not two positions"
            raise UserError(what, at=self._name, line=number) from None
        if not 1 <= start <= end:
            what = f"start {start} and end {end} are not in order, from 1 on"
            remedy = "GFF counts bases from 1, both ends included"
            raise UserError(what, at=self._name, line=number, remedy=remedy)
        text = columns[8] if len(columns) > 8 else ""
        if "\r" in text:
            raise carriage_return(self._name, number)
        kind, score, strand = sys.intern(columns[2]), sys.intern(columns[5]), _STRANDS.get(columns[6], ".")
        gtf = "=" not in text.partition('"')[0]
        line = _Line(kind, contig, start - 1, end, score, strand, text, number, gtf)
        if self._unseen:
            names = line.attributes()
            self.attributes.update(names)
            self._unseen.difference_update(names)
        return line

    def _not_gff(self, raw: bytes, number: int) -> UserError:
        n_columns = raw.count(b"\t") + 1
        what = f"{n_columns} column{'s' * (n_columns > 1)} where GFF has 9, separated by tabs"
        remedy = "replace the blanks between columns by tabs" if len(raw.split()) > 8 else None
        return UserError(what, at=self._name, line=number, remedy=remedy)

    def _feature(self, line: _Line) -> Feature:
        region = Region(line.contig, line.start, line.end, line.strand, self._name_of(line))
        values = tuple([line.get(name) for name in self._choice.attributes])
        return Feature(region, (), line.score, line.kind, values, line.number)

    def _name_of(self, line: _Line) -> str:
        """Return the name of a line's feature; lines that follow each other share the text."""
        if self._choice.id_attribute is not None:
            names: tuple[str, ...] = (self._choice.id_attribute,)
        elif line.gtf:
            names = ("gene_id",) if line.kind == "gene" else _GTF_IDS
        else:
            names = _GFF_IDS
        for attribute in names:
            if name := line.get(attribute):
                if name != self._last_name:
                    self._last_name = name
                return self._last_name
        return ""


def _with_parts(feature: Feature, spans: _Spans) -> Feature:
    """Return a feature that consists of the spans of its lines."""
    region, parts = feature.region, spans.parts()
    start, end = parts[0][0], max(end for _, end in parts)
    feature = replace(
        feature,
        region=replace(region, start=start, end=end),
        parts=parts if len(parts) > 1 else (),
    )
    mixed = spans.mixed or (spans.contig, spans.strand) != (region.contig, region.strand)
    return scattered(feature) if mixed else feature


def _parents(line: _Line) -> Iterable[str]:
    parent = line.get("transcript_id" if line.gtf else "Parent", "")
    return (parent,) if line.gtf else parent.split(",")


def _own_id(line: _Line) -> str:
    """Return the name by which exons call a transcript."""
    if line.gtf:
        return line.get("transcript_id", "") if line.kind == "transcript" else ""
    return line.get("ID", "")


def _keys(line: _Line) -> Iterable[str]:
    """Return what the lines of one feature have in common; an exon may belong to several transcripts."""
    if line.gtf:
        name = "gene_id" if line.kind == "gene" else "transcript_id"
        return (line.get(name) or f"line {line.number}",)
    parent = line.get("Parent") if line.kind == "exon" else ""
    return parent.split(",") if parent else (line.get("ID") or line.get("Parent") or f"line {line.number}",)


def _gff_attributes(text: str) -> dict[str, str]:
    r"""Parse column 9 of GFF3.

    >>> _gff_attributes("ID=g1;Note=a%3Bb,c; ")
    {'ID': 'g1', 'Note': 'a;b,c'}
    """
    attributes = dict([item.strip().partition("=")[::2] for item in text.split(";")])
    attributes.pop("", None)
    if "%" in text:
        return {unquote(key): unquote(value) for key, value in attributes.items()}
    return attributes


@cache
def _gtf_pattern(name: str) -> "re.Pattern[str]":
    """Return what finds an attribute of GTF; what it finds within quotes is none, and hides none."""
    key = re.escape(name)  # first, so that `re` looks for it fast
    return re.compile(rf'{key}(?<![^\s;"]{key})(?=\s+{_VALUE})')


def _gtf_attributes(text: str) -> dict[str, str]:
    """Parse column 9 of GTF; values of a key that repeats are joined by commas.

    >>> _gtf_attributes('gene_id "g;1"; level 2; tag "a"; tag "b";')
    {'gene_id': 'g;1', 'level': '2', 'tag': 'a,b'}
    """
    attributes: dict[str, str] = {}
    for key, quoted, plain in _GTF.findall(text):
        value = quoted.replace('""', '"').replace('\\"', '"') or plain
        attributes[key] = f"{attributes[key]},{value}" if key in attributes else value
    return attributes
