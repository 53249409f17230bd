"""Parts of a table: columns, batches of rows, and what every output format tells about itself.

A batch is a mapping of column name to values, all of one length N: sequences of str or int, and float32
arrays (N, width) for vectors. Missing vectors are NaN rows. (HDF5 keeps more than one vector per record: see
`hdf5`.)
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: in the file.
        type: str, int or float: a single number, or a vector of float32 if there is a width.
        width: numbers in the vector; 0 for a column of single values.
        prefix: a TSV has a column per number, named prefix + index.
        digits: significant ones of a number in TSV; 9 give a float32 back.
    """

    name: str
    type: type
    width: int = 0
    prefix: str = "e"
    digits: int = 9

    @property
    def titles(self) -> list[str]:
        """Names of its columns in a TSV.

        >>> Column("embedding", float, 3).titles
        ['e0', 'e1', 'e2']
        """
        return [f"{self.prefix}{i}" for i in range(self.width)] or [self.name]


Content = tuple[list[Column], dict[str, Any], Iterator[Batch]]
"""Columns, provenance (empty: another tool's file) and rows of a table, which are read as they are used."""


class TableWriter(Protocol):
    """A table that takes rows."""

    def write(self, batch: Batch) -> None:
        """Append rows."""


class BufferedTableWriter:
    """Rows handed on in large batches: one at a time they cost more to write than to compute.

    Args:
        writer: of the rows.
        rows_at_once: rows of a batch, at least.
    """

    def __init__(self, writer: TableWriter, rows_at_once: int = 256) -> None:
        self._writer, self._rows_at_once = writer, rows_at_once
        self._waiting: list[Batch] = []
        self._rows = 0

    def write(self, batch: Batch) -> None:
        """Append rows."""
        self._waiting.append(batch)
        self._rows += len(next(iter(batch.values())))
        if self._rows >= self._rows_at_once:
            self.flush()

    def flush(self) -> None:
        """Hand on the rows that are waiting."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            self._writer.write({name: _joined([batch[name] for batch in waiting]) for name in waiting[0]})


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, list) for part in parts):
        return [value for part in parts for value in part]
    return np.concatenate([np.asarray(part) for part in parts])


class RowsInMemory:
    """Rows held in memory to the end, for formats that are written at once."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []

    def write(self, batch: Batch) -> None:
        """Append rows."""
        self._batches.append(batch)

    def joined(self, column: Column, text: Any) -> Any:
        """Return all values of a column, those of a column of str with the dtype `text`."""
        dtype = {str: text, int: np.int64, float: np.float32 if column.width else np.float64}[column.type]
        parts = [np.asarray(batch[column.name], dtype) for batch in self._batches]
        return np.concatenate([np.empty((0, column.width) if column.width else 0, dtype), *parts])


@dataclass(frozen=True)
class Head:
    """What a file tells about itself.

    Attributes:
        columns: name and type of each, in a form that two files of one run share.
        provenance: how the file was made; empty for another tool's file.
    """

    columns: list[str]
    provenance: dict[str, Any]


def suffix_kind(target: Path, kinds: Iterable[str]) -> str | None:
    """Return the format that the suffix of a file names, in any case; `.bgz` is `.gz`, `.bigwig` is `.bw`.

    >>> suffix_kind(Path("a.b.VCF.bgz"), ["vcf", "vcf.gz"])
    'vcf.gz'
    """
    name = re.sub(r"\.bgz$", ".gz", target.name.lower())
    name = re.sub(r"\.bigwig$", ".bw", name)
    return next((kind for kind in kinds if name.endswith(f".{kind}")), None)


@dataclass(frozen=True, kw_only=True)
class FileFormat(ABC):
    """An output format: how its files are recognised, and how several become one.

    Attributes:
        suffix: of file names, and the name of the format, as tsv.gz.
        stdout: can be written to standard output.
        package: needed to write it, if not everybody has that.
    """

    suffix: str
    stdout: bool = False
    package: str = ""

    @abstractmethod
    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file has this format.

        Args:
            path: the file.
            start: its first bytes, decompressed.
        """

    @abstractmethod
    def head(self, path: Path) -> Head:
        """Read what a file tells about itself."""

    @abstractmethod
    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the records of files that fit together, in their order, as one file."""


@dataclass(frozen=True, kw_only=True)
class TableFormat(FileFormat):
    """A format of tables.

    Attributes:
        needs_vectors: it is made for vectors, not for tables of single numbers.
        whole_records: a batch is one record with the vectors of all its bases.
        bytes_per_number: size of a number of a vector, about.
    """

    needs_vectors: bool = False
    whole_records: bool = False
    bytes_per_number: int = 4

    @abstractmethod
    def open(
        self, target: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
    ) -> AbstractContextManager[TableWriter]:
        """Open a file for writing, which appears, whole, when the context ends well."""
