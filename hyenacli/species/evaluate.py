"""How well species are told apart, by the length of what is read: the paper's Table 4.5 for any label set.

N window, K species.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli import console, settings_file
from hyenacli.errors import UserError
from hyenacli.evaluation.kmer_baseline import fit_baseline
from hyenacli.evaluation.metrics import measure
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.species.splits import SpeciesSplits
from hyenacli.species.training_data import HeldOut, K, SpeciesSource, bases_of
from hyenadna import HyenaDNA

_FIRST, _FACTOR = 256, 4


@dataclass(frozen=True)
class AccuracyAtLength:
    """What came of windows of one length.

    Attributes:
        length: bases of a window.
        truth_N: places of their species in the label set.
        p_NK: how probable each species is.
        low: of the 95 % bootstrap interval of the accuracy.
        high: of it.
        kmers: accuracy of the k-mer model fitted to windows of this length; NaN where there is none.
    """

    length: int
    truth_N: NDArray[np.int64]
    p_NK: NDArray[np.float64]
    low: float
    high: float
    kmers: float

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K): windows of a row's species that were taken for a column's."""
        species = self.p_NK.shape[1]
        counts_KK = np.zeros((species, species), np.int64)
        np.add.at(counts_KK, (self.truth_N, self.p_NK.argmax(axis=1)), 1)
        return counts_KK

    @property
    def accuracy(self) -> float:
        """The share that is told right."""
        return float(self.confusion.trace() / self.windows)

    def answered(self, threshold: float) -> tuple[float, float]:
        """The share whose likeliest species is as probable as that, and the accuracy on it; NaN on none."""
        sure_N = self.p_NK.max(axis=1) >= threshold
        right_N = self.p_NK.argmax(axis=1) == self.truth_N
        return float(sure_N.mean()), float(right_N[sure_N].mean()) if sure_N.any() else math.nan

    @property
    def windows(self) -> int:
        """How many there were."""
        return int(self.confusion.sum())

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,): share of each species' windows that are taken for it."""
        share_K: NDArray[np.float64] = self.confusion.diagonal() / np.maximum(1, self.confusion.sum(1))
        return share_K

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,): share of the windows taken for each species that are of it."""
        share_K: NDArray[np.float64] = self.confusion.diagonal() / np.maximum(1, self.confusion.sum(0))
        return share_K


def read_run(run: Path) -> SpeciesTrainSettings:
    """The settings of a run of `classify-species train`.

    Raises:
        UserError: it is none.
    """
    path = run / "config.yaml"
    known = list(SpeciesTrainSettings.__dataclass_fields__)
    if not path.is_file():
        raise UserError("is no run directory", at=run, remedy="name one of `hyena classify-species train`")
    try:
        values = settings_file.read_yaml(path, known)
    except UserError:
        remedy = "name a run of `hyena classify-species train`"
        raise UserError("is a run of another verb", at=run, remedy=remedy) from None
    values |= {key: Path(values[key]) for key in ("output", "species_file") if key in values}
    return SpeciesTrainSettings(**values)


def default_lengths(longest: int) -> list[int]:
    """256, 1,024, 4,096 and so on, and the longest.

    >>> default_lengths(1024), default_lengths(5000)
    ([256, 1024], [256, 1024, 4096, 5000])
    """
    found = [longest]
    length = _FIRST
    while length < longest:
        found.append(length)
        length *= _FACTOR
    return sorted(found)


def evaluate_species(
    model: HyenaDNA,
    splits: SpeciesSplits,
    settings: SpeciesTrainSettings,
    lengths: Sequence[int],
    *,
    split: str,
    per_species: int,
    kmers: bool,
    precision: Callable[[], AbstractContextManager[Any]],
) -> Iterator[AccuracyAtLength]:
    """Judge a model on windows of each length, read as `hyena classify-species predict` reads contigs.

    Args:
        model: of the run, in eval mode, on its device.
        splits: of the run's genomes.
        settings: of the run: its seed and its strands.
        lengths: bases of a window.
        split: which windows.
        per_species: how many windows of each species.
        kmers: whether a k-mer model is fitted to training windows of each length, and judged beside.
        precision: context of every pass.
    """
    for length in lengths:
        held = HeldOut(splits, split, length, per_species)
        for sentence in held.missing:
            console.log.warning("%s", sentence)
        if len(np.unique(held.labels_N)) < len(splits.names):
            console.log.warning("%s bases are left out: a species has no such window", f"{length:,}")
            continue
        device = next(model.parameters()).device
        logits = held.logits(model, rc=settings.rc == "mean", precision=precision, device=device)
        low, high = held.evaluator.intervals(logits, settings.seed)["accuracy"]
        beside = _kmers(splits, settings, held, length) if kmers else math.nan
        yield AccuracyAtLength(length, held.labels_N, held.evaluator.outputs(logits), low, high, beside)


def _kmers(splits: SpeciesSplits, settings: SpeciesTrainSettings, held: HeldOut, length: int) -> float:
    """Accuracy of the k-mer model of a length; its penalty is chosen by the validation windows.

    NaN, and a warning, where a species has no such window.
    """
    valid = HeldOut(splits, "valid", length, settings.eval_windows)
    if len(np.unique(valid.labels_N)) < len(splits.names):
        sentence = "no k-mer model of %s bases: a species has no such validation window to choose it by"
        console.log.warning(sentence, f"{length:,}")
        return math.nan
    train = SpeciesSource(settings, splits).baseline_windows(length)
    task, validation = held.evaluator.scheme.task, (valid.sequences, valid.evaluator.targets)
    fitted = fit_baseline(bases_of(train.inputs), train.targets, task, valid=validation, lengths=(K,))
    return measure(task, held.evaluator.targets, fitted.predict(held.sequences))["accuracy"]
