"""Tables in columns: Parquet, and NumPy archives. Provenance is JSON under the key "hyena".

Parquet: a vector is a fixed_size_list<float32>, the provenance is in the schema's metadata. npz: arrays by
column name, the provenance is an array of one text; no pickles.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyenacli.writers.columns import Batch, BufferedTableWriter, Column, Content, RowsInMemory, TableWriter

_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_KEY, _SHARD_KEY = b"hyena", b"hyena_shard"


class _Parquet:
    def __init__(
        self, path: Path, columns: Sequence[Column], provenance: Mapping[str, Any], row_group_bytes: int
    ) -> None:
        self.columns, self.row_group_bytes = columns, row_group_bytes
        types = [pa.list_(pa.float32(), c.width) if c.width else _ARROW_TYPES[c.type] for c in columns]
        names = [column.name for column in columns]
        fields = list(zip(names, types, strict=True))
        self.schema = pa.schema(fields, metadata={_KEY: json.dumps(provenance)})
        self.file = pq.ParquetWriter(path, self.schema, compression="zstd", write_page_checksum=True)
        self.waiting: list[pa.RecordBatch] = []
        self.waiting_bytes = 0

    def write(self, batch: Batch) -> None:
        arrays = [self._array(column, batch[column.name]) for column in self.columns]
        self.waiting.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self.waiting_bytes += self.waiting[-1].nbytes
        if self.waiting_bytes >= self.row_group_bytes:
            self.flush()

    def _array(self, column: Column, values: Any) -> pa.Array:
        if not column.width:
            return pa.array(values, self.schema.field(column.name).type)
        flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), column.width)

    def flush(self) -> None:
        if self.waiting:
            table = pa.Table.from_batches(self.waiting).combine_chunks()
            self.file.write_table(table, row_group_size=max(1, table.num_rows))
            self.waiting, self.waiting_bytes = [], 0


@contextmanager
def open_parquet(
    path: Path,
    columns: Sequence[Column],
    provenance: Mapping[str, Any],
    *,
    row_group_bytes: int = 16 << 20,
    rows_at_once: int = 256,
) -> Iterator[TableWriter]:
    """Open a Parquet file for writing in constant memory.

    Args:
        path: the file.
        columns: the columns, in order.
        provenance: JSON values.
        row_group_bytes: size of a row group, about.
        rows_at_once: rows that are converted together, at least.
    """
    table = _Parquet(path, columns, provenance, row_group_bytes)
    with table.file:
        rows = BufferedTableWriter(table, rows_at_once)
        yield rows
        rows.flush()
        table.flush()
        if "shard" in provenance:  # its checksum is complete now
            table.file.add_key_value_metadata({_SHARD_KEY: json.dumps(provenance["shard"])})


def read_parquet(path: Path) -> Content:
    """Read columns, provenance and rows of a file that `open_parquet` has written.

    Raises:
        ValueError: the footer is damaged: its two copies of the provenance differ.
    """
    schema = pq.read_schema(path)
    if _KEY not in (schema.metadata or {}):
        return [], {}, iter(())
    provenance, of_file = json.loads(schema.metadata[_KEY]), pq.read_metadata(path).metadata
    # Arrow stores it twice and reads the copy inside its own schema; other programs read the plain one.
    if of_file.get(_KEY) != schema.metadata[_KEY]:
        raise ValueError("the provenance is damaged")
    if _SHARD_KEY in of_file:
        provenance["shard"] = json.loads(of_file[_SHARD_KEY])
    types = {arrow: python for python, arrow in _ARROW_TYPES.items()}
    columns = [
        Column(f.name, types[f.type]) if f.type in types else Column(f.name, float, f.type.list_size)
        for f in schema
    ]
    return columns, provenance, _row_groups(path, columns)


def _row_groups(path: Path, columns: Sequence[Column]) -> Iterator[Batch]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).combine_chunks()
            yield {c.name: _column_values(c, table.column(c.name)) for c in columns}


def _column_values(column: Column, values: pa.ChunkedArray) -> Any:
    if column.width:
        flat = np.concatenate([part.flatten().to_numpy() for part in values.chunks])
        return flat.reshape(-1, column.width)
    return values.to_numpy() if column.type is int else values.to_pylist()  # keeps missing numbers missing


@contextmanager
def open_npz(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    """Open a NumPy archive, which is written when the context ends well: it needs the number of rows."""
    rows = RowsInMemory()
    yield rows
    arrays = {column.name: rows.joined(column, np.str_) for column in columns}
    arrays["hyena"] = np.array(json.dumps(provenance))
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_npz(path: Path) -> Content:
    """Read columns, provenance and rows of an archive that `open_npz` has written."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        values = dict(arrays)
    if "hyena" not in values:
        return [], {}, iter(())
    provenance = json.loads(str(values.pop("hyena")))
    types = {"i": int, "f": float, "U": str}
    columns = [
        Column(name, types[array.dtype.kind], array.shape[1] if array.ndim == 2 else 0)
        for name, array in values.items()
    ]
    return columns, provenance, iter([values])
