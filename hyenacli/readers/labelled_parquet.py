"""Labelled sequences as a Parquet table."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyenacli.errors import UserError
from hyenacli.readers.labelled_record import (
    Columns,
    Label,
    LabelledRecord,
    Places,
    error_at,
    find_columns,
    needed_column,
    read_bases,
    split_name,
)

# Rows in memory at a time: sequences may be long.
_ROWS = 64
# What reading a damaged file may raise.
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


def read_parquet(
    source: Path | bytes, name: str, columns: Columns, *, labelled: bool
) -> tuple[tuple[str, ...], Iterator[LabelledRecord]]:
    """The names of a table's label columns, and its records; only the columns that are needed are read.

    A list of numbers in a label column is a number per base; of anything else, a text of its items with
    commas. A record without id has its number.

    Args:
        source: the file, or all its bytes.
        name: what messages call it.
        columns: which columns to take.
        labelled: whether there must be labels.

    Raises:
        UserError: the file is damaged or lacks a column; while reading, a sequence has a letter that is no
            nucleotide code, or a split has no meaning. The message names file and row.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source)
    except _DAMAGE as error:
        raise _damaged(name, error) from None
    header = list(table.schema_arrow.names)
    sequence = needed_column(header, columns.sequence, "--sequence-column", name)
    places = find_columns(header, columns, name, labelled=labelled)
    names = tuple(header[place] for place in places.labels)
    return names, _records(table, header, sequence, places, name)


def _records(
    table: pq.ParquetFile, header: list[str], sequence: int, places: Places, name: str
) -> Iterator[LabelledRecord]:
    others = [place for place in (places.id, places.group, places.split) if place is not None]
    wanted = sorted({sequence, *places.labels, *others})
    numbers = count(1)
    with table:
        for cells in _rows(table, [header[place] for place in wanted], name):
            row = dict(zip(wanted, cells, strict=True))
            yield _record(row, sequence, places, name, next(numbers))


def _rows(table: pq.ParquetFile, columns: list[str], name: str) -> Iterator[tuple[Any, ...]]:
    try:
        for batch in table.iter_batches(_ROWS, columns=columns):
            yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
    except _DAMAGE as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> UserError:
    what = f"cannot be read as Parquet: {str(error).splitlines()[0]}"
    return UserError(what, at=name, remedy="copy or write it again")


def _record(row: dict[int, Any], sequence: int, places: Places, name: str, number: int) -> LabelledRecord:
    raw = row[sequence]
    cells = {place: _text(value) for place, value in row.items() if place not in (sequence, *places.labels)}
    try:
        bases, status = read_bases(raw if isinstance(raw, bytes) else _text(raw).encode())
        split = "" if places.split is None else split_name(cells[places.split])
    except ValueError as error:
        raise error_at(name, number, "row", str(error)) from None
    return LabelledRecord(
        id=str(number) if places.id is None else cells[places.id],
        sequence=bases,
        label=_label([row[place] for place in places.labels]),
        group="" if places.group is None else cells[places.group],
        split=split,
        file=name,
        line=number,
        unit="row",
        status=status,
    )


def _label(values: list[Any]) -> Label:
    if not values:
        return None
    if len(values) > 1:
        return tuple(map(_text, values))
    value = values[0]
    if isinstance(value, list) and all(
        item is None or isinstance(item, bool | int | float) for item in value
    ):
        return np.array([np.nan if item is None else item for item in value], dtype=np.float32)
    return _text(value)


def _text(value: Any) -> str:
    """A value as a text table would have it; a missing one is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).strip()
