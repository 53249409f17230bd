"""Labels: the task they pose, their classes in order, and their texts as numbers.

N records, L bases of a record, C label columns, K classes.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, UserError, abbreviate, quote
from hyenacli.genome.contigs import natural_key
from hyenacli.readers.tables import LabelledRecord, Track
from hyenacli.readers.text import is_missing
from hyenadna.config import Level, Task

T = TypeVar("T")
RequestedTask = Literal["auto", "binary", "multiclass", "multilabel", "regression"]
Targets = NDArray[np.int64] | NDArray[np.float32]
"""Classes, or numbers."""

IGNORED = -100
"""The class of a missing label; losses and metrics leave it out, as they do NaN."""


@dataclass(frozen=True)
class LabelScheme:
    """A task, and how its labels become numbers.

    Attributes:
        task: binary and multiclass have one class of K; multilabel any of C labels; regression C numbers.
        level: a label for a sequence, or one for every base.
        names: the K classes in natural order (of two, the second is the positive one), or the C columns.
        sentence: describes task and classes.
    """

    task: Task
    level: Level
    names: tuple[str, ...]
    sentence: str = field(default="", compare=False)

    @property
    def n_outputs(self) -> int:
        """Outputs of a head: K or C."""
        return len(self.names)

    @property
    def has_classes(self) -> bool:
        """True where targets are classes (int64), False where they are numbers (float32)."""
        return self.task in ("binary", "multiclass")

    def encode(self, record: LabelledRecord) -> Targets:
        """Return the target of a record: () int64 or (C,) float32, of bases (L,) int64 or (L, C) float32.

        Missing labels are `IGNORED` or NaN, as are all labels of an input without any.

        Raises:
            UserError: the label is missing, is not one of the classes, is not a number, or there is not one
                for every base; the message names file and line.
        """
        if record.label is None:
            return self._nothing(record)
        if self.level == "sequence" and self.has_classes:
            return np.array(self._class(text_of(record), record), dtype=np.int64)
        if self.level == "sequence":
            return self._checked(numbers_of(record, self.names), record)
        if not self.has_classes:
            return self._checked(as_numbers(tracks_of(record, self.names), record), record)
        [track] = tracks_of(record, ("label",))
        kinds, which_L, _ = kinds_of(track)
        codes = np.array([self._class(kind, record) if kind else IGNORED for kind in kinds], dtype=np.int64)
        codes_L: Targets = codes[which_L]
        return codes_L

    def targets(self, records: Sequence[LabelledRecord]) -> Targets:
        """Return the targets of records with one label each: (N,) int64 or (N, C) float32.

        Raises:
            UserError: as `encode`.
            ValueError: the labels are those of bases, and lengths differ.
        """
        encoded: Targets = np.stack(read_labels(records, self.encode))  # type: ignore[assignment]
        return encoded

    def _nothing(self, record: LabelledRecord) -> Targets:
        shape = (len(record.sequence),) if self.level == "nucleotide" else ()
        if self.has_classes:
            return np.full(shape, IGNORED, np.int64)
        return np.full((*shape, self.n_outputs), np.nan, np.float32)

    def _class(self, name: str, record: LabelledRecord) -> int:
        if name not in self._classes:
            what = f"label {quote(name)} is not in the training data, which have {abbreviate(self.names)}"
            raise record.error(what, "train on records of every class, or take this one out")
        return self._classes[name]

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def _checked(self, numbers: NDArray[np.float32], record: LabelledRecord) -> NDArray[np.float32]:
        if self.task == "multilabel":
            wrong = numbers[~(np.isnan(numbers) | (numbers == 0) | (numbers == 1))]
            if wrong.size:
                raise record.error(f"label {wrong[0]:g} is neither 0 nor 1", "give --task regression")
        return numbers


def class_weights(scheme: LabelScheme, targets: Targets) -> NDArray[np.float32]:
    """Compute weights that let every class count the same in the loss, from training targets of any shape.

    Returns:
        Classes: (K,), all labels over K times those of the class, so that the mean weight of a label is 1.
        Multilabel: (C,), the weight of a 1 against a 0: zeros over ones, and 1 for a column without ones
        or zeros.

    Raises:
        UsageError: the task is a regression, which has no classes.
    """
    if scheme.has_classes:
        counts_K = np.bincount(targets[targets >= 0].astype(np.int64), minlength=scheme.n_outputs)
        weights_K = counts_K.sum() / (scheme.n_outputs * np.maximum(counts_K, 1))
        return np.asarray(weights_K, np.float32)
    if scheme.task == "regression":
        raise UsageError("a regression has no classes to weigh", remedy="leave class weights out")
    rows_NC = targets.reshape(-1, scheme.n_outputs)
    ones_C, zeros_C = (rows_NC == 1).sum(0), (rows_NC == 0).sum(0)
    both = (ones_C > 0) & (zeros_C > 0)
    return np.where(both, zeros_C / np.maximum(ones_C, 1), 1).astype(np.float32)


def natural_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes in the order of their outputs.

    >>> natural_order(["10", "9", "-1"]), natural_order(["positive", "negative"])
    (('-1', '9', '10'), ('negative', 'positive'))
    """
    return tuple(sorted(names, key=natural_key))


Tracks = NDArray[np.str_] | Track
"""A label per base, as texts or as numbers (L,)."""

_DECIMAL_COMMA = re.compile(r"[+-]?[\d.]*\d,\d+([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+]?(-?\d+)\.0*", re.ASCII)
_NO_LABEL = "remove such records, or fill the labels in"


def canonical(text: str) -> str:
    """Return a class by its canonical name: a whole number written as 1.0 is 1.

    >>> canonical("1.0"), canonical(" exon"), canonical("v1.0")
    ('1', 'exon', 'v1.0')
    """
    bare = text.strip()
    match = _WHOLE.fullmatch(bare)
    return match[1] if match else bare


def number(text: str) -> float | None:
    """Return the finite number that a text spells, None for another text.

    >>> number("-1e3"), number("inf"), number("exon")
    (-1000.0, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check_decimal_commas(record: LabelledRecord, texts: Sequence[str]) -> None:
    """Raise UserError if all texts, of which a record has the first, are numbers with a comma."""
    if all(map(_DECIMAL_COMMA.fullmatch, texts)):
        remedy = "write numbers with a point, or give --task multiclass if these are names of classes"
        raise record.error(f"label {quote(texts[0])} is a number with a comma", remedy)


def read_labels(records: Iterable[LabelledRecord], read: Callable[[LabelledRecord], T]) -> list[T]:
    """Return what is read of every record.

    Raises:
        UserError: as `read`, of the first record, with the number and the first lines of all others.
    """
    values, faulty = [], []
    for record in records:
        try:
            values.append(read(record))
        except UserError as error:
            faulty.append((record, error))
    if not faulty:
        return values
    (_, first), *others = faulty
    if not others:
        raise first
    lines = abbreviate([f"{record.line:,}" for record, _ in others])
    raise UserError(f"{first}; {len(others):,} more cannot be read, in {others[0][0].unit}s {lines}")


def text_of(record: LabelledRecord) -> str:
    """Return the class or number of a sequence, as written.

    Raises:
        UserError: it is missing, or there is one for every base.
    """
    if isinstance(record.label, np.ndarray):
        raise record.error("a list of labels where one is expected", "give --level nucleotide")
    if isinstance(record.label, tuple):
        raise record.error(
            f"{len(record.label)} labels where one is expected", "name one with --label-column"
        )
    if record.label is None or is_missing(record.label):
        raise missing_label(record)
    return canonical(record.label)


def missing_label(record: LabelledRecord) -> UserError:
    """Return the error that a record has no label."""
    return record.error("the label is missing", _NO_LABEL)


def numbers_of(record: LabelledRecord, names: tuple[str, ...]) -> Track:
    """Return the numbers of a sequence (C,), NaN where some of several are missing.

    Raises:
        UserError: a label is not a number, all are missing, or there are not as many as `names`.
    """
    cells = [cell for cell in _cells(record, names) if isinstance(cell, str)]
    if len(cells) < len(names):
        raise record.error("a list of labels where one is expected", "give --level nucleotide")
    try:
        values = list(map(float, cells))
    except ValueError:
        values = [math.nan if is_missing(cell) else _number(cell, record) for cell in cells]
    with np.errstate(over="ignore"):
        numbers_C = np.array(values, dtype=np.float32)
    if np.isnan(numbers_C).all():
        raise missing_label(record)
    return _finite(numbers_C, record)


def _finite(numbers: NDArray[np.float32], record: LabelledRecord) -> NDArray[np.float32]:
    if np.isinf(numbers).any():
        raise record.error("a label is infinite, or too large for single precision", "scale the labels")
    return numbers


def _cells(record: LabelledRecord, names: tuple[str, ...]) -> tuple[str | Track, ...]:
    """Return the labels of a record, one for each of `names`."""
    if record.label is None:
        raise missing_label(record)
    cells = record.label if isinstance(record.label, tuple) else (record.label,)
    if len(cells) != len(names):
        raise record.error(f"label columns: {len(cells)} here, {len(names)} in the training data")
    return cells


def _number(cell: str, record: LabelledRecord) -> float:
    value = number(cell)
    if value is None:
        check_decimal_commas(record, [cell])
        remedy = "a regression, and several label columns, need numbers"
        raise record.error(f"label {quote(cell)} is not a number", remedy)
    return value


def tracks_of(record: LabelledRecord, names: tuple[str, ...]) -> list[Tracks]:
    """Return the labels per base of every label column: texts or numbers (L,), '' or NaN where missing.

    A text is one letter per base (`0011222`, `.` for none) or a list (`0,0,1.5`), separated by commas,
    semicolons or blanks, with or without brackets.

    Raises:
        UserError: the label is missing or has not one item per base.
    """
    tracks = []
    for cell, name in zip(_cells(record, names), names, strict=True):
        if isinstance(cell, str) and is_missing(cell):
            raise missing_label(record)
        track = _parsed(cell) if isinstance(cell, str) else cell
        if len(track) != len(record.sequence):
            where = f" in column '{name}'" if len(names) > 1 else ""
            what = f"{len(track)} labels{where} for {len(record.sequence)} bases"
            raise record.error(what, "write one label per base, as 0011222 or 0,0,1.5")
        tracks.append(track)
    return tracks


def _parsed(text: str) -> Tracks:
    inner = text.strip().removeprefix("[").removesuffix("]").strip()
    for separator in (",", ";", None):
        items = inner.split(separator)
        if len(items) > 1:
            return _listed([item.strip() for item in items])
    letters = np.array(list(inner))
    letters[letters == "."] = ""
    return letters


def _listed(items: list[str]) -> Tracks:
    try:
        with np.errstate(over="ignore"):
            return np.array([math.nan if is_missing(item) else float(item) for item in items], np.float32)
    except ValueError:
        return np.array(["" if is_missing(item) or item == "." else item for item in items])


def as_numbers(tracks: list[Tracks], record: LabelledRecord) -> NDArray[np.float32]:
    """Return labels per base as numbers (L, C).

    Raises:
        UserError: a label is not a finite number.
    """
    columns = [np.where(track == "", "nan", track) if track.dtype.kind == "U" else track for track in tracks]
    try:
        with np.errstate(over="ignore"):
            numbers_LC = np.stack([column.astype(np.float32) for column in columns], axis=1)
    except ValueError as error:
        raise record.error(str(error), "a regression, and several label columns, need numbers") from None
    return _finite(numbers_LC, record)


def kinds_of(track: Tracks) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Return the distinct labels of bases by canonical name ('' for missing), their indices and counts.

    >>> kinds_of(np.float32([1, 0, np.nan, 1]))
    (['0', '1', ''], array([1, 0, 2, 1]), array([1, 2, 1]))
    """
    values, which_L, counts = np.unique(track, return_inverse=True, return_counts=True)
    if values.dtype.kind == "U":
        return [canonical(str(value)) for value in values], which_L, counts
    return ["" if math.isnan(v) else canonical(f"{v:.9g}") for v in values.tolist()], which_L, counts
