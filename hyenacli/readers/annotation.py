"""Features of GFF3, GTF, GenBank and EMBL as regions: recognised by content, and read in file order."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hyenacli.errors import UsageError, UserError, abbreviate, quote
from hyenacli.genome.region import Region, Strand
from hyenacli.readers.annotated import read_annotated
from hyenacli.readers.features import Feature, FeatureChoice, Part, scattered
from hyenacli.readers.gff import GffReader
from hyenacli.readers.text import InputFormat, file_format, sniff_format

_GFF = "a GFF or GTF"
FLAT = ("a GenBank file", "an EMBL file")
"""Files of sequences and of features."""
_STRANDS: dict[int | None, Strand] = {1: "+", -1: "-"}
_IDS = ("locus_tag", "gene", "protein_id", "label", "standard_name")


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
    return name == _GFF or (name in FLAT and bool(choice.types))


def read_features(stream: io.BufferedReader, choice: FeatureChoice) -> list[Feature]:
    """Read the chosen features of an annotation, in file order.

    Raises:
        UsageError: the file has several types of features and none is chosen.
        UserError: a line is not one of GFF, no feature is of a chosen type, or none has a chosen attribute.
    """
    if file_format(stream) == _GFF:
        reader = GffReader(choice, str(stream.name))
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
            join = "; --feature exon --merge-parts exon joins the exons of a transcript" * ("exon" in types)
            raise UserError(f"no feature of type '{kind}'", at=name, remedy=f"it has {listed}{join}")


def _read_flat(
    stream: io.BufferedReader, choice: FeatureChoice
) -> tuple[list[Feature], Counter[str], set[str]]:
    """Read the features of GenBank or EMBL; a part of a feature is a row unless parts are joined."""
    features: list[Feature] = []
    types: Counter[str] = Counter()
    attributes: set[str] = set()
    for entry in read_annotated(stream):
        circle = len(entry.sequence) if entry.circular else 0
        for line, feature in zip(entry.feature_lines, entry.features, strict=True):
            types[feature.type] += 1
            if feature.type not in choice.types:
                continue
            values = {key: ",".join(map(str, texts)) for key, texts in feature.qualifiers.items()}
            attributes.update(values)
            names = _IDS if choice.id_attribute is None else (choice.id_attribute,)
            name = next((values[key] for key in names if values.get(key)), "")
            chosen = tuple(values.get(key, "") for key in choice.attributes)
            try:
                rows = _rows(feature.location.parts, circle, joined=choice.joined)
            except (AttributeError, TypeError):  # no location, or one with an unknown end
                what = f"the location of {feature.type} {quote(name)} cannot be read"
                raise UserError(
                    what, at=entry.file, line=line, remedy="correct or remove the feature"
                ) from None
            for spans, strand, readable in rows:
                start, end = min(start for start, _ in spans), max(end for _, end in spans)
                region = Region(entry.name, start, end, strand, name)
                parts = spans if len(spans) > 1 else ()
                made = Feature(region, parts, ".", feature.type, chosen, line)
                features.append(made if readable else scattered(made))
    return features, types, attributes


def _rows(
    parts: Sequence[Any], circle: int, *, joined: bool
) -> Iterator[tuple[tuple[Part, ...], Strand, bool]]:
    """Yield the spans and the strand of each row of a feature, and whether they can be read as one.

    Args:
        parts: of Biopython, in the order in which they are read.
        circle: length of the contig, 0 if it is none.
        joined: whether all parts are one row.
    """
    strands: list[Strand] = [_STRANDS.get(part.strand, ".") for part in parts]
    here = [part.ref is None for part in parts]
    if len(set(strands)) == 1 and all(here):
        spans = _in_order(parts, strands[0], circle)
        for group in [spans] if joined else [(span,) for span in spans]:
            yield group, strands[0], True
    elif joined:
        yield _in_order(parts, ".", circle), ".", False
    else:
        for part, strand, is_here in zip(parts, strands, here, strict=True):
            yield _in_order([part], strand, circle), strand, is_here


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
