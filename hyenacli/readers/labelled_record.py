"""Sequences with labels: one record of any input, and which columns of an input hold what."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.genome.dna import first_invalid, normalise
from hyenacli.genome.names import abbreviate
from hyenacli.genome.region import Region

Track = NDArray[np.float32]
"""One number per base (L,), NaN where there is none."""
Label = str | tuple[str, ...] | Track | None
"""The text of one label column, the texts of several, a number per base, or None where there is no label."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_RANGE = re.compile(r"(\d+)-(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class LabelledRecord:
    """One sequence.

    Attributes:
        id: what the input calls it, or else its 1-based number or its region.
        sequence: normalised bases (upper-case A C G T N), of the region's strand where there is one.
        label: as written; None where the input has none.
        group: sequences of one group belong into one split; '' for no group.
        split: 'train', 'valid', 'test', or '' where the input does not say.
        region: where it lies, with the genome's contig name where the genome has it.
        file: what messages call the input.
        line: its 1-based line, or row where `unit` says so.
        status: 'OK', 'EMPTY' (no bases) or 'NO_CONTIG' (not on the genome, hence no bases).
    """

    id: str
    sequence: bytes
    label: Label
    group: str = ""
    split: str = ""
    region: Region | None = None
    file: str = ""
    line: int = 0
    unit: str = "line"
    status: str = "OK"

    def error(self, what: str, remedy: str | None = None) -> UserError:
        """An error about this record, which names file and line."""
        return error_at(self.file, self.line, self.unit, what, remedy)


def error_at(file: str, line: int, unit: str, what: str, remedy: str | None = None) -> UserError:
    """An error about line `line`, or row where `unit` says so, of a file."""
    if unit == "line":
        return UserError(what, at=file, line=line, remedy=remedy)
    return UserError(what, at=f"{file}, {unit} {line}", remedy=remedy)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table or a BED hold what, by name or by 1-based number.

    Names are compared as written, then without regard to case. A BED has the names of its format (chrom,
    start, end, name, score, strand, ...).

    Attributes:
        sequence: the bases.
        labels: one or several labels; patterns (`profile_*`) and ranges of numbers (`7-925`) are taken too.
        id: names of the records; None for a column `id` if there is one.
        group: what must not be torn apart by splits; None for no groups.
        split: train, valid or test; None for a column `split` if there is one, '' for none.
    """

    sequence: str = "sequence"
    labels: tuple[str, ...] = ("label",)
    id: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Places:
    """The 0-based places of the columns that an input has; no labels means that it has none of them."""

    labels: tuple[int, ...]
    id: int | None
    group: int | None
    split: int | None

    def label(self, cells: Sequence[str]) -> Label:
        """The label of a row."""
        if not self.labels:
            return None
        if len(self.labels) == 1:
            return cells[self.labels[0]].strip()
        return tuple(cells[place].strip() for place in self.labels)

    def group_of(self, cells: Sequence[str]) -> str:
        """The group of a row, '' where there are none."""
        return "" if self.group is None else cells[self.group].strip()

    def split_of(self, cells: Sequence[str]) -> str:
        """The split of a row, '' where it has none.

        Raises:
            ValueError: there is no such split.
        """
        return "" if self.split is None else split_name(cells[self.split].strip())


def find_column(names: Sequence[str], wanted: str) -> int | None:
    """The 0-based place of a column, None where there is none.

    >>> find_column(["id", "Label"], "label"), find_column(["id", "Label"], "1"), find_column(["id"], "x")
    (1, 0, None)
    """
    if wanted in names:
        return names.index(wanted)
    alike = [place for place, name in enumerate(names) if name.casefold() == wanted.casefold()]
    if len(alike) == 1:
        return alike[0]
    if wanted.isascii() and wanted.isdigit() and 0 < int(wanted) <= len(names):
        return int(wanted) - 1
    return None


def needed_column(names: Sequence[str], wanted: str, flag: str, file: str) -> int:
    """The 0-based place of a column.

    Raises:
        UserError: there is none; lists those there are.
    """
    place = find_column(names, wanted)
    if place is None:
        raise missing_column(names, wanted, flag, file)
    return place


def missing_column(names: Sequence[str], wanted: str, flag: str, file: str) -> UserError:
    """The error that a column is not there, with those that are."""
    there = f"the columns are {abbreviate(names, 12)}"
    return UserError(f"no column '{wanted}'", at=file, remedy=f"{there}: name one with {flag}")


def find_columns(names: Sequence[str], columns: Columns, file: str, *, labelled: bool) -> Places:
    """Where an input has what `columns` asks for, the sequence aside.

    Args:
        names: of the input's columns.
        columns: what is asked for.
        file: what messages call the input.
        labelled: whether it must have labels; otherwise they are found where they are.

    Raises:
        UserError: a column that was asked for is not there.
    """
    labels: list[int] = []
    for wanted in columns.labels:
        found = _label_columns(names, wanted)
        if not found and labelled:
            raise missing_column(names, wanted, "--label-column", file)
        labels += found
    asked = {"--id-column": columns.id, "--group-column": columns.group, "--split-column": columns.split}
    places = [needed_column(names, name, flag, file) if name else None for flag, name in asked.items()]
    identity = find_column(names, "id") if columns.id is None else places[0]
    split = find_column(names, "split") if columns.split is None else places[2]
    return Places(tuple(dict.fromkeys(labels)), identity, places[1], split)


def _label_columns(names: Sequence[str], wanted: str) -> list[int]:
    place = find_column(names, wanted)
    if place is not None:
        return [place]
    limits = _RANGE.fullmatch(wanted)
    if limits:
        first, last = int(limits[1]), int(limits[2])
        return list(range(first - 1, last)) if first > 0 and last <= len(names) else []
    return [place for place, name in enumerate(names) if fnmatchcase(name, wanted)]


def split_name(text: str) -> str:
    """The split that a word means; '' for none.

    Raises:
        ValueError: it means none.

    >>> split_name("val"), split_name("Train"), split_name("")
    ('valid', 'train', '')
    """
    if text and text.casefold() not in _SPLITS:
        raise ValueError(f"split '{text}' is none of train, valid and test")
    return _SPLITS[text.casefold()] if text else ""


def read_bases(raw: bytes) -> tuple[bytes, str]:
    """The normalised sequence and its status.

    Raises:
        ValueError: some letter is no nucleotide code; names it and its 1-based position.

    >>> read_bases(b" acgu"), read_bases(b"")
    ((b'ACGT', 'OK'), (b'', 'EMPTY'))
    """
    bases = raw.strip()
    place = first_invalid(bases)
    if place >= 0:
        letter = chr(bases[place])
        raise ValueError(f"{letter!r} (letter {place + 1} of the sequence) is not a nucleotide code")
    return normalise(bases), "OK" if bases else "EMPTY"
