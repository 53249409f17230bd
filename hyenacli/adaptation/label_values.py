"""What is written in a label: names of classes, numbers, one or the other for every base.

Legend of shape suffixes: L bases, C label columns.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.readers.labelled_record import LabelledRecord, Track

Tracks = NDArray[np.str_] | Track
"""A label per base, as texts or as numbers (L,)."""

MISSING = frozenset({"", "NA", "N/A", "NaN", "nan"})
"""Texts that stand for no label; of a base `.` does too."""
_WHOLE = re.compile(r"[+]?(-?\d+)\.0*", re.ASCII)
_NO_LABEL = "remove such records, or fill the labels in"


def canonical(text: str) -> str:
    """A class by one name: what wrote whole numbers as 1.0 means 1.

    >>> canonical("1.0"), canonical(" exon"), canonical("v1.0")
    ('1', 'exon', 'v1.0')
    """
    bare = text.strip()
    whole = _WHOLE.fullmatch(bare)
    return whole[1] if whole else bare


def number(text: str) -> float | None:
    """The finite number that a text is, None for another text.

    >>> number("-1e3"), number("inf"), number("exon")
    (-1000.0, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def text_of(record: LabelledRecord) -> str:
    """The class or number of a sequence, as written.

    Raises:
        UserError: it is missing, or there is one for every base.
    """
    if isinstance(record.label, np.ndarray):
        raise record.error("a list of labels where one is expected", "give --level nucleotide")
    if isinstance(record.label, tuple):
        raise record.error(
            f"{len(record.label)} labels where one is expected", "name one with --label-column"
        )
    if record.label is None or record.label in MISSING:
        raise missing_label(record)
    return canonical(record.label)


def missing_label(record: LabelledRecord) -> UserError:
    """The error that a record has no label."""
    return record.error("the label is missing", _NO_LABEL)


def numbers_of(record: LabelledRecord, names: tuple[str, ...]) -> Track:
    """The numbers of a sequence (C,), NaN where one of several is missing.

    Raises:
        UserError: one is no number, all are missing, or there are not as many as `names`.
    """
    cells = [cell for cell in _cells(record, names) if isinstance(cell, str)]
    if len(cells) < len(names):
        raise record.error("a list of labels where one is expected", "give --level nucleotide")
    try:
        values = list(map(float, cells))
    except ValueError:
        values = [math.nan if cell in MISSING else _number(cell, record) for cell in cells]
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
    """The labels of a record, one for each of `names`."""
    if record.label is None:
        raise missing_label(record)
    cells = record.label if isinstance(record.label, tuple) else (record.label,)
    if len(cells) != len(names):
        raise record.error(f"label columns: {len(cells)} here, {len(names)} in the training data")
    return cells


def _number(cell: str, record: LabelledRecord) -> float:
    value = number(cell)
    if value is None:
        remedy = "a regression, and several label columns, need numbers"
        raise record.error(f"label '{cell[:40]}' is not a number", remedy)
    return value


def tracks_of(record: LabelledRecord, names: tuple[str, ...]) -> list[Tracks]:
    """The labels per base of every label column: texts or numbers (L,), '' or NaN where one is missing.

    A text is one letter per base (`0011222`, `.` for none) or a list (`0,0,1.5`), separated by commas,
    semicolons or blanks, with or without brackets.

    Raises:
        UserError: the label is missing or has not one item per base.
    """
    tracks = []
    for cell, name in zip(_cells(record, names), names, strict=True):
        if isinstance(cell, str) and cell in MISSING:
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
            return np.array([math.nan if item in MISSING else float(item) for item in items], np.float32)
    except ValueError:
        return np.array(["" if item in MISSING or item == "." else item for item in items])


def as_numbers(tracks: list[Tracks], record: LabelledRecord) -> NDArray[np.float32]:
    """Labels per base as numbers (L, C).

    Raises:
        UserError: a label is no finite number.
    """
    columns = [np.where(track == "", "nan", track) if track.dtype.kind == "U" else track for track in tracks]
    try:
        with np.errstate(over="ignore"):
            numbers_LC = np.stack([column.astype(np.float32) for column in columns], axis=1)
    except ValueError as error:
        raise record.error(str(error), "a regression, and several label columns, need numbers") from None
    return _finite(numbers_LC, record)


def kinds_of(track: Tracks) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """The different labels of bases by canonical name ('' for missing), which base has which, and how many.

    >>> kinds_of(np.float32([1, 0, np.nan, 1]))
    (['0', '1', ''], array([1, 0, 2, 1]), array([1, 2, 1]))
    """
    values, which_L, counts = np.unique(track, return_inverse=True, return_counts=True)
    if values.dtype.kind == "U":
        return [canonical(str(value)) for value in values], which_L, counts
    return ["" if math.isnan(v) else canonical(f"{v:.9g}") for v in values.tolist()], which_L, counts
