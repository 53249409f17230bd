"""`hyena compare`: runs on the same test records in one table and picture.

N records, V values of a record.
"""

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from hyenacli import __version__, settings_file
from hyenacli.compare.settings import CompareSettings
from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.metrics import intervals, measure, metric_names, monitor, paired_difference
from hyenacli.inference.prediction import value_titles
from hyenacli.training.run_directory import METRICS, read_json
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna.config import HeadConfig, Task

KMERS = "k-mers"
_TABLES = ("predictions.tsv", "predictions.tsv.gz", "predictions.parquet")
_NUMBERS = ("value", "low", "high", "difference", "difference_low", "difference_high")


@dataclass(frozen=True)
class TestedRun:
    """The predictions of a run for its test records, in the order of their ids and labels.

    Attributes:
        keys: id, bases and label of each record.
        targets: as in `metrics.measure`.
        outputs: likewise, of the run.
        kmers: of its k-mer model; None where it has none.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    keys: list[tuple[str, ...]]
    targets: Floats
    outputs: Floats
    kmers: Floats | None


@dataclass(frozen=True)
class Compared:
    """A row of the table.

    Attributes:
        value: of the metric, with the ends of its interval.
        difference: from the first run, with the ends of its paired interval; NaN for the first.
    """

    name: str
    value: tuple[float, float, float]
    difference: tuple[float, float, float] = (math.nan, math.nan, math.nan)

    @property
    def verdict(self) -> str:
        """The difference in words."""
        _, low, high = self.difference
        if math.isnan(low):
            return ""
        return "better" if low > 0 else "worse" if high < 0 else "no different"


def run(config: CompareSettings) -> None:
    """Read the runs, compare them, and write a table and a plot.

    Raises:
        UserError: a directory is no run with predictions, or runs were tested on different records.
    """
    table_type(config.output, config.output_type, SCALAR_TABLES)
    require_suffix(config.plot, ".svg", "the plot is an SVG")
    for target in (config.output, config.plot):
        if target is not None:
            ensure_writable(target)
    tested = [read_run(path) for path in config.runs]
    for other in tested[1:]:
        check_same_records(tested[0], other)
    first = tested[0]
    names = [name for name in metric_names(first.task, first.outputs.shape[1]) if name != "columns_left_out"]
    metric = config.metric or monitor(first.task)
    if metric not in names:
        raise UsageError(f"a {first.task} task has no {metric}", at="--metric", remedy=nearest(metric, names))
    rows = list(compare(tested, metric, config.seed))
    columns = [Column("run", str), Column("records", int), Column("metric", str)]
    columns += [*(Column(name, float, digits=4) for name in _NUMBERS), Column("verdict", str)]
    provenance = {"hyena_version": __version__, "settings": settings_file.to_dict(config)}
    with open_table(config.output, config.output_type, columns, provenance) as table:
        for row in rows:
            numbers = dict(zip(_NUMBERS, (*row.value, *row.difference), strict=True))
            facts = {"run": row.name, "records": len(first.keys), "metric": metric, "verdict": row.verdict}
            table.write(cast("Any", {name: [value] for name, value in (facts | numbers).items()}))
    if config.plot is not None:
        from hyenacli.evaluation.line_plots import write_interval_chart  # loads matplotlib

        write_interval_chart(config.plot, [(row.name, *row.value) for row in rows], x_label=metric)


def compare(tested: Sequence[TestedRun], metric: str, seed: int) -> Iterator[Compared]:
    """Measure each run, and its difference from the first; the k-mers of the first come last."""
    first = tested[0]
    models = [(run.name, run.outputs) for run in tested]
    if first.kmers is not None:
        models.append((KMERS, first.kmers))
    for number, (name, outputs) in enumerate(models):
        value = measure(first.task, first.targets, outputs)[metric]
        bounds = intervals(first.task, first.targets, outputs, seed=seed)[metric]
        row = Compared(name, (value, *bounds))
        if number:
            difference = paired_difference(first.task, first.targets, outputs, first.outputs, seed=seed)
            row = Compared(name, row.value, difference[metric])
        yield row


def read_run(folder: Path) -> TestedRun:
    """Read the test predictions of a run of `hyena finetune`.

    Raises:
        UserError: it is no such run, is not complete, or predicts bases.
    """
    remedy = "name a complete run of `hyena finetune`, or one of its trials/"
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table is None or not (folder / METRICS).is_file():
        raise UserError("has no metrics.json with predictions", at=folder, remedy=remedy)
    facts = read_json(folder / METRICS)
    if facts.get("level") == "nucleotide":
        raise UserError(
            "predicts bases; only predictions of sequences are compared", at=folder, remedy=remedy
        )
    rows = [row for row in _rows(table) if row.get("split") == "test"]
    if not rows:
        raise UserError("was not tested on any record", at=folder, remedy=remedy)
    task, labels = cast("Task", facts["task"]), tuple(facts["labels"])
    head = HeadConfig(task, len(labels), labels)
    titles = value_titles(head)
    label_titles = [f"label_{name}" for name in labels] if f"label_{labels[0]}" in rows[0] else ["label"]
    rows.sort(key=lambda row: _key(row, label_titles))
    kmers = [f"kmers_{title}" for title in titles]
    try:
        targets = _targets(rows, label_titles, labels if task in ("binary", "multiclass") else None)
        outputs = _numbers(rows, titles)
        beside = _numbers(rows, kmers) if kmers[0] in rows[0] else None
    except (KeyError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", at=table, remedy="make the run again") from error
    keys = [_key(row, label_titles) for row in rows]
    return TestedRun(str(folder), task, labels, keys, targets, outputs, beside)


def check_same_records(first: TestedRun, other: TestedRun) -> None:
    """Raise UserError where two runs have another task, or other test records."""
    if (first.task, first.labels) != (other.task, other.labels):
        what = f"predicts {', '.join(other.labels)} ({other.task}), and {first.name} predicts "
        raise UserError(
            f"{what}{', '.join(first.labels)} ({first.task})",
            at=other.name,
            remedy="compare runs of one task",
        )
    if first.keys != other.keys:
        shared = len(set(first.keys) & set(other.keys))
        what = f"was tested on other records than {first.name}: {len(other.keys):,} and {len(first.keys):,}"
        remedy = "give both the same --test, or the same data and --seed"
        raise UserError(f"{what}, {shared:,} of them the same", at=other.name, remedy=remedy)


def _key(row: Mapping[str, str], label_titles: Sequence[str]) -> tuple[str, ...]:
    return (row["id"], str(row["n_bases"]), *(str(row[title]) for title in label_titles))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of predictions."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        lines = (line for line in stream if not line.startswith("##"))
        yield from csv.DictReader(lines, delimiter="\t")


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    from hyenacli.readers.tables import parquet_rows

    return parquet_rows(path)


def _targets(rows: Sequence[Mapping[str, Any]], titles: Sequence[str], names: Sequence[str] | None) -> Floats:
    if names is None:
        return _numbers(rows, titles)
    classes = {name: float(number) for number, name in enumerate(names)} | {"": -1.0}
    return np.array([classes[str(row[titles[0]])] for row in rows])


def _numbers(rows: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Floats:
    """Return numbers (N, V) of rows, NaN where a cell is empty."""
    cells = [[row[title] for title in titles] for row in rows]
    return np.array([[math.nan if cell in ("", None) else float(cell) for cell in row] for row in cells])
