"""Labelled sequences as a table: text (csv, tsv and other separators) or Parquet."""

import csv
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.errors import UserError
from hyenacli.readers.labelled_record import (
    ColumnIndices,
    Columns,
    LabelledRecord,
    Track,
    find_column,
    find_columns,
    require_column,
)
from hyenacli.readers.text import bare, read_lines

_DELIMITERS = ("\t", ",", ";", " ")
# A first line with a word of these letters only, this long, is a row and not the columns' names.
_BASES = frozenset("ACGTUNacgtun")
_MIN_LENGTH = 4
# Cells may be whole chromosomes; the largest number that every platform's csv takes.
_MAX_CELL = 2**31 - 1
# Rows of a Parquet in memory at a time: sequences may be long.
_ROWS = 64
Rows = Iterator[tuple[int, list[str]]]
Table = tuple[tuple[str, ...], Iterator[LabelledRecord]]
"""The names of a table's label columns, and its records."""


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
        UserError: a column is missing; while reading, a line has another number of columns, a letter that is
            not a nucleotide code, or an unknown split. The message names file and line.
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
    label_names = tuple(header[index] for index in indices.labels)
    return label_names, _text_records(rows, len(header), sequence, indices, name)


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


def _rows(lines: Iterator[str], delimiter: str, number: int, name: str) -> Rows:
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


def _text_records(
    rows: Rows, width: int, sequence: int, indices: ColumnIndices, name: str
) -> Iterator[LabelledRecord]:
    for number, (line, cells) in enumerate(rows, 1):
        if len(cells) < width or any(cells[width:]):
            what = f"{len(cells)} column{'s' * (len(cells) > 1)} where the table has {width}"
            raise UserError(what, at=name, line=line, remedy="separate all lines' columns alike")
        yield indices.record(cells, cells[sequence].encode(), number, file=name, line=line)


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
        UserError: the file is damaged or lacks a column; while reading, a letter is not a nucleotide code, or
            a split is unknown. The message names file and row.
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
                raw = row[sequence] if isinstance(row[sequence], bytes) else _text(row[sequence]).encode()
                cells = {
                    index: _track_or_text(value) if indices.labels == (index,) else _text(value)
                    for index, value in row.items()
                    if index in indices.all()
                }
                yield indices.record(cells, raw, number, file=name, line=number, unit="row")

    return tuple(header[index] for index in indices.labels), records()


def _damaged(name: str, error: Exception) -> UserError:
    what = f"cannot be read as Parquet: {str(error).splitlines()[0]}"
    return UserError(what, at=name, remedy="copy or write it again")


def _track_or_text(value: Any) -> str | Track:
    if isinstance(value, list) and all(
        item is None or isinstance(item, bool | int | float) for item in value
    ):
        return np.array([np.nan if item is None else item for item in value], dtype=np.float32)
    return _text(value)


def _text(value: Any) -> str:
    """Return a value as a text table would have it; a missing value is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return bare(str(value))
