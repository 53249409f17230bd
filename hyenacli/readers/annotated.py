"""Sequences in formats that Biopython reads: GenBank, EMBL and 2bit.

A 2bit file is read at random; the others may be streams.
"""

import io
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
        circular: whether the file calls it circular.
        features: of Biopython.
    """

    name: str
    description: str
    sequence: Any
    file: str
    circular: bool = False
    features: tuple[Any, ...] = ()

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
    text = io.TextIOWrapper(stream, "utf-8", "replace")
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
        if record is None:
            return
        for warning in caught:
            if (message := str(warning.message)).startswith("Expected sequence length"):
                found = message.rstrip(".")
                what = f"record {quote(record.name)} is not of the length in its first line: {found}"
                raise UserError(what, at=name, remedy=_REMEDY)
        yield _checked(record, kind, name)


def _checked(record: Any, kind: AnnotatedFormat, file: str) -> AnnotatedSequence:
    if kind == "twobit":
        return AnnotatedSequence(record.id, "", record.seq, file)
    name = record.id if record.id not in ("", "<unknown id>", ".") else record.name
    try:
        bytes(record.seq[:1])
    except Exception:  # Bio.Seq.UndefinedSequenceError, which older versions lack
        what = f"record {quote(name)} has no bases in this file"
        remedy = 'download it with its sequence ("GenBank (full)"), not only the list of its contigs'
        raise UserError(what, at=file, remedy=remedy) from None
    circular = str(record.annotations.get("topology", "")).lower() == "circular"
    description = "" if record.description == "<unknown description>" else record.description
    return AnnotatedSequence(name, description, record.seq, file, circular, tuple(record.features))
