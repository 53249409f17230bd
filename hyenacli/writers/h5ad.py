"""AnnData files: a cell of scanpy is a record here, and its genes are the numbers of the vector.

X is the last vector column, obsm has the others, obs the rest, and uns["hyena"] the provenance, as JSON. The
index of obs is the first column, its repeats numbered (peak, peak-1).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.errors import UserError
from hyenacli.writers.columns import Batch, Column, Content, TableWriter


class _Rows:
    """Columns held in memory to the end, because AnnData writes them at once."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.parts: dict[str, list[Any]] = {column.name: [] for column in columns}

    def write(self, batch: Batch) -> None:
        for column in self.columns:
            values = batch[column.name]
            self.parts[column.name].append(np.asarray(values, np.float32) if column.width else list(values))

    def joined(self, column: Column) -> Any:
        parts = self.parts[column.name]
        if column.width:
            return np.concatenate([np.empty((0, column.width), np.float32), *parts])
        dtype = {str: object, int: np.int64, float: np.float64}[column.type]
        return np.array([value for part in parts for value in part], dtype=dtype)


@contextmanager
def open_h5ad(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    """Open a file, which is written when the context ends well."""
    rows = _Rows(columns)
    yield rows
    values = {column.name: rows.joined(column) for column in columns}
    vectors = [column for column in columns if column.width]
    names = number_repeats(map(str, values[columns[0].name]))
    import anndata  # heavy, and an extra

    data = anndata.AnnData(
        X=values[vectors[-1].name] if vectors else None,
        obs={column.name: values[column.name] for column in columns if not column.width},
        obsm={column.name: values[column.name] for column in vectors[:-1]},
        uns={"hyena": json.dumps(provenance)},
    )
    data.obs_names = names
    if vectors:
        data.var_names = vectors[-1].titles
    data.write_h5ad(path)


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
    types = {"i": int, "f": float}
    columns = [Column(name, types.get(data.obs[name].dtype.kind, str)) for name in data.obs]
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
        raise UserError("needs h5py", at=path, remedy="pip install 'hyenacli[hdf5]'") from None
    with h5py.File(path) as file:
        return bool(file.attrs.get("encoding-type") == "anndata")
