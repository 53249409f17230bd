"""HDF5 files of vectors per base: one long dataset of float16, and an index that says which rows are whose.

/embedding              (bases, width) float16, chunked; one such dataset per vector column
/records/COLUMN         (records,) one dataset per other column
/records/offset         (records,) first row of each record; its rows end where those of the next begin
attribute hyena         the provenance, as JSON
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.writers.columns import Batch, Column

_CHUNK_BYTES = 1 << 18
_INDEX_CHUNK = 1 << 10
OFFSET = "offset"


class Hdf5:
    """Writes records with any number of vectors each, in constant memory.

    A batch is one record: one value of every other column, and (rows, width) of a vector column.

    Raises:
        UserError: a number is too large for float16.
    """

    def __init__(self, path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> None:
        self._file = h5py.File(path, "w")
        self._file.attrs["hyena"] = json.dumps(provenance)
        self._vectors = {c.name: self._vector_dataset(c) for c in columns if c.width}
        offset = [Column(OFFSET, int)] if self._vectors else []
        self._index = {c.name: self._index_dataset(c) for c in [*columns, *offset] if not c.width}
        self._rows = 0

    def _vector_dataset(self, column: Column) -> "_Growing":
        chunk = max(1, _CHUNK_BYTES // (2 * column.width))
        shapes = {
            "shape": (0, column.width),
            "maxshape": (None, column.width),
            "chunks": (chunk, column.width),
        }
        packed = {"compression": "lzf", "shuffle": True}
        return _Growing(self._file.create_dataset(column.name, dtype=np.float16, **shapes, **packed))

    def _index_dataset(self, column: Column) -> "_Growing":
        dtype = {str: h5py.string_dtype(), int: np.int64, float: np.float64}[column.type]
        shapes = {"shape": (0,), "maxshape": (None,), "chunks": (_INDEX_CHUNK,)}
        return _Growing(self._file.create_dataset(f"records/{column.name}", dtype=dtype, **shapes))

    def write(self, batch: Batch) -> None:
        """Append one record."""
        vectors = {name: _halved(name, np.asarray(batch[name])) for name in self._vectors}
        for name, rows in vectors.items():
            self._vectors[name].append(rows)
        for name, values in self._index.items():
            values.append([self._rows] if name == OFFSET else batch[name])
        self._rows += max(map(len, vectors.values()), default=0)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left, and close."""
        with self._file:
            if kind is None:
                for dataset in (*self._vectors.values(), *self._index.values()):
                    dataset.flush()


class _Growing:
    """A dataset to which whole chunks are appended."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._waiting: list[Any] = []
        self._waiting_rows = 0

    def append(self, values: Any) -> None:
        self._waiting.append(values)
        self._waiting_rows += len(values)
        whole = self._waiting_rows - self._waiting_rows % self._dataset.chunks[0]
        if whole:
            self._write(whole)

    def flush(self) -> None:
        if self._waiting_rows:
            self._write(self._waiting_rows)

    def _write(self, rows: int) -> None:
        joined = np.concatenate([np.asarray(part, self._dataset.dtype) for part in self._waiting])
        size = len(self._dataset)
        self._dataset.resize(size + rows, axis=0)
        self._dataset[size:] = joined[:rows]
        self._waiting, self._waiting_rows = [joined[rows:]], len(joined) - rows


def _halved(name: str, vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halved = vectors.astype(np.float16)
    if not np.array_equal(np.isfinite(halved), np.isfinite(vectors)):
        remedy = "write .parquet, which holds float32"
        raise UserError(f"a number of {name} is beyond float16, which is what .h5 holds", remedy=remedy)
    return halved


def read_hdf5(path: Path) -> tuple[list[Column], dict[str, Any], Iterator[Batch]]:
    """Columns, provenance and records of a file that `Hdf5` has written."""
    with h5py.File(path) as file:
        if "hyena" not in file.attrs:
            return [], {}, iter(())
        types = {"i": int, "f": float}
        names = [name for name in file["records"] if name != OFFSET]
        columns = [Column(name, types.get(file[f"records/{name}"].dtype.kind, str)) for name in names]
        columns += [Column(name, float, file[name].shape[1]) for name in file if name != "records"]
        return columns, json.loads(file.attrs["hyena"]), _records(path, columns)


def is_anndata(path: Path) -> bool:
    """Whether an HDF5 file is an AnnData."""
    with h5py.File(path) as file:
        return bool(file.attrs.get("encoding-type") == "anndata")


def _records(path: Path, columns: Sequence[Column]) -> Iterator[Batch]:
    with h5py.File(path) as file:
        index = {c.name: _values(file[f"records/{c.name}"]) for c in columns if not c.width}
        vectors = [file[c.name] for c in columns if c.width]
        records = len(next(iter(index.values())))
        bounds = [*file[f"records/{OFFSET}"], len(vectors[0])] if vectors else [0] * (records + 1)
        for i, (first, end) in enumerate(pairwise(bounds)):
            rows = {dataset.name[1:]: dataset[first:end] for dataset in vectors}
            yield {name: values[i : i + 1] for name, values in index.items()} | rows


def _values(dataset: h5py.Dataset) -> Any:
    return dataset.asstr()[:] if dataset.dtype.kind == "O" else dataset[:]
