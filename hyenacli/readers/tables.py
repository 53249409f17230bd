"""Labelled sequences, and tables of them: text (csv, tsv and other separators) or Parquet."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError, abbreviate, quote
from hyenacli.genome.dna import first_invalid, normalise
from hyenacli.genome.region import Region
from hyenacli.readers.text import bare, is_missing, read_lines

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
_DELIMITERS = ("\t", ",", ";", " ")
# A first line with a word of these letters only, this long, is a row and not the columns' names.
_BASES = frozenset("ACGTUNacgtun")
_MIN_LENGTH = 4
# Cells may be whole chromosomes; the largest number that every platform's csv takes.
_MAX_CELL = 2**31 - 1
# Rows of a Parquet in memory at a time: sequences may be long.
_ROWS = 64


@dataclass(slots=True)
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
        status: "OK", "EMPTY", "BAD_LETTER", "OUT_OF_RANGE" (the region is not inside the contig) or
            "NO_CONTIG" (the genome lacks the contig); unless it is OK there are no bases.
        problem: what is wrong, for messages, where the status says that something is.
    """

    id: str
    sequence: bytes
    label: Label = None
    group: str = ""
    split: str = ""
    region: Region | None = None
    file: str = ""
    line: int = 0
    unit: str = "line"
    status: str = "OK"
    problem: str = ""

    def error(self, what: str, remedy: str | None = None) -> UserError:
        """Return an error about this record, which names file and line."""
        return UserError(what, at=f"{self.file}, {self.unit} {self.line}", remedy=remedy)


Table = tuple[tuple[str, ...], Iterator[LabelledRecord]]
"""The names of a table's label columns, and its records."""


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
    """The 0-based indices of an input's columns; no labels means that the input has none."""

    labels: tuple[int, ...]
    id: int | None
    group: int | None
    split: int | None

    def all(self) -> list[int]:
        """Return the indices of all columns."""
        optional = (self.id, self.group, self.split)
        return [*self.labels, *(index for index in optional if index is not None)]

    def complete(self, record: LabelledRecord, cells: Cells) -> LabelledRecord:
        """Return a record with the id, label, group and split of its row.

        Args:
            record: with the id for an input that has no column for it.
            cells: by column index: text, or for a label a number per base.

        Raises:
            UserError: the split is unknown.
        """

        def text(index: int | None) -> str:
            return "" if index is None or is_missing(cell := str(cells[index])) else cell

        labels: list[Any] = [c if isinstance(c := cells[i], np.ndarray) else text(i) for i in self.labels]
        try:
            split = split_name(text(self.split))
        except ValueError as error:
            raise record.error(str(error)) from None
        return replace(
            record,
            id=record.id if self.id is None else str(cells[self.id]),
            label=tuple(labels) if len(labels) > 1 else labels[0] if labels else None,
            group=text(self.group),
            split=split,
        )


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
        UserError: there is none, and the message lists the columns; or several have its name.
    """
    index = find_column(names, column)
    if index is None:
        raise _missing_column(names, column, flag, file)
    _refuse_same_names(names, column, [index], flag, file)
    return index


def _refuse_same_names(
    names: Sequence[str], column: str, indices: Sequence[int], flag: str, file: str
) -> None:
    """Raise UserError if another column has the name of one that was not chosen by its number."""
    if column not in names and (column.isdigit() or _RANGE.fullmatch(column)):
        return
    for index in indices:
        same = [str(number) for number, name in enumerate(names, 1) if name == names[index]]
        if len(same) > 1:
            what = f"columns {abbreviate(same)} are all called {quote(names[index])}"
            raise UserError(what, at=file, remedy=f"rename all but one, or give its number with {flag}")


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
        UserError: a required column is missing, or several have the name of a column to read.
    """
    labels: list[int] = []
    for column in columns.labels:
        indices = _label_columns(names, column)
        if not indices and labelled:
            raise _missing_column(names, column, "--label-column", file)
        _refuse_same_names(names, column, indices, "--label-column", file)
        labels += indices

    def optional(column: str | None, default: str | None, flag: str) -> int | None:
        if column is None and default and find_column(names, default) is not None:
            column = default
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


def is_split(text: str) -> bool:
    """Return whether a word names a split, as train, validation or testing."""
    return text.casefold() in _SPLITS


def split_name(text: str) -> str:
    """Return the split that a word names; "" for an empty word.

    Raises:
        ValueError: it names none.

    >>> split_name("val"), split_name("Train"), split_name("")
    ('valid', 'train', '')
    """
    if text and not is_split(text):
        raise ValueError(f"split {quote(text)} is none of train, valid and test")
    return _SPLITS[text.casefold()] if text else ""


def read_bases(raw: bytes) -> tuple[bytes, str, str]:
    """Return the normalised sequence, its status, and what is wrong with it.

    >>> read_bases(b" acgu"), read_bases(b"NA")
    ((b'ACGT', 'OK', ''), (b'', 'EMPTY', 'the sequence is empty'))
    >>> read_bases(b"AC-T")
    (b'', 'BAD_LETTER', "'-' (letter 3 of the sequence) is not a nucleotide code")
    """
    bases = b"" if is_missing(raw) else bare(raw)
    position = first_invalid(bases)
    if position >= 0:
        letter = quote(bases[position : position + 4].decode(errors="replace")[:1])
        problem = f"{letter} (letter {position + 1} of the sequence) is not a nucleotide code"
        return b"", "BAD_LETTER", problem
    return (normalise(bases), "OK", "") if bases else (b"", "EMPTY", "the sequence is empty")


def read_text_table(stream: io.BufferedReader, columns: Columns, *, labelled: bool) -> Table:
    """Read the names of a text table's label columns, and its records.

    The first line names the columns unless it holds a sequence; then the columns are called column1, column2
    and so on, the first sequence in it shows the column of sequences, and the other of two columns is the
    label. Blank lines, and `#` lines above the first row, are skipped. A record without id has its number.

    Args:
        stream: from `open_binary`.
        columns: to read.
        labelled: whether labels are required.

    Raises:
        UserError: a column is missing; while reading, a line has another number of columns or an unknown
            split. The message names file and line.
    """
    # csv takes a line break inside quotes from the line ends.
    lines = (line + "\n" for _, line in read_lines(stream))
    name = str(stream.name)
    first, delimiter, number = _first_line(lines, columns, name)
    rows = _rows(chain([first], lines), delimiter, number, name)
    header = next(rows)[1]
    while header and not header[-1]:  # spreadsheets write empty columns beside the table
        header.pop()
    if any(map(is_sequence, header)) and (
        columns.sequence.isdigit() or find_column(header, columns.sequence) is None
    ):
        rows = chain([(number, header)], rows)
        columns = _guess_columns(header, columns, labelled=labelled)
        header = [f"column{i}" for i in range(1, len(header) + 1)]
    sequence = require_column(header, columns.sequence, "--sequence-column", name)
    indices = find_columns(header, columns, name, labelled=labelled)

    def records() -> Iterator[LabelledRecord]:
        for number, (line, cells) in enumerate(rows, 1):
            if len(cells) < len(header) or any(cells[len(header) :]):
                what = f"{len(cells)} column{'s' * (len(cells) > 1)} where the table has {len(header)}"
                raise UserError(what, at=name, line=line, remedy="separate all lines' columns alike")
            bases, status, problem = read_bases(cells[sequence].encode())
            record = LabelledRecord(str(number), bases, file=name, line=line, status=status, problem=problem)
            yield indices.complete(record, cells)

    return tuple(header[index] for index in indices.labels), records()


def _first_line(lines: Iterator[str], columns: Columns, name: str) -> tuple[str, str, int]:
    """Return the first line that is not a comment, the separator of its columns, and its number."""
    for number, line in enumerate(lines, 1):
        text = line.lstrip("#").lstrip() if line.startswith("#") else line
        for delimiter in _DELIMITERS:
            cells = list(map(bare, text.split(delimiter)))
            if columns.sequence in cells or (text is line and any(map(is_sequence, cells))):
                return text, delimiter, number
        if line.strip() and not line.startswith("#"):
            return line, next((mark for mark in _DELIMITERS if mark in line.strip()), ","), number
    raise UserError("no rows", at=name)


def is_sequence(cell: str) -> bool:
    """Return whether a cell can only be a sequence, and not the name of a column.

    >>> is_sequence("ACGTN"), is_sequence("tag"), is_sequence("sequence")
    (True, False, False)
    """
    return len(cell) >= _MIN_LENGTH and _BASES.issuperset(cell)


def _guess_columns(cells: list[str], columns: Columns, *, labelled: bool) -> Columns:
    """Return the columns of a table without names; columns that were given by number are kept."""
    defaults = Columns()
    sequence, labels = columns.sequence, columns.labels
    if sequence == defaults.sequence:
        sequence = str(1 + next(index for index, cell in enumerate(cells) if is_sequence(cell)))
    if labelled and labels == defaults.labels and len(cells) == 2 and sequence in ("1", "2"):
        labels = (str(3 - int(sequence)),)
    return Columns(sequence, labels, columns.id, columns.group, columns.split)


def _rows(lines: Iterator[str], delimiter: str, number: int, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, as bare cells, each with the number of its first line."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = number + reader.line_num
        # The limit is one for the whole process, and others rely on theirs.
        limit = csv.field_size_limit(_MAX_CELL)
        try:
            cells = list(map(bare, next(reader)))
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"cannot be read as a table: {error}", at=name, line=line) from None
        finally:
            csv.field_size_limit(limit)
        if any(cells):
            yield line, cells


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a Parquet file.

    Raises:
        UserError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(str(path), error) from error
    return rows


def read_parquet(source: Path | bytes, name: str, columns: Columns, *, labelled: bool) -> Table:
    """Read the names of a Parquet table's label columns, and its records; other columns are not read.

    A list of numbers in a label column is a number per base; a list of anything else, a text of its items
    with commas. A record without id has its number.

    Args:
        source: the file, or all its bytes.
        name: the file's name in messages.
        columns: to read.
        labelled: whether labels are required.

    Raises:
        UserError: the file is damaged or lacks a column; while reading, a split is unknown.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError, UnicodeDecodeError)
    try:
        table = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source)
    except damage as error:
        raise _damaged(name, error) from None
    header = list(table.schema_arrow.names)
    sequence = require_column(header, columns.sequence, "--sequence-column", name)
    indices = find_columns(header, columns, name, labelled=labelled)
    selected = sorted({sequence, *indices.all()})

    def rows() -> Iterator[tuple[Any, ...]]:
        names = [header[index] for index in selected]
        try:
            for batch in table.iter_batches(_ROWS, columns=names):
                yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        except damage as error:
            raise _damaged(name, error) from None

    def records() -> Iterator[LabelledRecord]:
        with table:
            for number, values in enumerate(rows(), 1):
                row = dict(zip(selected, values, strict=True))
                raw = row[sequence] if isinstance(row[sequence], bytes) else cell_text(row[sequence]).encode()
                cells = {
                    index: track_or_text(row[index]) if indices.labels == (index,) else cell_text(row[index])
                    for index in indices.all()
                }
                bases, status, problem = read_bases(raw)
                record = LabelledRecord(
                    str(number), bases, file=name, line=number, unit="row", status=status, problem=problem
                )
                yield indices.complete(record, cells)

    return tuple(header[index] for index in indices.labels), records()


def _damaged(name: str, error: Exception) -> UserError:
    what = f"cannot be read as Parquet: {str(error).splitlines()[0]}"
    return UserError(what, at=name, remedy="copy or write it again")


def track_or_text(value: Any) -> str | Track:
    """Return a list of numbers as a number per base, and any other value as `cell_text` does."""
    if isinstance(value, list) and all(
        item is None or isinstance(item, bool | int | float) for item in value
    ):
        return np.array([np.nan if item is None else item for item in value], dtype=np.float32)
    return cell_text(value)


def cell_text(value: Any) -> str:
    """Return a value as a text table would have it; a missing value is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return ",".join(map(cell_text, value))
    return bare(str(value).encode(errors="replace").decode())  # JSON may have halves of characters
