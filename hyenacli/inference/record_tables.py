"""Embeddings and predictions as rows of a table, and counts of the records of a run.

K layers, E numbers per vector, C outputs of a head, V values shown of them, L bases, N rows of a record
(1, or L).
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hyenacli import console
from hyenacli.console import log
from hyenacli.errors import UsageError, abbreviate, nearest
from hyenacli.evaluation.calibration import probabilities
from hyenacli.inference.embedding import Embedded
from hyenacli.inference.embedding_options import FINAL
from hyenacli.inference.prediction import Predicted
from hyenacli.readers.records import SequenceRecord
from hyenacli.writers.columns import Batch, Column, TableFormat
from hyenadna.config import HeadConfig

_RECORD_COLUMNS = [
    *(Column("id", str), Column("chrom", str), Column("start", int), Column("end", int)),
    *(Column("strand", str), Column("n_bases", int), Column("status", str)),
]
_DIGITS = 7
Answer = TypeVar("Answer", Embedded, Predicted)


def _record_rows(record: SequenceRecord, n_bases: int, n_rows: int) -> dict[str, Any]:
    """Return the record's cells in each of its rows; where these are many, a row is a base."""
    starts, ends = np.array([record.start]), np.array([record.end])
    if n_rows > 1:
        starts = np.arange(record.start, record.end)
        ends = starts + 1
    return {
        "id": [record.id] * n_rows,
        "chrom": [record.chrom] * n_rows,
        "start": starts,
        "end": ends,
        "strand": [record.strand] * n_rows,
        "n_bases": [n_bases] * n_rows,
        "status": [record.status] * n_rows,
    }


def embedding_columns(layers: Sequence[int], width: int) -> list[Column]:
    """Return the columns of embeddings: the record's, then one vector per layer.

    A single layer is `embedding` (TSV: e0, e1, ...), whichever it is. Of several, block K is `embedding_K`
    (TSV: lK_e0, ...) and the final norm `embedding`.

    >>> [column.name for column in embedding_columns((1, 2, -1), 128)[7:]]
    ['embedding_1', 'embedding_2', 'embedding']
    """
    return [*_RECORD_COLUMNS, *(_vector(layer, width, single=len(layers) == 1) for layer in layers)]


def _vector(layer: int, width: int, *, single: bool) -> Column:
    if single or layer == FINAL:
        return Column("embedding", float, width)
    return Column(f"embedding_{layer}", float, width, prefix=f"l{layer}_e")


def embedding_rows(embedded: Embedded, columns: Sequence[Column]) -> Batch:
    """Return the rows of one record: one, or one per base (each with its start and end) if unpooled."""
    vectors = columns[len(_RECORD_COLUMNS) :]
    vectors_NKE = embedded.vectors
    if vectors_NKE is None:
        vectors_NKE = np.full((1, len(vectors), vectors[0].width), np.nan, dtype=np.float32)
    rows = _record_rows(embedded.record, embedded.n_bases, len(vectors_NKE))
    return rows | {column.name: vectors_NKE[:, k] for k, column in enumerate(vectors)}


def embedding_record(embedded: Embedded, columns: Sequence[Column]) -> Batch:
    """Return one record with the vectors of all its bases, in the order of the + strand; perhaps none."""
    vectors = columns[len(_RECORD_COLUMNS) :]
    vectors_NKE = embedded.vectors
    if vectors_NKE is None:
        vectors_NKE = np.empty((0, len(vectors), vectors[0].width), dtype=np.float32)
    row = _record_rows(embedded.record, len(vectors_NKE), 1)
    return row | {column.name: vectors_NKE[:, k] for k, column in enumerate(vectors)}


def per_base_bytes(bases: int, columns: Sequence[Column], table: TableFormat) -> int:
    """Estimate the size of a file of vectors per base, before compression.

    >>> from hyenacli.writers.tables import TABLES
    >>> per_base_bytes(1_000_000, embedding_columns((-1,), 256), TABLES["h5"])
    512000000
    """
    return bases * sum(column.width for column in columns) * table.bytes_per_number


def value_names(head: HeadConfig) -> tuple[str, ...]:
    """Return the names of the values shown of a head: its classes or labels, or else their numbers.

    A binary head may have one output, which is that of the second class.

    >>> value_names(HeadConfig("binary", 1)), value_names(HeadConfig("binary", 1, ("tumour",)))
    (('0', '1'), ('not_tumour', 'tumour'))
    """
    names = head.labels
    if head.task == "binary" and head.n_outputs == 1:
        names = (f"not_{names[0]}", names[0]) if names else ("0", "1")
    count = max(len(names), head.n_outputs)
    return names if len(set(names)) == count else tuple(map(str, range(count)))


def prediction_columns(head: HeadConfig) -> list[Column]:
    """Return the columns of predictions: the record's, the likeliest class of classes, and each value.

    >>> [column.name for column in prediction_columns(HeadConfig("binary", 2, ("no", "yes")))[7:]]
    ['prediction', 'p_no', 'p_yes']
    >>> prediction_columns(HeadConfig("regression", 1, ("expression",)))[7].name
    'prediction'
    """
    likeliest = [Column("prediction", str)] if head.task in ("binary", "multiclass") else []
    return [*_RECORD_COLUMNS, *likeliest, *(Column(name, float, digits=_DIGITS) for name in _titles(head))]


def _titles(head: HeadConfig) -> list[str]:
    names = value_names(head)
    if head.task != "regression":
        return [f"p_{name}" for name in names]
    return ["prediction"] if len(names) == 1 else [f"prediction_{name}" for name in names]


def prediction_rows(predicted: Predicted, head: HeadConfig) -> Batch:
    """Return the rows of one record: one, or one per base (with its start and end) at level "nucleotide"."""
    titles = _titles(head)
    if predicted.logits is None:
        values_NV, likeliest = np.full((1, len(titles)), np.nan), [""]
    else:
        values_NV = head_values(predicted.logits, head)
        names = value_names(head)
        likeliest = [names[i] for i in values_NV.argmax(axis=1).tolist()]
    rows = _record_rows(predicted.record, predicted.n_bases, len(values_NV))
    if head.task in ("binary", "multiclass"):
        rows["prediction"] = likeliest
    return rows | {title: values_NV[:, i] for i, title in enumerate(titles)}


def head_values(logits: NDArray[np.float64], head: HeadConfig) -> NDArray[np.float64]:
    """Compute the values (N, V) of outputs (C,) or (L, C): probabilities, or the numbers of a regression."""
    return probabilities(head.task, np.atleast_2d(logits))


def choose_track(head: HeadConfig, name: str | None) -> int:
    """Return the index of the value of a head that a bedGraph shows.

    Raises:
        UsageError: the head does not predict bases, has no such value, or has several and none is named.
    """
    if head.level != "nucleotide":
        raise UsageError(
            "a bedGraph shows predictions of bases, and the model predicts sequences",
            remedy="write a table, as .tsv",
        )
    names = value_names(head)
    if name is not None:
        if name not in names:
            problem = f"the model has no output '{name}'"
            raise UsageError(problem, at="--track", remedy=nearest(name, list(names)))
        return names.index(name)
    if head.task == "binary":
        return 1
    if len(names) > 1:
        problem = f"a bedGraph shows one of the model's {len(names)} outputs"
        raise UsageError(problem, remedy=f"name it with --track: {abbreviate(names, 12)}")
    return 0


class RunSummary:
    """Counts of records by status, and of bases.

    Args:
        verb: of the command, as embed.
        doing: shown beside the bar, as embedding.
        done: begins the last line, as embedded.
    """

    def __init__(self, verb: str, doing: str, done: str) -> None:
        self.verb, self.doing, self.done = verb, doing, done
        self.statuses: Counter[str] = Counter()
        self.bases = 0
        self.start = time.monotonic()

    def watch(self, answers: Iterable[Answer], total: int | None) -> Iterator[Answer]:
        """Pass answers on, count them and show the progress.

        Args:
            answers: one per record.
            total: number of records, if it is known.
        """
        with console.progress("{task.completed} records", "{task.fields[speed]} bases/s") as bar:
            task = bar.add_task(self.doing, total=total, speed="")
            for answer in answers:
                yield answer
                self.statuses[answer.record.status] += 1
                self.bases += len(answer.record) if answer.n_bases else 0
                bar.update(task, advance=1, speed=f"{self.bases / (time.monotonic() - self.start):,.0f}")

    def report(self, destination: str) -> None:
        """Log how many records are done, and how many are not, by status.

        Args:
            destination: where the output is, as "to peaks.tsv".
        """
        seconds = time.monotonic() - self.start
        done = self.statuses.pop("OK", 0)
        failed = "".join(f", {count:,} {status}" for status, count in self.statuses.most_common())
        counts = f"{console.counted(done, 'record')}{failed}: {console.counted(self.bases, 'base')}"
        log.info("%s %s in %.1f s, %s", self.done, counts, seconds, destination)
        console.event(
            self.verb, records=done, failed=dict(self.statuses), bases=self.bases, seconds=round(seconds, 3)
        )
