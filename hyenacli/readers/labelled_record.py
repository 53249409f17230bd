"""Records of labelled sequences, and the columns of an input that hold their parts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError, abbreviate
from hyenacli.genome.dna import first_invalid, normalise
from hyenacli.genome.region import Region
from hyenacli.readers.text import is_missing

Track = NDArray[np.float32]
"""One number per base (L,), NaN where there is none."""
Label = str | tuple[str, ...] | Track | None
"""The text of one label column, the texts of several, a number per base, or None where there is no label."""
Cells = Sequence[str] | Mapping[int, str | Track]

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
        id: its name in the input, or else its 1-based number or its region.
        sequence: normalised bases (upper-case A C G T N), of the region's strand if it has a region.
        label: as written; None where the input has none.
        group: sequences of one group belong into one split; "" for no group.
        split: "train", "valid", "test", or "" where the input names none.
        region: its region, with the genome's contig name where the genome has the contig.
        file: the input's name in messages.
        line: its 1-based line or row.
        unit: "line" or "row".
        status: "OK", "EMPTY" (no bases) or "NO_CONTIG" (the genome lacks the contig, so no bases).
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
        """Return an error about this record, which names file and line."""
        return _error_at(self.file, self.line, self.unit, what, remedy)


@dataclass(frozen=True)
class Columns:
    """The columns of a table or a BED to read, by name or by 1-based number.

    Names are compared as written, then without regard to case. A BED has the names of its format (chrom,
    start, end, name, score, strand, ...).

    Attributes:
        sequence: the bases.
        labels: one or several labels; patterns (`profile_*`) and ranges of numbers (`7-925`) are taken too.
        id: names of the records; None for a column `id` if the input has one.
        group: groups that splits keep together; None for no groups.
        split: train, valid or test; None for a column `split` if the input has one, "" for no column.
    """

    sequence: str = "sequence"
    labels: tuple[str, ...] = ("label",)
    id: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class ColumnIndices:
    """The 0-based indices of an input's columns; no labels means that the input has none.

    The methods take the cells of a row by column index: text, or for a label a number per base.
    """

    labels: tuple[int, ...]
    id: int | None
    group: int | None
    split: int | None

    def all(self) -> list[int]:
        """Return the indices of all columns."""
        optional = (self.id, self.group, self.split)
        return [*self.labels, *(index for index in optional if index is not None)]

    def label_of(self, cells: Cells) -> Label:
        """Return the label of a row."""
        labels = [_stripped(cells[index]) for index in self.labels]
        return tuple(labels) if len(labels) > 1 else labels[0] if labels else None

    def group_of(self, cells: Cells) -> str:
        """Return the group of a row, "" for none."""
        return "" if self.group is None else _optional(cells[self.group])

    def split_of(self, cells: Cells) -> str:
        """Return the split of a row, "" for none.

        Raises:
            ValueError: the cell names no split.
        """
        return "" if self.split is None else split_name(_optional(cells[self.split]))

    def record(
        self, cells: Cells, raw: bytes, number: int, *, file: str, line: int, unit: str = "line"
    ) -> LabelledRecord:
        """Return the record of a table's row.

        Args:
            cells: of the row.
            raw: its sequence as written.
            number: of the record, its id where there is no column for it.
            file: the table's name in messages.
            line: 1-based line or row.
            unit: "line" or "row".

        Raises:
            UserError: a letter is not a nucleotide code, or the split is unknown.
        """
        try:
            bases, status = read_bases(raw)
            split = self.split_of(cells)
        except ValueError as error:
            raise _error_at(file, line, unit, str(error)) from None
        identity = str(number) if self.id is None else str(cells[self.id]).strip()
        label, group = self.label_of(cells), self.group_of(cells)
        return LabelledRecord(
            identity, bases, label, group, split, file=file, line=line, unit=unit, status=status
        )


def _stripped(cell: Any) -> Any:
    if isinstance(cell, str):
        return "" if is_missing(cell) else cell.strip()
    return cell


def _optional(cell: Any) -> str:
    return "" if is_missing(str(cell)) else str(cell).strip()


def _error_at(file: str, line: int, unit: str, what: str, remedy: str | None = None) -> UserError:
    if unit == "line":
        return UserError(what, at=file, line=line, remedy=remedy)
    return UserError(what, at=f"{file}, {unit} {line}", remedy=remedy)


def find_column(names: Sequence[str], column: str) -> int | None:
    """Return the 0-based index of a column given by name or 1-based number, None where there is none.

    >>> find_column(["id", "Label"], "label"), find_column(["id", "Label"], "1"), find_column(["id"], "x")
    (1, 0, None)
    """
    if column in names:
        return names.index(column)
    same_letters = [index for index, name in enumerate(names) if name.casefold() == column.casefold()]
    if len(same_letters) == 1:
        return same_letters[0]
    if column.isascii() and column.isdigit() and 0 < int(column) <= len(names):
        return int(column) - 1
    return None


def require_column(names: Sequence[str], column: str, flag: str, file: str) -> int:
    """Return the 0-based index of a column.

    Raises:
        UserError: there is none; the message lists the columns.
    """
    index = find_column(names, column)
    if index is None:
        raise _missing_column(names, column, flag, file)
    return index


def _missing_column(names: Sequence[str], column: str, flag: str, file: str) -> UserError:
    remedy = f"the columns are {abbreviate(names, 12)}: name one with {flag}"
    return UserError(f"no column '{column}'", at=file, remedy=remedy)


def find_columns(names: Sequence[str], columns: Columns, file: str, *, labelled: bool) -> ColumnIndices:
    """Return the indices of the columns to read, without that of the sequence.

    Args:
        names: of the input's columns.
        columns: to read.
        file: the input's name in messages.
        labelled: whether labels are required; otherwise missing label columns are left out.

    Raises:
        UserError: a required column is missing.
    """
    labels: list[int] = []
    for column in columns.labels:
        indices = _label_columns(names, column)
        if not indices and labelled:
            raise _missing_column(names, column, "--label-column", file)
        labels += indices

    def optional(column: str | None, default: str | None, flag: str) -> int | None:
        if column is None:
            return find_column(names, default) if default else None
        return require_column(names, column, flag, file) if column else None

    return ColumnIndices(
        tuple(dict.fromkeys(labels)),
        optional(columns.id, "id", "--id-column"),
        optional(columns.group, None, "--group-column"),
        optional(columns.split, "split", "--split-column"),
    )


def _label_columns(names: Sequence[str], column: str) -> list[int]:
    index = find_column(names, column)
    if index is not None:
        return [index]
    limits = _RANGE.fullmatch(column)
    if limits:
        first, last = int(limits[1]), int(limits[2])
        return list(range(first - 1, last)) if first > 0 and last <= len(names) else []
    return [index for index, name in enumerate(names) if fnmatchcase(name, column)]


def split_name(text: str) -> str:
    """Return the split that a word names; "" for an empty word.

    Raises:
        ValueError: it names none.

    >>> split_name("val"), split_name("Train"), split_name("")
    ('valid', 'train', '')
    """
    if text and text.casefold() not in _SPLITS:
        raise ValueError(f"split '{text}' is none of train, valid and test")
    return _SPLITS[text.casefold()] if text else ""


def read_bases(raw: bytes) -> tuple[bytes, str]:
    """Return the normalised sequence and its status.

    Raises:
        ValueError: a letter is not a nucleotide code; the message names its 1-based position.

    >>> read_bases(b" acgu"), read_bases(b"NA")
    ((b'ACGT', 'OK'), (b'', 'EMPTY'))
    """
    bases = b"" if is_missing(raw) else raw.strip()
    position = first_invalid(bases)
    if position >= 0:
        letter = chr(bases[position])
        raise ValueError(f"{letter!r} (letter {position + 1} of the sequence) is not a nucleotide code")
    return normalise(bases), "OK" if bases else "EMPTY"
