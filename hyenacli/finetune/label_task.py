"""The task that labels pose, as far as the training data tell it.

Legend of shape suffixes: L bases, C label columns.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hyenacli.adaptation.label_values import as_numbers, kinds_of, number, numbers_of, text_of, tracks_of
from hyenacli.adaptation.labels import AskedTask, LabelScheme, natural_order
from hyenacli.errors import UsageError, UserError
from hyenacli.genome.names import abbreviate
from hyenacli.readers.labelled_record import LabelledRecord
from hyenadna.config import Level, Task

# Whole numbers without gaps are classes up to so many; more of them are counts.
_MAX_NUMBERED_CLASSES = 100
# Labels at least this long, as long as their sequences, are labels of bases.
_LABELS_OF_BASES = 8


def infer_task(
    records: Sequence[LabelledRecord],
    label_names: Sequence[str],
    asked: AskedTask = "auto",
    level: Level = "sequence",
) -> LabelScheme:
    """The task of training data, and its classes.

    `auto` decides so. One column of texts: classes. One column of numbers: two different whole numbers, or
    up to 100 without a gap from 0 or 1 on, are classes; other numbers are a regression. Several columns:
    multilabel where all are 0 or 1, else a regression with an output for each.

    Args:
        records: the training data, all with labels.
        label_names: the label columns (`LabelledRows.label_names`).
        asked: the task, or auto.
        level: what has labels.

    Raises:
        UsageError: the task asked for has another number of label columns.
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
    how = "as asked" if asked != "auto" else "inferred"
    if len(names) > 1:
        ranges = _measure(records, names, level)
        task = _task_of_columns(ranges, asked, names, records[0].file)
        return LabelScheme(task, level, names, f"task {task} ({how}): {_what_columns(ranges, task, n)}")
    if level == "sequence":
        _refuse_labels_of_bases(records)
    tally = _count(records, asked, level, names[0])
    task = _task_of_column(tally, asked, names[0], records)
    outputs = names if task == "regression" else natural_order(list(tally.counts))
    found = _what_column(tally, task, outputs, names[0], n, level)
    return LabelScheme(task, level, outputs, f"task {task} ({how}): {found}")


@dataclass
class _Tally:
    """What one label column holds.

    Attributes:
        counts: how often there is which label; of bases, fractions are counted only where they are classes.
        texts: the first record with a label that is no number, and the label.
        numbers: likewise of one that is.
        has_fractions: whether some number is not whole.
        low: the least number.
        high: the largest.
        n_labels: how many sequences or bases have a label.
        n_missing: how many bases have none.
    """

    counts: Counter[str] = field(default_factory=Counter)
    texts: tuple[LabelledRecord, str] | None = None
    numbers: tuple[LabelledRecord, str] | None = None
    has_fractions: bool = False
    low: float = math.inf
    high: float = -math.inf
    n_labels: int = 0
    n_missing: int = 0

    def add(self, record: LabelledRecord, label: str, times: int, *, count_fractions: bool) -> None:
        """Take note of a label, under its canonical name."""
        value = number(label)
        self.n_labels += times
        if value is None:
            self.texts = self.texts or (record, label)
        else:
            self.numbers = self.numbers or (record, label)
            self.low, self.high = min(self.low, value), max(self.high, value)
            if not value.is_integer():
                self.has_fractions = True
                if not count_fractions:
                    return
        self.counts[label] += times


def _count(records: Sequence[LabelledRecord], asked: AskedTask, level: Level, name: str) -> _Tally:
    tally = _Tally()
    for record in records:
        if level == "sequence":
            tally.add(record, text_of(record), 1, count_fractions=True)
            continue
        [track] = tracks_of(record, (name,))
        kinds, _, counts = kinds_of(track)
        for kind, times in zip(kinds, counts.tolist(), strict=True):
            if kind:
                tally.add(record, kind, times, count_fractions=asked in ("binary", "multiclass"))
            else:
                tally.n_missing += times
    return tally


def _refuse_labels_of_bases(records: Sequence[LabelledRecord]) -> None:
    """Raise if every label is as long as its sequence."""
    texts = [record.label for record in records if isinstance(record.label, str)]
    if len(texts) == len(records) and all(
        len(text) == len(record.sequence) >= _LABELS_OF_BASES
        for text, record in zip(texts, records, strict=True)
    ):
        raise records[0].error("the label has one letter for every base", "give --level nucleotide")


def _task_of_column(tally: _Tally, asked: AskedTask, name: str, records: Sequence[LabelledRecord]) -> Task:
    if asked == "multilabel":
        remedy = "name several columns of 0 and 1 with --label-column, or leave the task out"
        raise UsageError(f"multilabel needs several label columns, and '{name}' is one", remedy=remedy)
    file = records[0].file
    if tally.n_labels == 0:
        raise UserError("no base has a label", at=file)
    task = _guess_task(tally) if asked == "auto" else asked
    if task == "regression" and tally.texts:
        record, label = tally.texts
        raise record.error(f"label '{label[:40]}' is not a number", "a regression needs numbers")
    kinds = [f"{tally.low:g}", f"{tally.high:g}"] if task == "regression" else list(tally.counts)
    if len(set(kinds)) == 1:
        what = f"all labels are '{kinds[0][:40]}', so that there is nothing to learn"
        raise UserError(what, at=file, remedy="give records of at least two classes, or of different numbers")
    if asked == "binary" and len(kinds) != 2:
        what = (
            f"a binary task has two classes, the labels have {len(kinds)}: {abbreviate(natural_order(kinds))}"
        )
        raise UserError(what, at=file, remedy="give --task multiclass")
    if asked == "auto" and tally.texts and len(kinds) == tally.n_labels > 2:
        what = f"no two labels in column '{name}' are alike, so that there is nothing to learn"
        raise UserError(what, at=file, remedy="name the column of classes or numbers with --label-column")
    return task


def _guess_task(tally: _Tally) -> Task:
    if tally.texts and tally.numbers:
        (record, text), (other, value) = tally.texts, tally.numbers
        what = f"label '{text[:40]}' is a text, but '{value}' ({other.unit} {other.line}) is a number"
        raise record.error(what, "correct the labels, or give --task multiclass if both are names of classes")
    if tally.texts:
        return "binary" if len(tally.counts) == 2 else "multiclass"
    if tally.has_fractions:
        return "regression"
    if len(tally.counts) == 2:
        return "binary"
    first, n = int(tally.low), len(tally.counts)
    gapless = first in (0, 1) and tally.high - tally.low == n - 1
    return "multiclass" if gapless and n <= _MAX_NUMBERED_CLASSES else "regression"


def _what_column(
    tally: _Tally, task: Task, kinds: Sequence[str], name: str, n_records: int, level: Level
) -> str:
    where = f"column '{name}' of {n_records:,} sequences"
    if level == "nucleotide":
        where = f"column '{name}', {tally.n_labels:,} bases of {n_records:,} sequences"
        if tally.n_missing:
            where += f" ({tally.n_missing:,} more have no label and are left out)"
    if task == "regression":
        return f"numbers from {tally.low:g} to {tally.high:g} in {where}"
    counted = abbreviate([f"{kind} ({tally.counts[kind]:,})" for kind in kinds], 10)
    return f"{len(kinds)} classes in {where}: {counted}"


@dataclass
class _Ranges:
    """What several label columns hold: least and largest number (C,), what is missing, and where."""

    low_C: NDArray[np.float32]
    high_C: NDArray[np.float32]
    n_missing: int = 0
    odd: tuple[LabelledRecord, float] | None = None  # a label that is neither 0 nor 1

    @property
    def constant(self) -> int:
        """Columns in which all labels are equal, or missing."""
        return int((~(self.low_C < self.high_C)).sum())


def _measure(records: Sequence[LabelledRecord], names: tuple[str, ...], level: Level) -> _Ranges:
    ranges = _Ranges(np.full(len(names), np.inf, np.float32), np.full(len(names), -np.inf, np.float32))
    for record in records:
        if level == "sequence":
            rows = numbers_of(record, names)[None]
        else:
            rows = as_numbers(tracks_of(record, names), record)
        absent = np.isnan(rows)
        ranges.low_C = np.minimum(ranges.low_C, np.where(absent, np.inf, rows).min(0))
        ranges.high_C = np.maximum(ranges.high_C, np.where(absent, -np.inf, rows).max(0))
        ranges.n_missing += int(absent.sum())
        if ranges.odd is None:
            odd = rows[~absent & (rows != 0) & (rows != 1)]
            ranges.odd = (record, float(odd[0])) if odd.size else None
    return ranges


def _task_of_columns(ranges: _Ranges, asked: AskedTask, names: tuple[str, ...], file: str) -> Task:
    if asked in ("binary", "multiclass"):
        what = f"{asked} has one label column, and there are {len(names)}: {abbreviate(names)}"
        raise UsageError(what, remedy="name one with --label-column, or leave the task out")
    if asked == "multilabel" and ranges.odd:
        record, value = ranges.odd
        raise record.error(f"label {value:g} is neither 0 nor 1", "give --task regression")
    if ranges.constant == len(names):
        what = f"all labels are equal in every one of {len(names)} columns: there is nothing to learn"
        raise UserError(what, at=file, remedy="give records of different labels")
    if asked == "regression" or ranges.odd:
        return "regression"
    return "multilabel"


def _what_columns(ranges: _Ranges, task: Task, n_records: int) -> str:
    numbers = "0 and 1" if task == "multilabel" else "numbers"
    notes = [f"labels missing: {ranges.n_missing:,}"] if ranges.n_missing else []
    if ranges.constant:
        notes.append(f"columns without any difference: {ranges.constant:,}")
    tail = f" ({', '.join(notes)})" if notes else ""
    return f"{len(ranges.low_C)} columns of {numbers} for {n_records:,} sequences{tail}"
