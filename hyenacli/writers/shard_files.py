"""The types of file whose shards can be joined: what one says of itself, and how several become one.

To add a type: a `Format` in `FORMATS`, and how to know it in `sniff`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, AnyStr, Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyenacli.errors import UserError
from hyenacli.readers.streams import compression, open_binary
from hyenacli.writers import bedgraph
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columns import Batch, Column
from hyenacli.writers.tables import open_table, table_type
from hyenacli.writers.tsv import SHARD_END, SHARD_MARK, open_text

Content = tuple[list[Column], dict[str, Any], Iterator[Batch]]
"""Columns, provenance (empty: another tool's file), and the rows, read as they are asked for."""
NOT_OURS: Content = ([], {}, iter(()))


@dataclass(frozen=True)
class Head:
    """What a file says of itself.

    Attributes:
        columns: name and type of each, in whatever form two files of one run have the same.
        provenance: how it was made; empty where it does not say.
    """

    columns: list[str]
    provenance: dict[str, Any]


class Format(Protocol):
    """What joining needs of a type of file."""

    def head(self, path: Path) -> Head:
        """What the file says of itself."""

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the rows of files that fit together, in their order, as one file."""


@dataclass(frozen=True)
class _Table:
    """A binary table: rows are read and written again."""

    kind: str
    read: Callable[[Path], Content]

    def head(self, path: Path) -> Head:
        columns, provenance, _ = self.read(path)
        return Head([f"{c.name} {c.type.__name__} {c.width}" for c in columns], provenance)

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        columns, _, _ = self.read(paths[0])
        with open_table(target, self.kind, columns, provenance) as table:
            for path in paths:
                for batch in self.read(path)[2]:
                    table.write(batch)


@dataclass(frozen=True)
class _Text:
    """A TSV: lines are copied."""

    kind: str

    def head(self, path: Path) -> Head:
        with _open_lines(path) as lines:
            first = next(lines, "")
            if not first.startswith(SHARD_MARK):
                return Head([], {})
            return Head(next(lines, "").rstrip("\n").split("\t"), json.loads(first.removeprefix(SHARD_MARK)))

    def join(self, paths: Sequence[Path], target: Path, _provenance: Mapping[str, Any]) -> None:
        with self._open(target) as whole:
            for number, path in enumerate(paths):
                with _open_lines(path) as lines:
                    next(lines)
                    header = next(lines)
                    if number == 0:
                        whole.write(header)
                    whole.writelines(_rows(lines, SHARD_END.decode(), path))

    @contextmanager
    def _open(self, target: Path) -> Iterator[TextIO]:
        if str(target) == "-":
            yield sys.stdout
            return
        with atomic_path(target) as path, open_text(path, self.kind) as stream:
            yield stream


@dataclass(frozen=True)
class _Track:
    """A bedGraph, which only as a shard is known for one: lines are copied."""

    kind: str

    def head(self, path: Path) -> Head:
        with open_binary(path) as stream:
            return Head([], json.loads(stream.readline().removeprefix(bedgraph.MARK)))

    def join(self, paths: Sequence[Path], target: Path, _provenance: Mapping[str, Any]) -> None:
        with bedgraph.open_lines(target, self.kind) as write:
            for path in paths:
                with open_binary(path) as stream:
                    stream.readline()
                    for line in _rows(stream, SHARD_END, path):
                        write(line)


@dataclass(frozen=True)
class _Variants:
    """A VCF or BCF: lines, or records, are copied."""

    kind: str

    def head(self, path: Path) -> Head:
        from hyenacli.writers.vcf_shards import read_bcf_head, read_vcf_head

        return Head(*(read_bcf_head(path) if self.kind == "bcf" else read_vcf_head(path)))

    def join(self, paths: Sequence[Path], target: Path, _provenance: Mapping[str, Any]) -> None:
        from hyenacli.writers.vcf_shards import join_bcf, join_vcf

        if self.kind == "bcf":
            join_bcf(paths, target)
        else:
            join_vcf(paths, target, self.kind)


def _rows(lines: Iterable[AnyStr], end: AnyStr, path: Path) -> Iterator[AnyStr]:
    """Lines without the last, which is to be the `end` of a shard.

    Raises:
        UserError: it is not, so that there were more lines.
    """
    last = None
    for line in lines:
        if last is not None:
            yield last
        last = line
    if last != end:
        raise UserError("is cut short", at=path, remedy="make this shard again, or copy it again")


@contextmanager
def _open_lines(path: Path) -> Iterator[TextIOWrapper]:
    with open_binary(path) as raw, TextIOWrapper(raw, encoding="utf-8", newline="\n") as lines:
        yield lines


def _read_parquet(path: Path) -> Content:
    schema = pq.read_schema(path)
    if b"hyena" not in (schema.metadata or {}):
        return NOT_OURS
    types = {pa.string(): str, pa.int64(): int, pa.float64(): float}
    columns = [
        Column(f.name, float, f.type.list_size) if f.type not in types else Column(f.name, types[f.type])
        for f in schema
    ]
    return columns, json.loads(schema.metadata[b"hyena"]), _parquet_batches(path, columns)


def _parquet_batches(path: Path, columns: Sequence[Column]) -> Iterator[Batch]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).combine_chunks()
            yield {c.name: _parquet_values(c, table.column(c.name)) for c in columns}


def _parquet_values(column: Column, values: pa.ChunkedArray) -> Any:
    if column.width:
        flat = np.concatenate([part.flatten().to_numpy() for part in values.chunks])
        return flat.reshape(-1, column.width)
    return values.to_numpy() if column.type is int else values.to_pylist()  # keeps missing ones missing


def _read_npz(path: Path) -> Content:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        if "hyena" not in arrays:
            return NOT_OURS
        values = dict(arrays)
    about = json.loads(str(values.pop("hyena")))
    types = {"i": int, "f": float, "U": str}
    columns = [
        Column(name, types[array.dtype.kind], array.shape[1] if array.ndim == 2 else 0)
        for name, array in values.items()
    ]
    return columns, about, iter([values])


def _read_h5ad(path: Path) -> Content:
    from hyenacli.writers.h5ad import read_h5ad

    return read_h5ad(path)


def _read_hdf5(path: Path) -> Content:
    from hyenacli.writers.hdf5 import read_hdf5

    return read_hdf5(path)


FORMATS: dict[str, Format] = {
    "parquet": _Table("parquet", _read_parquet),
    "npz": _Table("npz", _read_npz),
    "h5ad": _Table("h5ad", _read_h5ad),
    "h5": _Table("h5", _read_hdf5),
    "tsv": _Text("tsv"),
    "tsv.gz": _Text("tsv.gz"),
    **{kind: _Track(kind) for kind in bedgraph.TYPES},
    "vcf": _Variants("vcf"),
    "vcf.gz": _Variants("vcf.gz"),
    "bcf": _Variants("bcf"),
}
_MAGIC = {b"PAR1": "parquet", b"PK\x03\x04": "npz", b"\x89HDF": "h5"}


def sniff(path: Path) -> str:
    """The type of a file, a key of `FORMATS`, by its content.

    Raises:
        UserError: it cannot be read, or the package that reads it is missing.
    """
    packed = ".gz" if compression(path) != "plain" else ""
    with path.open("rb") as file:
        kind = _MAGIC.get(file.read(4), "")
    if not kind:
        with open_binary(path) as stream:
            start = stream.peek(len(bedgraph.MARK))
        if start.startswith(b"BCF\x02"):
            return "bcf"
        text = "bedgraph" if start.startswith(bedgraph.MARK) else "tsv"
        return f"{'vcf' if start.startswith(b'##fi') else text}{packed}"
    if kind == "h5":
        table_type(path, kind)  # is there a package to look into it?
        from hyenacli.writers.hdf5 import is_anndata

        return "h5ad" if is_anndata(path) else "h5"
    return kind
