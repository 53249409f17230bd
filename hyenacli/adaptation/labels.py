"""What labels mean: the task they pose, their classes in order, and their numbers.

Legend of shape suffixes: N records, L bases of one, C label columns, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyenacli.adaptation.label_values import (
    as_numbers,
    kinds_of,
    numbers_of,
    text_of,
    tracks_of,
)
from hyenacli.errors import UsageError
from hyenacli.genome.names import abbreviate, natural_key
from hyenacli.readers.labelled_record import LabelledRecord
from hyenadna.config import Level, Task

AskedTask = Literal["auto", "binary", "multiclass", "multilabel", "regression"]
Targets = NDArray[np.int64] | NDArray[np.float32]
"""Classes, or numbers."""

IGNORED = -100
"""The class of what has no label; losses and metrics leave it out, as they do NaN."""


@dataclass(frozen=True)
class LabelScheme:
    """A task, and how its labels become numbers.

    Attributes:
        task: binary and multiclass have one class of K; multilabel any of C labels; regression C numbers.
        level: a label for a sequence, or one for every base.
        names: the K classes in natural order (of two, the second is the positive one), or the C columns.
        sentence: what was found, and in what.
    """

    task: Task
    level: Level
    names: tuple[str, ...]
    sentence: str = field(default="", compare=False)

    @property
    def n_outputs(self) -> int:
        """Numbers that a head gives: K or C."""
        return len(self.names)

    @property
    def has_classes(self) -> bool:
        """Whether targets are classes (int64) and not numbers (float32)."""
        return self.task in ("binary", "multiclass")

    def encode(self, record: LabelledRecord) -> Targets:
        """The target of a record: () int64 or (C,) float32, of bases (L,) int64 or (L, C) float32.

        What is missing is `IGNORED` or NaN, which is everything where the input has no labels.

        Raises:
            UserError: the label is missing, is none of the classes, is no number, or there is not one for
                every base; the message names file and line.
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
        """The targets of records with one label each: (N,) int64 or (N, C) float32.

        Raises:
            UserError: as `encode`.
            ValueError: the labels are those of bases, and lengths differ.
        """
        encoded: Targets = np.stack([self.encode(record) for record in records])  # type: ignore[assignment]
        return encoded

    def _nothing(self, record: LabelledRecord) -> Targets:
        shape = (len(record.sequence),) if self.level == "nucleotide" else ()
        if self.has_classes:
            return np.full(shape, IGNORED, np.int64)
        return np.full((*shape, self.n_outputs), np.nan, np.float32)

    def _class(self, name: str, record: LabelledRecord) -> int:
        if name not in self._classes:
            what = f"label '{name[:40]}' is not in the training data, which have {abbreviate(self.names)}"
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
    """Weights that give every class the same say in the loss, from training targets of any shape.

    Returns:
        Classes: (K,), the labels there are over K times those of the class, so that the mean weight of a
        label is 1. Multilabel: (C,), what a 1 weighs against a 0: zeros over ones, and 1 for a column that
        has no ones or no zeros.

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
    """Names of classes in the order of their outputs.

    >>> natural_order(["10", "9", "-1"]), natural_order(["positive", "negative"])
    (('-1', '9', '10'), ('negative', 'positive'))
    """
    return tuple(sorted(names, key=natural_key))
