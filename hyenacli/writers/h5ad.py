"""AnnData files: a cell of scanpy is a record here, and its genes are the numbers of the vector."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.writers.columns import Batch, Column


class H5ad:
    """X: the last vector column; obsm: the others; obs: the rest; uns["hyena"]: the provenance, as JSON.

    The index of obs is the first column, its repeats numbered (peak, peak-1). Rows are held to the end.
    """

    def __init__(self, columns: Sequence[Column], provenance: Mapping[str, Any]) -> None:
        self._columns, self._provenance = columns, provenance
        self._parts: dict[str, list[Any]] = {column.name: [] for column in columns}

    def write(self, batch: Batch) -> None:
        """Append rows."""
        for column in self._columns:
            values = batch[column.name]
            self._parts[column.name].append(np.asarray(values, np.float32) if column.width else list(values))

    def save(self, path: Path) -> None:
        """Write the file."""
        values = {column.name: self._joined(column) for column in self._columns}
        vectors = [column for column in self._columns if column.width]
        index = unique(map(str, values[self._columns[0].name]))
        import anndata  # heavy, and an extra

        data = anndata.AnnData(
            X=values[vectors[-1].name] if vectors else None,
            obs={column.name: values[column.name] for column in self._columns if not column.width},
            obsm={column.name: values[column.name] for column in vectors[:-1]},
            uns={"hyena": json.dumps(self._provenance)},
        )
        data.obs_names = index
        if vectors:
            data.var_names = vectors[-1].titles
        data.write_h5ad(path)

    def _joined(self, column: Column) -> Any:
        parts = self._parts[column.name]
        if column.width:
            return np.concatenate([np.empty((0, column.width), np.float32), *parts])
        dtype = {str: object, int: np.int64, float: np.float64}[column.type]
        return np.array([value for part in parts for value in part], dtype=dtype)


def unique(names: Iterable[str]) -> list[str]:
    """The names, the repeats of each numbered from 1.

    >>> unique(["a", "b", "a", "a", "a-1"])
    ['a', 'b', 'a-2', 'a-3', 'a-1']
    """
    given = list(names)
    taken, seen, found = set(given), Counter[str](), []
    for name in given:
        chosen = name
        if seen[name]:
            while chosen in taken:
                chosen = f"{name}-{seen[name]}"
                seen[name] += 1
            taken.add(chosen)
        else:
            seen[name] = 1
        found.append(chosen)
    return found


def read_h5ad(path: Path) -> tuple[list[Column], dict[str, Any], Iterator[Batch]]:
    """Columns, provenance and rows of a file that `H5ad` has written."""
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
