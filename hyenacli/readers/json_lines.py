"""Tables as JSON Lines: one object a line, whose keys are the columns (https://jsonlines.org)."""

import io
import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from hyenacli.errors import UserError
from hyenacli.readers.tables import (
    Columns,
    LabelledRecord,
    Table,
    cell_text,
    find_columns,
    read_bases,
    require_column,
    track_or_text,
)
from hyenacli.readers.text import file_format, read_lines

# The keys of this many objects are the columns: writers leave out what is missing.
_OBJECTS = 1000
_REMEDY = "write one object a line, as jq -c '.[]' makes of an array"
_TYPES: dict[type, str] = {dict: "an object", list: "a list"}


def is_json_lines(stream: io.BufferedReader) -> bool:
    """Return whether a stream begins with a JSON object, without taking a byte from it."""
    return file_format(stream) == "JSON" and stream.peek(1).lstrip().startswith(b"{")


def read_json_lines(stream: io.BufferedReader, columns: Columns, *, labelled: bool) -> Table:
    """Read the names of the label columns of JSON Lines, and its records.

    The columns are the keys of the first 1,000 objects. A key that an object lacks, and null, is a missing
    value. A list of numbers as the one label is a number per base, any other list a text of its items with
    commas. Blank lines are skipped. A record without id has its number.

    Args:
        stream: from `open_binary`.
        columns: to read.
        labelled: whether labels are required.

    Raises:
        UserError: a column is missing; while reading, a line is not one JSON object, a label is an object, or
            a split is unknown. The message names file and line.
    """
    name = str(stream.name)
    objects = _objects(stream)
    first = list(islice(objects, _OBJECTS))
    header = list(dict.fromkeys(key for _, values in first for key in values))
    sequence = require_column(header, columns.sequence, "--sequence-column", name)
    indices = find_columns(header, columns, name, labelled=labelled)
    convert = track_or_text if len(indices.labels) == 1 else cell_text

    def records() -> Iterator[LabelledRecord]:
        for number, (line, values) in enumerate(chain(first, objects), 1):
            bases, status, problem = _bases(values.get(header[sequence]))
            record = LabelledRecord(str(number), bases, file=name, line=line, status=status, problem=problem)
            cells = {}
            for index in indices.all():
                value = values.get(header[index])
                if isinstance(value, dict):
                    raise record.error(
                        f"the value of '{header[index]}' is an object", "write text or a number"
                    )
                try:
                    cells[index] = convert(value) if index in indices.labels else cell_text(value)
                except OverflowError:
                    what = f"a number of '{header[index]}' is out of range"
                    raise record.error(what, "write numbers of single precision") from None
            yield indices.complete(record, cells)

    return tuple(header[index] for index in indices.labels), records()


def _objects(stream: io.BufferedReader) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects, each with the 1-based number of its line."""
    for number, line in read_lines(stream):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"the line is no JSON object: {error}"
            raise UserError(what, at=stream.name, line=number, remedy=_REMEDY) from None
        if not isinstance(values, dict):
            raise UserError("the line is no JSON object", at=stream.name, line=number, remedy=_REMEDY)
        yield number, values


def _bases(value: Any) -> tuple[bytes, str, str]:
    """Return what `read_bases` does; a value that cannot be a sequence is named."""
    if type(value) in _TYPES:
        return b"", "BAD_LETTER", f"the sequence is {_TYPES[type(value)]}, not a text"
    return read_bases(cell_text(value).encode())
