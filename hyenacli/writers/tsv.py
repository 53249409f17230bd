"""Text formats: TSV tables, and what they share with bedGraph.

Only a shard tells what it is, in a first line, and in a last one that shows that it is whole; merging removes
both.
"""

import gzip
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from hyenacli.errors import UserError
from hyenacli.readers.text import compression, open_binary
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columns import (
    Batch,
    BufferedTableWriter,
    Column,
    FileFormat,
    Head,
    TableFormat,
    TableWriter,
)

_SHARD_MARK = b"# hyena shard "
_SHARD_END = b"# end of hyena shard\n"
_LINES_AT_ONCE = 256
_BLANKS = str.maketrans("\t\n\r", "   ")
WriteBytes = Callable[[bytes], object]


class ByteWriter(Protocol):
    """A file that takes bytes."""

    def write(self, data: bytes) -> object:
        """Append bytes."""


# Opens (a path, what messages call it).
Packer = Callable[[Path, Path], AbstractContextManager[ByteWriter]]


@contextmanager
def open_plain(path: Path, _target: Path) -> Iterator[ByteWriter]:
    """Open a file that is not compressed."""
    with path.open("wb", buffering=1 << 18) as file:
        yield file


@contextmanager
def open_gzip(path: Path, _target: Path) -> Iterator[ByteWriter]:
    """Open a gzip file without a name and a time in its header: equal tables are equal files."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        yield packed


@dataclass(frozen=True, kw_only=True)
class TextFormat(FileFormat):
    """A format of lines, whose shards are merged by copying them.

    Attributes:
        mark: begins a shard; the provenance follows it, as JSON.
        titles: lines above the records, 0 or 1.
        pack: opens the file, compressed or not.
    """

    mark: bytes
    titles: int = 0
    pack: Packer = open_plain

    @contextmanager
    def open_lines(self, target: Path) -> Iterator[WriteBytes]:
        """Open a file for writing lines, `-` for stdout; it appears, whole, when the context ends well.

        Raises:
            UserError: as `atomic_path`.
        """
        if str(target) == "-":
            yield sys.stdout.buffer.write
            sys.stdout.buffer.flush()
            return
        with atomic_path(target) as path, self.pack(path, target) as file:
            yield file.write

    @contextmanager
    def open_records(self, target: Path, provenance: Mapping[str, Any]) -> Iterator[WriteBytes]:
        """Open a file for writing lines, between the two that a shard has around them.

        Raises:
            UserError: as `atomic_path`.
        """
        with self.open_lines(target) as write:
            write(b"".join(shard_mark(provenance, self.mark)))
            yield write
            write(shard_end(provenance))

    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file is a shard of this format."""
        packed = compression(path) != "plain"
        return start.startswith(self.mark) and packed == self.suffix.endswith(".gz")

    def head(self, path: Path) -> Head:
        """Read provenance and titles of a shard."""
        with open_binary(path) as stream:
            first = stream.readline()
            if not first.startswith(self.mark):
                return Head([], {})
            provenance = json.loads(first.removeprefix(self.mark))
            titles = b"".join(islice(stream, self.titles)).decode().rstrip("\n")
        return Head(titles.split("\t") if self.titles else [], provenance)

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the lines of all shards below the titles of the first.

        Raises:
            UserError: a shard is cut short.
        """
        with self.open_records(target, provenance) as write:
            for number, path in enumerate(paths):
                with open_binary(path) as stream:
                    stream.readline()
                    titles = b"".join(islice(stream, self.titles))
                    write(titles if number == 0 else b"")
                    for line in _shard_lines(stream, path):
                        write(line)


def shard_mark(provenance: Mapping[str, Any], mark: bytes = _SHARD_MARK) -> list[bytes]:
    """Return the first line of a text that is a shard; no line for another text."""
    return [mark + json.dumps(provenance).encode() + b"\n"] if "shard" in provenance else []


def shard_end(provenance: Mapping[str, Any]) -> bytes:
    """Return the last line of a shard, which shows that it is whole; nothing for another text."""
    return _SHARD_END if "shard" in provenance else b""


def _shard_lines(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the lines of a shard without the last, which shows that it is whole.

    Raises:
        UserError: it is not whole.
    """
    last = b""
    for line in stream:
        if last:
            yield last
        last = line
    if last != _SHARD_END:
        raise UserError("is cut short", at=path, remedy="make this shard again, or copy it again")


def write_lines(write: WriteBytes, lines: Iterable[str], at_once: int = _LINES_AT_ONCE) -> None:
    """Write lines, many at a time."""
    lines = iter(lines)
    while block := "".join(islice(lines, at_once)):
        write(block.encode())


@dataclass(frozen=True, kw_only=True)
class TsvFormat(TextFormat, TableFormat):
    """Tab-separated tables: a line per row, a missing float is empty, and tabs and line ends are blanks."""

    mark: bytes = _SHARD_MARK
    titles: int = 1
    bytes_per_number: int = 12

    @contextmanager
    def open(
        self, target: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
    ) -> Iterator[TableWriter]:
        """Open a table for writing, `-` for stdout.

        Raises:
            UserError: as `atomic_path`.
        """
        with self.open_records(target, provenance) as write:
            titles = (title.translate(_BLANKS) for column in columns for title in column.titles)
            write("\t".join(titles).encode() + b"\n")
            rows = BufferedTableWriter(_TsvWriter(write, columns))
            yield rows
            rows.flush()


class _TsvWriter:
    def __init__(self, write: WriteBytes, columns: Sequence[Column]) -> None:
        self._write, self._columns = write, columns

    def write(self, batch: Batch) -> None:
        cells = [_cells(column, batch[column.name]) for column in self._columns]
        write_lines(self._write, ("\t".join(row) + "\n" for row in zip(*cells, strict=True)))


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
