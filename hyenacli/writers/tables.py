"""Tables with a vector per row, written as they come: Parquet, TSV, NumPy archives, AnnData and HDF5."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columns import Batch, BufferedTableWriter, Column, TableWriter
from hyenacli.writers.tsv import open_tsv, rows_of

ROW_GROUP_BYTES = 16 << 20
_Opener = Callable[[Path, Sequence[Column], Mapping[str, Any]], AbstractContextManager[TableWriter]]


class _Parquet:
    """Row groups of about ROW_GROUP_BYTES; a vector is a fixed_size_list<float32>."""

    def __init__(self, path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> None:
        self.columns = columns
        types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        fields = [(c.name, pa.list_(pa.float32(), c.width) if c.width else types[c.type]) for c in columns]
        self.schema = pa.schema(fields, metadata={"hyena": json.dumps(provenance)})
        self.file = pq.ParquetWriter(path, self.schema, compression="zstd")
        self.waiting: list[pa.RecordBatch] = []
        self.waiting_bytes = 0

    def write(self, batch: Batch) -> None:
        arrays = [self._array(column, batch[column.name]) for column in self.columns]
        self.waiting.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self.waiting_bytes += self.waiting[-1].nbytes
        if self.waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _array(self, column: Column, values: Any) -> pa.Array:
        if not column.width:
            return pa.array(values, self.schema.field(column.name).type)
        flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), column.width)

    def _flush(self) -> None:
        if self.waiting:
            table = pa.Table.from_batches(self.waiting).combine_chunks()
            self.file.write_table(table, row_group_size=max(1, table.num_rows))
            self.waiting, self.waiting_bytes = [], 0

    def close(self, *, complete: bool) -> None:
        if complete:
            self._flush()
        self.file.close()


class _Npz:
    """Arrays by column name, without pickles; rows are held to the end, as the format needs their number."""

    def __init__(self, columns: Sequence[Column], provenance: Mapping[str, Any]) -> None:
        self.columns, self.provenance = columns, provenance
        self.parts: dict[str, list[np.ndarray]] = {
            c.name: [np.empty((0, c.width) if c.width else 0, self._dtype(c))] for c in columns
        }

    @staticmethod
    def _dtype(column: Column) -> Any:
        return np.float32 if column.width else {str: np.str_, int: np.int64, float: np.float64}[column.type]

    def write(self, batch: Batch) -> None:
        for column in self.columns:
            self.parts[column.name].append(np.array(batch[column.name], dtype=self._dtype(column)))

    def save(self, path: Path) -> None:
        arrays = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        arrays["hyena"] = np.array(json.dumps(self.provenance))
        with path.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)


def table_type(target: Path, output_type: str | None, types: Sequence[str] | None = None) -> str:
    """The type of a table: what was asked for, else what the suffix says in any case; `-` is TSV.

    Args:
        target: output file, or `-` for stdout.
        output_type: what was asked for, or None.
        types: those the caller writes, among them such as are no table; None is all of `TYPES`.

    Raises:
        UsageError: neither is a known type, or the type cannot be streamed to stdout.
        UserError: the package that writes it is not installed.

    >>> table_type(Path("a/peaks.tsv.gz"), None), table_type(Path("-"), None), table_type(Path("a"), "npz")
    ('tsv.gz', 'tsv', 'npz')
    """
    stdout = str(target) == "-"
    types = list(types or TYPES)
    if output_type is not None:
        kind = output_type.removeprefix(".")
        if kind not in types:
            raise UsageError(f"unknown output type '{output_type}'", at="-O", remedy=nearest(kind, types))
        if stdout and kind not in _TEXTS:
            raise UsageError(
                f"{kind} does not go to stdout", at="-O", remedy="name a file with -o, or use tsv"
            )
        return _installed(kind)
    kinds = [kind for kind in types if target.name.lower().endswith(f".{kind}")]
    if not kinds and not stdout:
        known = ", ".join(f".{kind}" for kind in types)
        raise UsageError(
            "the suffix names no table type",
            at=target,
            remedy=f"use one of {known}, or give -O/--output-type",
        )
    return _installed(kinds[0]) if kinds else "tsv"


def _installed(kind: str) -> str:
    package, extra = _EXTRAS.get(kind, ("json", ""))
    if find_spec(package) is None:
        raise UserError(f".{kind} needs {package}", remedy=f"pip install 'hyenacli[{extra}]'")
    return kind


@contextmanager
def open_table(
    target: Path, output_type: str | None, columns: Sequence[Column], provenance: Mapping[str, Any]
) -> Iterator[TableWriter]:
    """Open a table for writing; the file appears, whole, when the context ends well.

    Args:
        target: output file, or `-` for stdout (TSV).
        output_type: a key of `TYPES`; None takes the suffix.
        columns: the columns, in order.
        provenance: JSON values kept under the key "hyena": Parquet schema metadata, an array of an npz, uns
            of an AnnData, an attribute of an HDF5. A TSV has no place for them, unless it is a shard.

    Raises:
        UsageError: as `table_type`.
        UserError: as `table_type` and `atomic_path`.
    """
    kind = table_type(target, output_type)
    if str(target) == "-":
        with rows_of(sys.stdout, columns, provenance) as rows:
            yield rows
        sys.stdout.flush()
        return
    with atomic_path(target) as path, TYPES[kind](path, columns, provenance) as writer:
        yield writer


@contextmanager
def _open_parquet(
    path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
) -> Iterator[TableWriter]:
    writer, complete = _Parquet(path, columns, provenance), False
    rows = BufferedTableWriter(writer)
    try:
        yield rows
        rows.flush()
        complete = True
    finally:
        writer.close(complete=complete)


@contextmanager
def _open_npz(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    writer = _Npz(columns, provenance)
    yield writer
    writer.save(path)


@contextmanager
def _open_h5ad(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    from hyenacli.writers.h5ad import H5ad

    writer = H5ad(columns, provenance)
    yield writer
    writer.save(path)


@contextmanager
def _open_hdf5(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    from hyenacli.writers.hdf5 import Hdf5

    with Hdf5(path, columns, provenance) as writer:
        yield writer


TYPES: dict[str, _Opener] = {
    "parquet": _open_parquet,
    "tsv": partial(open_tsv, "tsv"),
    "tsv.gz": partial(open_tsv, "tsv.gz"),
    "npz": _open_npz,
    "h5ad": _open_h5ad,
    "h5": _open_hdf5,
}
# Those that go to stdout, a caller's own among them.
_TEXTS = ("tsv", "bedgraph")
# Types that need a package which not everybody has, and the extra that brings it.
_EXTRAS = {"h5ad": ("anndata", "h5ad"), "h5": ("h5py", "hdf5")}
