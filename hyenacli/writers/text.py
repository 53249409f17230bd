"""Text formats: tables as lines, plain, gzip or bgzip.

Only a shard tells what it is, in a first line, and in a last one with a checksum; merging
removes both.
"""

import gzip
import hashlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pysam

from hyenacli.errors import UserError
from hyenacli.readers.text import compression, open_binary
from hyenacli.readers.vcf import quiet_htslib
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

_SHARD_END = b"# end of hyena shard, sha256 "
_SHARD_END_BYTES = len(_SHARD_END) + 64 + 1
_CHUNK_BYTES = 1 << 20
AGAIN = "make this shard again, or copy it again"
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


class BgzipWriter:
    """Bytes into bgzip blocks.

    Args:
        path: the file.
        target: what messages call it.
        level: of compression, 0 to 9; None for htslib's.
    """

    def __init__(self, path: Path, target: Path, level: int | None = None):
        mode = "w" if level is None else f"w{level}"
        # The stubs do not know the levels.
        self._file = pysam.BGZFile(str(path), mode, index=None)  # type: ignore[arg-type]
        self._target, self._failed = target, False

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            UserError: the file cannot be written.
        """
        with self._failure_reported():
            self._file.write(data)

    def end_block(self) -> int:
        """End the compressed block, and return the offset in the file where the next one begins."""
        with self._failure_reported():
            self._file.flush()
            return self._file.tell() >> 16

    def close(self) -> None:
        """Write what waits, and the mark of a complete file.

        Raises:
            UserError: the file cannot be written.
        """
        if not self._failed:
            with self._failure_reported():
                self._file.close()

    @contextmanager
    def _failure_reported(self) -> Iterator[None]:
        """Raise a UserError with the most common cause: htslib does not tell the reason."""
        try:
            with quiet_htslib():
                yield
        except OSError as error:
            self._abandon()
            remedy = "is the disk full?"
            raise UserError("cannot be written", at=self._target, remedy=remedy) from error

    def _abandon(self) -> None:
        """Let go of the file: its destructor fails to write once more, which it would tell on stderr."""
        self._failed = True
        with quiet_htslib(), redirect_stderr(io.StringIO()):
            del self._file


@contextmanager
def open_bgzip(path: Path, target: Path, level: int | None = None) -> Iterator[BgzipWriter]:
    """Open a `BgzipWriter`, closed at the end."""
    writer = BgzipWriter(path, target, level)
    try:
        yield writer
    finally:
        writer.close()


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
            if "shard" not in provenance:
                yield write
                return
            digest = hashlib.sha256()

            hashed = partial(write_hashed, write, digest)
            hashed(self.mark + json.dumps(provenance).encode() + b"\n")
            yield hashed
            write(_SHARD_END + digest.hexdigest().encode() + b"\n")

    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file is a shard of this format."""
        packed = compression(path) != "plain"
        return start.startswith(self.mark) and packed == self.suffix.endswith(".gz")

    def head(self, path: Path) -> Head:
        """Read provenance and the line of titles of a shard."""
        with open_binary(path) as stream:
            first = stream.readline()
            if not first.startswith(self.mark):
                return Head([], {})
            provenance = json.loads(first.removeprefix(self.mark))
            titles = b"".join(islice(stream, self.titles)).decode().rstrip("\n")
        return Head([titles], provenance)

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the lines of all shards below the titles of the first.

        Raises:
            UserError: a shard is cut short or damaged.
        """
        with self.open_records(target, provenance) as write:
            for number, path in enumerate(paths):
                with open_binary(path) as stream:
                    mark, titles = stream.readline(), b"".join(islice(stream, self.titles))
                    write(titles if number == 0 else b"")
                    for chunk in shard_body(stream, path, hashlib.sha256(mark + titles)):
                        write(chunk)


def write_hashed(write: WriteBytes, digest: "hashlib._Hash", data: bytes) -> None:
    """Write bytes, and add them to a checksum."""
    digest.update(data)
    write(data)


def shard_body(stream: BinaryIO, path: Path, digest: "hashlib._Hash") -> Iterator[bytes]:
    """Yield what stands above the last line of a shard, which has the sha256 of all that is above it.

    Args:
        stream: below the titles.
        path: what messages call it.
        digest: of the mark and the titles.

    Raises:
        UserError: the shard is cut short or damaged.
    """
    end = b""
    while chunk := stream.read(_CHUNK_BYTES):
        body, end = (end + chunk)[:-_SHARD_END_BYTES], (end + chunk)[-_SHARD_END_BYTES:]
        digest.update(body)
        yield body
    if not (end.startswith(_SHARD_END) and end.endswith(b"\n")):
        raise UserError("is cut short", at=path, remedy=AGAIN)
    if end[len(_SHARD_END) : -1] != digest.hexdigest().encode():
        raise damaged_shard(path)


def damaged_shard(path: Path) -> UserError:
    """Return the error for a shard that is not as it was written."""
    return UserError("is cut short or damaged: it does not fit its checksum", at=path, remedy=AGAIN)


def write_lines(write: WriteBytes, lines: Iterable[str], at_once: int = _LINES_AT_ONCE) -> None:
    """Write lines, many at a time."""
    lines = iter(lines)
    while block := "".join(islice(lines, at_once)):
        write(block.encode())


@dataclass(frozen=True, kw_only=True)
class TsvFormat(TextFormat, TableFormat):
    """Tables as text: a line per row, a missing float is empty, and tabs and line ends are blanks.

    Attributes:
        separator: of cells; where it is a comma, cells with a comma or a quote are quoted.
    """

    mark: bytes = b"# hyena shard "
    titles: int = 1
    bytes_per_number: int = 12
    separator: str = "\t"

    @contextmanager
    def open(
        self, target: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
    ) -> Iterator[TableWriter]:
        """Open a table for writing, `-` for stdout.

        Raises:
            UserError: as `atomic_path`.
        """
        with self.open_records(target, provenance) as write:
            titles = self._texts(title for column in columns for title in column.titles)
            write(self.separator.join(titles).encode() + b"\n")
            rows = BufferedTableWriter(_TsvWriter(write, columns, self))
            yield rows
            rows.flush()

    def row(self, cells: Iterable[bytes], added: Sequence[str]) -> bytes:
        """Return a line of cells as they were read, and of texts that need no quotes."""
        if self.separator == "\t":
            # A quoted cell of a CSV may hold tabs.
            first = b"\t".join(cell.replace(b"\t", b" ") for cell in cells)
        else:
            texts = self._texts(cell.decode(errors="surrogateescape") for cell in cells)
            first = self.separator.join(texts).encode(errors="surrogateescape")
        return b"".join((first, *(f"{self.separator}{text}".encode() for text in added), b"\n"))

    def cells(self, column: Column, values: Any) -> Iterator[str]:
        """Yield the cells of a column; those of a vector are one, with separators inside."""
        if column.type is str:
            return self._texts(values)
        if column.type is int:
            return map(str, values)
        number = f"%.{column.digits}g"
        if not column.width:
            return ("" if math.isnan(value) else number % value for value in np.ravel(values).tolist())
        template = self.separator.join([number] * column.width)
        missing = self.separator * (column.width - 1)
        rows = map(np.atleast_1d, values)
        return (missing if np.isnan(row).all() else template % tuple(row.tolist()) for row in rows)

    def _texts(self, texts: Iterable[str]) -> Iterator[str]:
        plain = (text.translate(_BLANKS) for text in texts)
        if self.separator == "\t":
            return plain
        return ('"' + t.replace('"', '""') + '"' if "," in t or '"' in t else t for t in plain)


TSV = TsvFormat(suffix="tsv", stdout=True)
CSV = TsvFormat(suffix="csv", stdout=True, separator=",", mark=b"# hyena CSV shard ")


class _TsvWriter:
    def __init__(self, write: WriteBytes, columns: Sequence[Column], table: TsvFormat) -> None:
        self._write, self._columns, self._table = write, columns, table

    def write(self, batch: Batch) -> None:
        cells = [self._table.cells(column, batch[column.name]) for column in self._columns]
        lines = (self._table.separator.join(row) + "\n" for row in zip(*cells, strict=True))
        write_lines(self._write, lines)
