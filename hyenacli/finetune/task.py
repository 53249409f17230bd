"""The task of labelled data, inferred from the labels of the training records.

Legend of shape suffixes: L bases, C label columns.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hyenacli import console
from hyenacli.adaptation.labels import (
    LabelScheme,
    RequestedTask,
    as_numbers,
    check_decimal_commas,
    kinds_of,
    natural_order,
    number,
    numbers_of,
    read_labels,
    text_of,
    tracks_of,
)
from hyenacli.errors import UsageError, UserError, abbreviate, quote
from hyenacli.readers.tables import LabelledRecord
from hyenadna.config import Level, Task

# Whole numbers without gaps are classes up to so many; more of them are counts.
_MAX_NUMBERED_CLASSES = 100
# Labels at least this long, as long as their sequences, are labels of bases.
_LABELS_OF_BASES = 8


def infer_task(
    records: Sequence[LabelledRecord],
    label_names: Sequence[str],
    requested: RequestedTask = "auto",
    level: Level = "sequence",
) -> LabelScheme:
    """Infer the task of training data, and its classes.

    The rules of `auto`: One column of texts: classes. One column of numbers: two different whole numbers, or
    up to 100 without a gap from 0 or 1 on, are classes; other numbers are a regression. Several columns:
    multilabel where all are 0 or 1, else a regression with an output for each.

    Args:
        records: the training data, all with labels.
        label_names: the label columns (`LabelledRows.label_names`).
        requested: the task, or auto.
        level: a label for a sequence, or for every base.

    Raises:
        UsageError: the requested task has another number of label columns.
        UserError: there are no records or no labels, a label is missing, texts are mixed with numbers, there
            is one class only, or the labels do not suit the task or level.

    >>> rows = [LabelledRecord(str(i), b"ACGT", label) for i, label in enumerate(["b", "a", "b"])]
    >>> scheme = infer_task(rows, ["label"])
    >>> scheme.sentence
    "task binary (inferred): 2 classes in column 'label' of 3 sequences: a (1), b (2)"
    """
    if not records:
        raise UserError("there are no training records", remedy="give data, or hold out fewer of them")
    if not label_names:
        raise UserError(
            "there are no labels", at=records[0].file, remedy="name their column with --label-column"
        )
    names, n = tuple(label_names), len(records)
    how = "inferred" if requested == "auto" else "as asked"
    if len(names) > 1:
        ranges = _measure_columns(records, names, level)
        inferred = _task_of_columns(ranges, requested, names, records[0].file)
        sentence = f"task {inferred} ({how}): {_describe_columns(ranges, inferred, n)}"
        return LabelScheme(inferred, level, names, sentence)
    if level == "sequence":
        _refuse_labels_of_bases(records)
    counts = _count_labels(records, requested, level, names[0])
    inferred = _task_of_column(counts, requested, names[0], records)
    if inferred == "regression":
        outputs = names
    else:
        outputs = natural_order(list(counts.counts))
        _warn_of_cases(outputs, names[0])
    description = _describe_column(counts, inferred, outputs, names[0], n, level)
    return LabelScheme(inferred, level, outputs, f"task {inferred} ({how}): {description}")


def _warn_of_cases(labels: Sequence[str], name: str) -> None:
    """Warn of classes that differ in upper and lower case only: they may be meant as one."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[label.casefold()].append(label)
    same = [" and ".join(map(quote, group)) for group in spellings.values() if len(group) > 1]
    if same:
        console.log.warning(
            "column '%s' has classes that differ in case only: %s; write them alike if they are one class",
            name,
            abbreviate(same),
        )


@dataclass
class _LabelCounts:
    """The contents of one label column.

    Attributes:
        counts: of each label; fractions of bases are counted only where they are classes.
        text: the first record with a label that is not a number, and the label.
        number: the first record with a number, and the label.
        has_fractions: whether some number is not whole.
        n_labels: sequences or bases with a label.
        n_missing: bases without one.
    """

    counts: Counter[str] = field(default_factory=Counter)
    text: tuple[LabelledRecord, str] | None = None
    number: tuple[LabelledRecord, str] | None = None
    has_fractions: bool = False
    low: float = math.inf
    high: float = -math.inf
    n_labels: int = 0
    n_missing: int = 0

    def add(self, record: LabelledRecord, label: str, times: int, *, count_fractions: bool) -> None:
        """Count a label, under its canonical name."""
        value = number(label)
        self.n_labels += times
        if value is None:
            self.text = self.text or (record, label)
        else:
            self.number = self.number or (record, label)
            self.low, self.high = min(self.low, value), max(self.high, value)
            if not value.is_integer():
                self.has_fractions = True
                if not count_fractions:
                    return
        self.counts[label] += times


def _count_labels(
    records: Sequence[LabelledRecord], requested: RequestedTask, level: Level, name: str
) -> _LabelCounts:
    counts = _LabelCounts()
    if level == "sequence":
        for record, label in zip(records, read_labels(records, text_of), strict=True):
            counts.add(record, label, 1, count_fractions=True)
        return counts
    tracks = read_labels(records, lambda record: tracks_of(record, (name,))[0])
    for record, track in zip(records, tracks, strict=True):
        labels, _, repeats = kinds_of(track)
        for label, times in zip(labels, repeats.tolist(), strict=True):
            if label:
                counts.add(record, label, times, count_fractions=requested in ("binary", "multiclass"))
            else:
                counts.n_missing += times
    return counts


def _refuse_labels_of_bases(records: Sequence[LabelledRecord]) -> None:
    """Raise UserError if every label is as long as its sequence."""
    texts = [record.label for record in records if isinstance(record.label, str)]
    if len(texts) == len(records) and all(
        len(text) == len(record.sequence) >= _LABELS_OF_BASES
        for text, record in zip(texts, records, strict=True)
    ):
        raise records[0].error("the label has one letter for every base", "give --level nucleotide")


def _task_of_column(
    counts: _LabelCounts, requested: RequestedTask, name: str, records: Sequence[LabelledRecord]
) -> Task:
    if requested == "multilabel":
        remedy = "name several columns of 0 and 1 with --label-column, or leave the task out"
        raise UsageError(f"multilabel needs several label columns, and '{name}' is one", remedy=remedy)
    file = records[0].file
    if counts.n_labels == 0:
        raise UserError("no base has a label", at=file)
    if counts.text and requested in ("auto", "regression"):
        check_decimal_commas(counts.text[0], [label for label in counts.counts if number(label) is None])
    task = _guess_task(counts) if requested == "auto" else requested
    if task == "regression" and counts.text:
        record, text = counts.text
        raise record.error(f"label {quote(text)} is not a number", "a regression needs numbers")
    labels = [f"{counts.low:g}", f"{counts.high:g}"] if task == "regression" else list(counts.counts)
    if len(set(labels)) == 1:
        what = f"all labels are {quote(labels[0])}, so that there is nothing to learn"
        raise UserError(what, at=file, remedy="give records of at least two classes, or of different numbers")
    if requested == "binary" and len(labels) != 2:
        names = abbreviate(natural_order(labels))
        what = f"a binary task has two classes, the labels have {len(labels)}: {names}"
        raise UserError(what, at=file, remedy="give --task multiclass")
    if requested == "auto" and counts.text and len(labels) == counts.n_labels > 2:
        what = f"no two labels in column '{name}' are alike, so that there is nothing to learn"
        raise UserError(what, at=file, remedy="name the column of classes or numbers with --label-column")
    return task


def _guess_task(counts: _LabelCounts) -> Task:
    if counts.text and counts.number:
        (record, text), (other, value) = counts.text, counts.number
        what = f"label {quote(text)} is a text, but '{value}' ({other.unit} {other.line}) is a number"
        raise record.error(what, "correct the labels, or give --task multiclass if both are names of classes")
    if counts.text:
        return "binary" if len(counts.counts) == 2 else "multiclass"
    if counts.has_fractions:
        return "regression"
    if len(counts.counts) == 2:
        return "binary"
    first, n = int(counts.low), len(counts.counts)
    gapless = first in (0, 1) and counts.high - counts.low == n - 1
    return "multiclass" if gapless and n <= _MAX_NUMBERED_CLASSES else "regression"


def _describe_column(
    counts: _LabelCounts, task: Task, labels: Sequence[str], name: str, n_records: int, level: Level
) -> str:
    where = f"column '{name}' of {n_records:,} sequences"
    if level == "nucleotide":
        where = f"column '{name}', {counts.n_labels:,} bases of {n_records:,} sequences"
        if counts.n_missing:
            where += f" ({counts.n_missing:,} more have no label and are left out)"
    if task == "regression":
        return f"numbers from {counts.low:g} to {counts.high:g} in {where}"
    counted = abbreviate([f"{label} ({counts.counts[label]:,})" for label in labels], 10)
    return f"{len(labels)} classes in {where}: {counted}"


@dataclass
class _Ranges:
    """The contents of several label columns: least and largest number (C,), and missing labels."""

    low_C: NDArray[np.float32]
    high_C: NDArray[np.float32]
    n_missing: int = 0
    not_binary: tuple[LabelledRecord, float] | None = None  # a label that is neither 0 nor 1

    @property
    def constant(self) -> int:
        """The number of columns in which all labels are equal, or missing."""
        return int((~(self.low_C < self.high_C)).sum())


def _measure_columns(records: Sequence[LabelledRecord], names: tuple[str, ...], level: Level) -> _Ranges:
    ranges = _Ranges(np.full(len(names), np.inf, np.float32), np.full(len(names), -np.inf, np.float32))

    def read(record: LabelledRecord) -> NDArray[np.float32]:
        if level == "sequence":
            return numbers_of(record, names)[None]
        return as_numbers(tracks_of(record, names), record)

    for record, rows in zip(records, read_labels(records, read), strict=True):
        absent = np.isnan(rows)
        ranges.low_C = np.minimum(ranges.low_C, np.where(absent, np.inf, rows).min(0))
        ranges.high_C = np.maximum(ranges.high_C, np.where(absent, -np.inf, rows).max(0))
        ranges.n_missing += int(absent.sum())
        if ranges.not_binary is None:
            others = rows[~absent & (rows != 0) & (rows != 1)]
            ranges.not_binary = (record, float(others[0])) if others.size else None
    return ranges


def _task_of_columns(ranges: _Ranges, requested: RequestedTask, names: tuple[str, ...], file: str) -> Task:
    if requested in ("binary", "multiclass"):
        what = f"{requested} has one label column, and there are {len(names)}: {abbreviate(names)}"
        raise UsageError(what, remedy="name one with --label-column, or leave the task out")
    if requested == "multilabel" and ranges.not_binary:
        record, value = ranges.not_binary
        raise record.error(f"label {value:g} is neither 0 nor 1", "give --task regression")
    if ranges.constant == len(names):
        what = f"all labels are equal in every one of {len(names)} columns: there is nothing to learn"
        raise UserError(what, at=file, remedy="give records of different labels")
    if requested == "regression" or ranges.not_binary:
        return "regression"
    return "multilabel"


def _describe_columns(ranges: _Ranges, task: Task, n_records: int) -> str:
    numbers = "0 and 1" if task == "multilabel" else "numbers"
    notes = [f"labels missing: {ranges.n_missing:,}"] if ranges.n_missing else []
    if ranges.constant:
        notes.append(f"columns without any difference: {ranges.constant:,}")
    tail = f" ({', '.join(notes)})" if notes else ""
    return f"{len(ranges.low_C)} columns of {numbers} for {n_records:,} sequences{tail}"
