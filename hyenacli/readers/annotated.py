"""Sequences in formats that Biopython reads: GenBank, EMBL and 2bit.

A 2bit file is read at random; the others may be streams.
"""

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from hyenacli.errors import UserError, quote
from hyenacli.readers.text import compression, file_format

AnnotatedFormat = Literal["genbank", "embl", "twobit"]
ANNOTATED: dict[str, AnnotatedFormat] = {
    "a GenBank file": "genbank",
    "an EMBL file": "embl",
    "a 2bit file": "twobit",
}
# The first line of a feature, in EMBL and in GenBank, where lines of bases begin with blanks and a number.
_FEATURE = re.compile(r"FT   \S| {5}(?!\d+ )\S")
_REMEDY = "copy or download it again"
# Bases of a 2bit that are decoded together.
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class AnnotatedSequence:
    """One record.

    Attributes:
        name: accession and version, or else the name of the locus.
        description: its definition, "" for none.
        sequence: of Biopython; see `pieces`.
        file: its name in messages.
        line: its first, 1-based; of a 2bit, the number of the record.
        circular: whether the file calls it circular.
        features: of Biopython.
        feature_lines: the first of each, 1-based.
    """

    name: str
    description: str
    sequence: Any
    file: str
    line: int
    circular: bool = False
    features: tuple[Any, ...] = ()
    feature_lines: tuple[int, ...] = ()

    def pieces(self) -> Iterator[bytes]:
        """Yield the bases, in the case of the file (of 2bit, lower where it is masked).

        Raises:
            UserError: the file is damaged.
        """
        for start in range(0, len(self.sequence), _PIECE):
            try:
                piece = bytes(self.sequence[start : start + _PIECE])
            except Exception as error:  # Biopython reads the bases of a 2bit only now
                what = f"the bases of record {quote(self.name)} cannot be read: {error}"
                raise UserError(what, at=self.file, remedy=_REMEDY) from error
            yield piece


def read_annotated(stream: io.BufferedReader) -> Iterator[AnnotatedSequence]:
    """Read the records of a GenBank, EMBL or 2bit file, in order.

    Raises:
        UserError: the file is damaged, a record has no bases in it (as where CONTIG stands for ORIGIN), or
            their number is not that of its first line.
    """
    name, kind = str(stream.name), ANNOTATED[file_format(stream)]
    if kind == "twobit":
        if not Path(name).is_file() or compression(Path(name)) != "plain":
            what = "a 2bit file is read at random, not from a pipe or gzip"
            raise UserError(what, at=name, remedy="decompress it")
        with Path(name).open("rb") as file:
            yield from _records(file, kind, name)
        return
    text = _NumberedText(stream, "utf-8", "replace")
    try:
        yield from _records(text, kind, name)
    finally:
        text.detach()  # the stream is the caller's


def _records(source: Any, kind: AnnotatedFormat, name: str) -> Iterator[AnnotatedSequence]:
    from Bio import SeqIO

    records: Iterator[Any] = iter(())
    for number in count():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if number == 0:
                    records = SeqIO.parse(source, kind)  # type: ignore[no-untyped-call]
                record = next(records, None)
            except Exception as error:  # whatever Biopython makes of damaged data
                what = f"record {number + 1} cannot be read as {kind}: {error!r}"
                raise UserError(what, at=name, remedy=f"{_REMEDY}, or convert it to FASTA") from error
        if record is None and number == 0 and kind == "twobit":
            raise UserError("a 2bit without a sequence: it is cut short", at=name, remedy=_REMEDY)
        if record is None:
            return
        for warning in caught:
            if (message := str(warning.message)).startswith("Expected sequence length"):
                found = message.rstrip(".")
                what = f"record {quote(record.name)} is not of the length in its first line: {found}"
                raise UserError(what, at=name, remedy=_REMEDY)
        first = source.firsts[number] if isinstance(source, _NumberedText) else [number + 1]
        yield _checked(record, kind, name, first)


class _NumberedText(io.TextIOWrapper):
    """A GenBank or EMBL file, of which Biopython does not say on which lines things are.

    Attributes:
        firsts: of each record, the numbers of its first line and of the first lines of its features.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.firsts: list[list[int]] = []
        self._number = 0

    def readline(self, _size: int = -1) -> str:  # type: ignore[override]
        """Read a line, and keep its number where it begins a record or a feature."""
        line = super().readline()
        self._number += 1
        if line.startswith(("LOCUS ", "ID   ")):
            self.firsts.append([self._number])
        elif self.firsts and _FEATURE.match(line):
            self.firsts[-1].append(self._number)
        return line


def _checked(record: Any, kind: AnnotatedFormat, file: str, first: list[int]) -> AnnotatedSequence:
    if kind == "twobit":
        return AnnotatedSequence(record.id, "", record.seq, file, first[0])
    name = record.id if record.id not in ("", "<unknown id>", ".") else record.name
    try:
        bytes(record.seq[:1])
    except Exception:  # Bio.Seq.UndefinedSequenceError, which older versions lack
        what = f"record {quote(name)} has no bases in this file"
        remedy = 'download it with its sequence ("GenBank (full)"), not only the list of its contigs'
        raise UserError(what, at=file, remedy=remedy) from None
    circular = str(record.annotations.get("topology", "")).lower() == "circular"
    description = "" if record.description == "<unknown description>" else record.description
    features = tuple(record.features)
    lines = first[1:] if len(first) == 1 + len(features) else first[:1] * len(features)
    return AnnotatedSequence(name, description, record.seq, file, first[0], circular, features, tuple(lines))
