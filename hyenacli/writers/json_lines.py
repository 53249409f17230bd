"""JSON Lines: an object per row, keys in the order of the columns; a missing number is null."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.writers.columns import Batch, BufferedTableWriter, Column, TableFormat, TableWriter
from hyenacli.writers.text import TextFormat, WriteBytes, open_gzip, write_lines


@dataclass(frozen=True, kw_only=True)
class JsonLinesFormat(TextFormat, TableFormat):
    """Tables as JSON Lines (https://jsonlines.org)."""

    mark: bytes = b"# hyena JSON Lines shard "
    bytes_per_number: int = 12

    @contextmanager
    def open(
        self, target: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
    ) -> Iterator[TableWriter]:
        """Open a table for writing, `-` for stdout.

        Raises:
            UserError: as `atomic_path`.
        """
        with self.open_records(target, provenance) as write:
            rows = BufferedTableWriter(_Writer(write, columns))
            yield rows
            rows.flush()


class _Writer:
    def __init__(self, write: WriteBytes, columns: Sequence[Column]) -> None:
        self._write, self._columns = write, columns

    def write(self, batch: Batch) -> None:
        names = [column.name for column in self._columns]
        cells = [_values(column, batch[column.name]) for column in self._columns]
        rows = (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))
        write_lines(self._write, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _values(column: Column, values: Any) -> Iterator[Any]:
    """Yield the values of a column as JSON has them, numbers with the column's significant digits."""
    if column.type is str:
        return map(str, values)
    if column.type is int:
        return map(int, values)
    if not column.width:
        return (_number(value, column.digits) for value in np.ravel(values).tolist())
    return ([_number(value, column.digits) for value in row] for row in np.asarray(values).tolist())


def _number(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


JSON_LINES = JsonLinesFormat(suffix="jsonl", stdout=True)
JSON_LINES_GZ = JsonLinesFormat(suffix="jsonl.gz", pack=open_gzip)
