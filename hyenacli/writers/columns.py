"""What a table is made of: columns, and batches of rows.

A batch is a mapping of column name to values, all of one length N: sequences of str or int, and float32
arrays (N, width) for vectors. Missing vectors are NaN rows. (HDF5 keeps more than one vector per record: see
`hdf5`.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

_ROWS_AT_ONCE = 256
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: as it stands in the file.
        type: str, int or float: one number, or a vector of float32 where there is a width.
        width: numbers in the vector.
        prefix: TSV has one column per number, named prefix + index.
        digits: significant ones of a number in TSV; 9 give a float32 back.
    """

    name: str
    type: type
    width: int = 0
    prefix: str = "e"
    digits: int = 9

    @property
    def titles(self) -> list[str]:
        """Names of its TSV columns.

        >>> Column("embedding", float, 3).titles
        ['e0', 'e1', 'e2']
        """
        return [f"{self.prefix}{i}" for i in range(self.width)] or [self.name]


class TableWriter(Protocol):
    """What every table type offers."""

    def write(self, batch: Batch) -> None:
        """Append rows."""


class BufferedTableWriter:
    """Hands rows on in batches of many: one at a time they cost more to write than to make.

    Args:
        writer: of the rows.
    """

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer
        self._waiting: list[Batch] = []
        self._rows = 0

    def write(self, batch: Batch) -> None:
        """Append rows."""
        self._waiting.append(batch)
        self._rows += len(next(iter(batch.values())))
        if self._rows >= _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Hand on what is waiting."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            self._writer.write({name: _joined([batch[name] for batch in waiting]) for name in waiting[0]})


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, list) for part in parts):
        return [value for part in parts for value in part]
    return np.concatenate([np.asarray(part) for part in parts])
