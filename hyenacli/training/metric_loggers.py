"""Loggers of a training run: metrics.csv, TensorBoard, and the progress that a person sees."""

import csv
import datetime as dt
import importlib.util
import io
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from hyenacli import console
from hyenacli.errors import UserError
from hyenacli.evaluation.line_plots import curve, smoothed
from hyenacli.training.loop import Step
from hyenacli.writers.multiqc import write_curves, write_numbers


class CSVLogger:
    """metrics.csv of a run as a context: one row a step, evaluation columns filled where one was made.

    Args:
        path: the CSV file.
        columns: its header; the first is the step.
        keep: bytes of an earlier file that stay, up to the step that the run goes on from; 0 starts anew.
        write: false on ranks that must leave the file alone.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], keep: int, *, write: bool):
        self._stream = path.open("a", newline="", buffering=1) if write else io.StringIO()
        self._stream.truncate(keep)
        self._writer = csv.DictWriter(self._stream, columns, restval="", extrasaction="raise")
        if not keep:
            self._writer.writeheader()

    def __enter__(self) -> Self:
        """Return the logger."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self._stream.close()

    def write(self, row: dict[str, float]) -> None:
        """Append one row; integral numbers in full, others with nine digits."""
        self._writer.writerow({k: f"{v:.9g}" if v % 1 else int(v) for k, v in row.items()})


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read the rows of a metrics.csv; a last line cut short by a crash is left out."""
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
        return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def write_multiqc(run: Path, kind: str, numbers: Mapping[str, float]) -> None:
    """Write the curves of metrics.csv, if steps were made, and numbers of the model as MultiQC shows them.

    Args:
        run: its directory.
        kind: of the run, as pretraining.
        numbers: by name.

    Raises:
        UserError: as `atomic_path`.
    """
    metrics = run / "metrics.csv"
    if metrics.is_file() and (rows := read_metrics(metrics)):
        write_curves(run, kind, smoothed(curve(rows, "step", "loss")), curve(rows, "step", "valid_loss"))
    write_numbers(run, kind, numbers)


class TensorBoardLogger:
    """Context that writes every number of a row as a scalar of its step, in `RUN/tensorboard`.

    Args:
        run: the run directory.
        resume_step: what an earlier process wrote after this step is hidden.

    Raises:
        UserError: the package `tensorboard` is not installed.
    """

    def __init__(self, run: Path, resume_step: int):
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1)

    def __enter__(self) -> Self:
        """Return the logger."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Flush and close the files."""
        self._writer.close()

    def write(self, row: dict[str, float]) -> None:
        """Write one row of metrics.csv; `step` is the x axis."""
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self._writer.add_scalar(name, value, int(row["step"]))


def check_tensorboard() -> None:
    """Raise UserError, which names the extra, unless the package is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed", at="--tensorboard", remedy="pip install tensorboard")


class TrainingProgress:
    """Context that shows steps as they are made: a bar on a terminal, a line at every evaluation.

    Args:
        total: steps of the run.
        done: steps made before.
        bits: the loss is in nats per base, and is shown in bits too.
    """

    def __init__(self, total: int, done: int, *, bits: bool):
        self._total, self._done, self._bits = total, done, bits
        self._started = time.monotonic()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Show the bar."""
        progress = console.Progress("training", self._total, "steps", done=self._done)
        self._progress = self._stack.enter_context(progress)
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        self._stack.close()

    def show(self, number: int, step: Step) -> None:
        """Show that step `number` (1-based) was made."""
        bits = f"  {step.loss / math.log(2):.3f} bits/base" if self._bits else ""
        detail = f"loss {step.loss:.4f}{bits}  length {step.length:,}  {step.tokens_per_second:,.0f} tokens/s"
        self._progress.update(number, detail)
        if step.evaluation:
            numbers = [f"{k} {v:.4f}" for k, v in list(step.evaluation.items())[:2] if math.isfinite(v)]
            parts = [f"step {number}/{self._total}", detail, *numbers, f"{self._remaining(number)} left"]
            console.log.info("%s", "  ".join(parts))

    def _remaining(self, number: int) -> dt.timedelta:
        """Estimate the time of the remaining steps from the pace so far."""
        pace = (time.monotonic() - self._started) / max(1, number - self._done)
        return dt.timedelta(seconds=round(pace * (self._total - number)))
