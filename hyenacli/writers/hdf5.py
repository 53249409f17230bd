"""HDF5 files: vectors per base with an index that says which rows are whose, and AnnData.

Vectors per base:
/embedding              (bases, width) float16, chunked; one such dataset per vector column
/records/COLUMN         (records,) one dataset per other column
/records/offset         (records,) first row of each record; its rows end where those of the next begin
attribute hyena         the provenance, as JSON

AnnData: a cell of scanpy is a record here, and its genes are the numbers of the vector. X is the last vector
column, obsm has the others, obs the rest, and uns["hyena"] the provenance, as JSON. The index of obs is the
first column, its repeats numbered (peak, peak-1). anndata and h5py are extras, imported when they are needed.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.writers.columns import Batch, Column, Content, RowsInMemory, TableWriter

_TYPES = {"i": int, "f": float}
_OFFSET = "offset"


class _Hdf5:
    """Records with any number of vectors each, written in constant memory.

    A batch is one record: one value of every other column, and (rows, width) of a vector column.
    """

    def __init__(self, file: Any, columns: Sequence[Column], chunk_bytes: int, index_chunk: int) -> None:
        import h5py

        packed = {"compression": "lzf", "shuffle": True}
        types = {str: h5py.string_dtype(), int: np.int64, float: np.float64}
        self.vectors = {
            c.name: _Growing(
                file, c.name, np.float16, max(1, chunk_bytes // (2 * c.width)), c.width, **packed
            )
            for c in columns
            if c.width
        }
        offset = [Column(_OFFSET, int)] if self.vectors else []
        self.index = {
            c.name: _Growing(file, f"records/{c.name}", types[c.type], index_chunk)
            for c in [*columns, *offset]
            if not c.width
        }
        self.rows = 0

    def write(self, batch: Batch) -> None:
        vectors = {name: _halved(name, np.asarray(batch[name])) for name in self.vectors}
        for name, rows in vectors.items():
            self.vectors[name].append(rows)
        for name, values in self.index.items():
            values.append([self.rows] if name == _OFFSET else batch[name])
        self.rows += max(map(len, vectors.values()), default=0)

    def flush(self) -> None:
        for dataset in (*self.vectors.values(), *self.index.values()):
            dataset.flush()


class _Growing:
    """A dataset to which whole chunks are appended."""

    def __init__(self, file: Any, name: str, dtype: Any, chunk: int, *width: int, **packed: Any) -> None:
        shapes = {"shape": (0, *width), "maxshape": (None, *width), "chunks": (chunk, *width)}
        self._dataset = file.create_dataset(name, dtype=dtype, **shapes, **packed)
        self._waiting: list[Any] = []
        self._waiting_rows = 0

    def append(self, values: Any) -> None:
        self._waiting.append(values)
        self._waiting_rows += len(values)
        complete = self._waiting_rows - self._waiting_rows % self._dataset.chunks[0]
        if complete:
            self._write(complete)

    def flush(self) -> None:
        if self._waiting_rows:
            self._write(self._waiting_rows)

    def _write(self, rows: int) -> None:
        joined = np.concatenate([np.asarray(part, self._dataset.dtype) for part in self._waiting])
        size = len(self._dataset)
        self._dataset.resize(size + rows, axis=0)
        self._dataset[size:] = joined[:rows]
        self._waiting, self._waiting_rows = [joined[rows:]], len(joined) - rows


@contextmanager
def open_hdf5(
    path: Path,
    columns: Sequence[Column],
    provenance: Mapping[str, Any],
    *,
    chunk_bytes: int = 1 << 18,
    index_chunk: int = 1 << 10,
) -> Iterator[TableWriter]:
    """Open a file for writing records, each with the vectors of all its bases.

    Args:
        path: the file.
        columns: the columns, in order.
        provenance: JSON values.
        chunk_bytes: size of a chunk of vectors.
        index_chunk: records of a chunk of the index.

    Raises:
        UserError: a number is too large for float16.
    """
    with created_hdf5(path) as file:
        records = _Hdf5(file, columns, chunk_bytes, index_chunk)
        yield records
        records.flush()
        file.attrs["hyena"] = json.dumps(provenance)


class _Stream(io.FileIO):
    """A file that hides failed writes from HDF5, which ends the process where it cannot close a file."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = self.failure or error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return 0


@contextmanager
def created_hdf5(path: Path) -> Iterator[Any]:
    """Create an HDF5 file, an `h5py.File`; on a full disk it does not end the process.

    Raises:
        OSError: the disk is full.
    """
    import h5py

    with _Stream(path, "w+") as stream:
        try:
            with h5py.File(stream, "w") as file:
                yield file
        finally:
            if stream.failure is not None:
                raise stream.failure


def _halved(name: str, vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halved = vectors.astype(np.float16)
    if not np.array_equal(np.isfinite(halved), np.isfinite(vectors)):
        remedy = "write .parquet, which holds float32"
        raise UserError(f"a number of {name} is beyond float16; .h5 holds float16", remedy=remedy)
    return halved


def read_hdf5(path: Path) -> Content:
    """Read columns, provenance and records of a file that `open_hdf5` has written."""
    import h5py

    with h5py.File(path) as file:
        if "hyena" not in file.attrs:
            return [], {}, iter(())
        names = [name for name in file["records"] if name != _OFFSET]
        columns = [Column(name, _TYPES.get(file[f"records/{name}"].dtype.kind, str)) for name in names]
        columns += [Column(name, float, file[name].shape[1]) for name in file if name != "records"]
        return columns, json.loads(file.attrs["hyena"]), _records(path, columns)


def _records(path: Path, columns: Sequence[Column]) -> Iterator[Batch]:
    import h5py

    with h5py.File(path) as file:
        index = {c.name: _values(file[f"records/{c.name}"]) for c in columns if not c.width}
        vectors = [file[c.name] for c in columns if c.width]
        records = len(next(iter(index.values())))
        bounds = [*file[f"records/{_OFFSET}"], len(vectors[0])] if vectors else [0] * (records + 1)
        for i, (first, end) in enumerate(pairwise(bounds)):
            rows = {dataset.name[1:]: dataset[first:end] for dataset in vectors}
            yield {name: values[i : i + 1] for name, values in index.items()} | rows


def _values(dataset: Any) -> Any:
    return dataset.asstr()[:] if dataset.dtype.kind == "O" else dataset[:]


@contextmanager
def open_h5ad(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    """Open a file, which is written when the context ends well."""
    rows = RowsInMemory()
    yield rows
    values = {column.name: rows.joined(column, object) for column in columns}
    vectors = [column for column in columns if column.width]
    names = number_repeats(map(str, values[columns[0].name]))
    import anndata
    from anndata.io import write_elem

    data = anndata.AnnData(
        X=values[vectors[-1].name] if vectors else None,
        obs={column.name: values[column.name] for column in columns if not column.width},
        obsm={column.name: values[column.name] for column in vectors[:-1]},
        uns={"hyena": json.dumps(provenance)},
    )
    data.obs_names = names
    if vectors:
        data.var_names = vectors[-1].titles
    # by this way in, not write_h5ad, which opens the path by itself and so is killed where the disk is full
    with created_hdf5(path) as file:
        write_elem(file, "/", data)


def number_repeats(names: Iterable[str]) -> list[str]:
    """Return the names, the repeats of each numbered from 1.

    >>> number_repeats(["a", "b", "a", "a", "a-1"])
    ['a', 'b', 'a-2', 'a-3', 'a-1']
    """
    names = list(names)
    taken, counts, numbered = set(names), Counter[str](), []
    for name in names:
        unique = name
        if counts[name]:
            while unique in taken:
                unique = f"{name}-{counts[name]}"
                counts[name] += 1
            taken.add(unique)
        else:
            counts[name] = 1
        numbered.append(unique)
    return numbered


def read_h5ad(path: Path) -> Content:
    """Read columns, provenance and rows of a file that `open_h5ad` has written."""
    import anndata

    data = anndata.read_h5ad(path)
    if "hyena" not in data.uns:
        return [], {}, iter(())
    columns = [Column(name, _TYPES.get(data.obs[name].dtype.kind, str)) for name in data.obs]
    values = {name: data.obs[name].to_numpy() for name in data.obs}
    for name in data.obsm:
        columns.append(Column(name, float, data.obsm[name].shape[1]))
        values[name] = data.obsm[name]
    if data.X is not None:
        columns.append(Column("embedding", float, data.X.shape[1], data.var_names[0].rstrip("0123456789")))
        values["embedding"] = data.X
    return columns, json.loads(data.uns["hyena"]), iter([values])


def is_anndata(path: Path) -> bool:
    """Return whether an HDF5 file is an AnnData.

    Raises:
        UserError: the package that reads HDF5 is missing.
    """
    try:
        import h5py
    except ImportError:
        raise UserError("needs h5py", at=path, remedy="pip install h5py") from None
    try:
        with h5py.File(path) as file:
            return bool(file.attrs.get("encoding-type") == "anndata")
    except OSError:  # damaged, which the reader of the other format reports
        return False
