"""Tables as text: a line per row, and in a shard a line above and one below them that joining takes out."""

import gzip
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from hyenacli.writers.columns import Batch, BufferedTableWriter, Column, TableWriter

SHARD_MARK = "# hyena shard "
SHARD_END = b"# end of hyena shard\n"
_BLANKS = str.maketrans("\t\n\r", "   ")


class _Tsv:
    """One line per row; a missing float is empty, and what would break the lines of a text is a blank.

    Only a shard says what it is, in a line before the header, and one at the end, that joining takes out.
    """

    def __init__(self, stream: TextIO, columns: Sequence[Column], provenance: Mapping[str, Any]) -> None:
        self.stream, self.columns = stream, columns
        self.stream.writelines(line.decode() for line in shard_mark(provenance))
        titles = (title.translate(_BLANKS) for column in columns for title in column.titles)
        self.stream.write("\t".join(titles) + "\n")

    def write(self, batch: Batch) -> None:
        cells = [_cells(column, batch[column.name]) for column in self.columns]
        self.stream.writelines("\t".join(row) + "\n" for row in zip(*cells, strict=True))


@contextmanager
def rows_of(
    stream: TextIO, columns: Sequence[Column], provenance: Mapping[str, Any]
) -> Iterator[TableWriter]:
    """Rows as lines of a text."""
    rows = BufferedTableWriter(_Tsv(stream, columns, provenance))
    yield rows
    rows.flush()
    stream.write(shard_end(provenance).decode())


def shard_mark(provenance: Mapping[str, Any]) -> list[bytes]:
    """The line with which a TSV begins that is a shard; no line for another."""
    return [f"{SHARD_MARK}{json.dumps(provenance)}\n".encode()] if "shard" in provenance else []


def shard_end(provenance: Mapping[str, Any]) -> bytes:
    """The line with which it ends, so that one that was cut short is known; nothing for another."""
    return SHARD_END if "shard" in provenance else b""


def _cells(column: Column, values: Any) -> Iterator[str]:
    if column.type is str:
        return (value.translate(_BLANKS) for value in values)
    if column.type is int:
        return map(str, values)
    number = f"%.{column.digits}g"
    if not column.width:
        return ("" if math.isnan(value) else number % value for value in np.ravel(values).tolist())
    template, missing = "\t".join([number] * column.width), "\t" * (column.width - 1)
    rows = map(np.atleast_1d, values)
    return (missing if np.isnan(row).all() else template % tuple(row.tolist()) for row in rows)


@contextmanager
def open_text(path: Path, kind: str) -> Iterator[TextIO]:
    """A text file to write, of lines that end in a newline; kinds that end in gz are compressed."""
    if not kind.endswith("gz"):
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    # No name and no time in the gzip header: equal tables are equal files.
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as stream,
    ):
        yield stream


@contextmanager
def open_tsv(
    kind: str, path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
) -> Iterator[TableWriter]:
    """Open a table as text, tsv or tsv.gz."""
    with open_text(path, kind) as stream, rows_of(stream, columns, provenance) as rows:
        yield rows
