"""Labelled sequences as a text table: csv, tsv and other separators, with or without names of columns."""

import csv
import io
from collections.abc import Iterator
from itertools import chain

from hyenacli.errors import UserError
from hyenacli.readers.labelled_record import (
    Columns,
    LabelledRecord,
    Places,
    find_column,
    find_columns,
    needed_column,
    read_bases,
)
from hyenacli.readers.streams import BOM

_DELIMITERS = ("\t", ",", ";", " ")
# A first line with a word of these letters only, this long, is a row and not the columns' names.
_BASES = frozenset("ACGTUNacgtun")
_SHORTEST = 4
# Cells may be whole chromosomes; the largest number that every platform's csv takes.
_CELL_LIMIT = 2**31 - 1
Rows = Iterator[tuple[int, list[str]]]


def read_table(
    stream: io.BufferedReader, columns: Columns, *, labelled: bool
) -> tuple[tuple[str, ...], Iterator[LabelledRecord]]:
    """The names of a table's label columns, and its records.

    The first line names the columns unless it holds a sequence; then the columns are called column1, column2
    and so on, the first sequence in it shows where the sequences are, and the other of two columns is the
    label. Blank lines, and `#` lines above the first row, are skipped. A record without id has its number.

    Args:
        stream: from `open_binary`.
        columns: which columns to take.
        labelled: whether there must be labels.

    Raises:
        UserError: a column is missing; while reading, a line has another number of columns, a letter that is
            no nucleotide code, or a split of no meaning. The message names file and line.
    """
    lines = _lines(stream)
    name = str(stream.name)
    first, delimiter, number = _first_line(lines, columns, name)
    rows = _rows(chain([first], lines), delimiter, number, name)
    header = next(rows)[1]
    header = [cell.strip() for cell in header]
    unnamed = find_column(header, columns.sequence) is None or columns.sequence.isdigit()
    unnamed = unnamed and any(map(is_sequence, header))
    if unnamed:
        rows = chain([(number, header)], rows)
        columns = _guess(header, columns, labelled=labelled)
        header = [f"column{i}" for i in range(1, len(header) + 1)]
    sequence = needed_column(header, columns.sequence, "--sequence-column", name)
    places = find_columns(header, columns, name, labelled=labelled)
    names = tuple(header[place] for place in places.labels)
    return names, _records(rows, len(header), sequence, places, name)


def _lines(stream: io.BufferedReader) -> Iterator[str]:
    """The lines as text, with their ends, which a quoted cell may hold."""
    for number, raw in enumerate(stream, 1):
        line = raw.removeprefix(BOM) if number == 1 else raw
        if b"\r" in line.rstrip(b"\r\n"):
            remedy = "convert the line ends to those of Unix"
            raise UserError("a carriage return inside the line", at=stream.name, line=number, remedy=remedy)
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise UserError("the line is not UTF-8", at=stream.name, line=number) from None


def _first_line(lines: Iterator[str], columns: Columns, name: str) -> tuple[str, str, int]:
    """The first line that is no comment, what separates its columns, and its number."""
    for number, line in enumerate(lines, 1):
        text = line.lstrip("#").lstrip() if line.startswith("#") else line
        for delimiter in _DELIMITERS:
            cells = [cell.strip().strip('"') for cell in text.split(delimiter)]
            if columns.sequence in cells or (text is line and any(map(is_sequence, cells))):
                return text, delimiter, number
        if line.strip() and not line.startswith("#"):
            return line, next((one for one in _DELIMITERS if one in line.strip()), ","), number
    raise UserError("no rows", at=name)


def is_sequence(cell: str) -> bool:
    """Whether a cell can only be a sequence, and no name of a column.

    >>> is_sequence("ACGTN"), is_sequence("tag"), is_sequence("sequence")
    (True, False, False)
    """
    return len(cell) >= _SHORTEST and _BASES.issuperset(cell)


def _guess(cells: list[str], columns: Columns, *, labelled: bool) -> Columns:
    """The columns of a table without names; numbers that were asked for are kept."""
    known = Columns()
    sequence, labels = columns.sequence, columns.labels
    if sequence == known.sequence:
        sequence = str(1 + next(place for place, cell in enumerate(cells) if is_sequence(cell)))
    if labelled and labels == known.labels and len(cells) == 2 and sequence in ("1", "2"):
        labels = (str(3 - int(sequence)),)
    return Columns(sequence, labels, columns.id, columns.group, columns.split)


def _rows(lines: Iterator[str], delimiter: str, number: int, name: str) -> Rows:
    """The rows that are not blank, each with the number of its first line."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = number + reader.line_num
        # The limit is one for the whole process, and others rely on theirs.
        limit = csv.field_size_limit(_CELL_LIMIT)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"cannot be read as a table: {error}", at=name, line=line) from None
        finally:
            csv.field_size_limit(limit)
        if any(map(str.strip, cells)):
            yield line, cells


def _records(rows: Rows, width: int, sequence: int, places: Places, name: str) -> Iterator[LabelledRecord]:
    for count, (line, cells) in enumerate(rows, 1):
        if len(cells) != width:
            what = f"{len(cells)} column{'s' * (len(cells) > 1)} where the table has {width}"
            raise UserError(what, at=name, line=line, remedy="separate all lines' columns alike")
        try:
            bases, status = read_bases(cells[sequence].encode())
            split = places.split_of(cells)
        except ValueError as error:
            raise UserError(str(error), at=name, line=line) from None
        yield LabelledRecord(
            id=str(count) if places.id is None else cells[places.id].strip(),
            sequence=bases,
            label=places.label(cells),
            group=places.group_of(cells),
            split=split,
            file=name,
            line=line,
            status=status,
        )
