"""NumPy archives: arrays by column name, and the provenance as JSON under the key "hyena"; no pickles."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.writers.columns import Batch, Column, Content, TableWriter

_TYPES = {"i": int, "f": float, "U": str}


class _Npz:
    """Columns held in memory to the end, because the format needs the number of rows."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.parts: dict[str, list[np.ndarray]] = {
            c.name: [np.empty((0, c.width) if c.width else 0, _dtype(c))] for c in columns
        }

    def write(self, batch: Batch) -> None:
        for column in self.columns:
            self.parts[column.name].append(np.array(batch[column.name], dtype=_dtype(column)))


def _dtype(column: Column) -> Any:
    return np.float32 if column.width else {str: np.str_, int: np.int64, float: np.float64}[column.type]


@contextmanager
def open_npz(path: Path, columns: Sequence[Column], provenance: Mapping[str, Any]) -> Iterator[TableWriter]:
    """Open an archive, which is written when the context ends well."""
    rows = _Npz(columns)
    yield rows
    arrays = {name: np.concatenate(parts) for name, parts in rows.parts.items()}
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
    columns = [
        Column(name, _TYPES[array.dtype.kind], array.shape[1] if array.ndim == 2 else 0)
        for name, array in values.items()
    ]
    return columns, provenance, iter([values])
