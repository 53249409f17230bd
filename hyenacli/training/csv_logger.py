"""Training metrics as a CSV that survives being stopped and resumed."""

import csv
import io
from pathlib import Path
from typing import Self, TextIO


class CSVLogger:
    """metrics.csv of a run as a context: one row a step, evaluation columns filled where one was made.

    Opening it for a resumed run drops the rows after the checkpoint, whose steps will be made again.

    Args:
        path: the CSV file.
        columns: its header; the first is the step.
        resume_step: keep the rows of an earlier run up to this step; None starts a new file.
        write: false on ranks that must leave the file alone.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], resume_step: int | None, *, write: bool):
        self._stream: TextIO = io.StringIO()
        if write:
            _start(path, columns, resume_step)
            self._stream = path.open("a", newline="", buffering=1)
        self._writer = csv.DictWriter(self._stream, columns, restval="", extrasaction="raise")

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self._stream.close()

    def write(self, row: dict[str, float]) -> None:
        """Append one row; whole numbers in full, others with nine digits."""
        self._writer.writerow({k: f"{v:.9g}" if v % 1 else int(v) for k, v in row.items()})


def _start(path: Path, columns: tuple[str, ...], resume_step: int | None) -> None:
    """Write the header, and the rows that stay, in one operation."""
    rows = read_metrics(path) if resume_step is not None and path.exists() else []
    draft = path.with_suffix(".tmp")
    with draft.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(row for row in rows if int(row["step"]) <= (resume_step or 0))
    draft.replace(path)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a metrics.csv; a last line cut short by a crash is left out."""
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
        return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
