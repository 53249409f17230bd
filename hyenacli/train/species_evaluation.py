"""How well species are told apart, by the length of what is read: the paper's Table 4.5 for any label set.

N window, K species.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli import console, settings_file
from hyenacli.config import SpeciesTrainConfig
from hyenacli.data.labels import LabelScheme
from hyenacli.data.species import open_species, read_species
from hyenacli.data.species_splits import SpeciesSplits, split_species, use_published_splits
from hyenacli.data.species_windows import SpeciesSampler, fixed_species_windows
from hyenacli.data.store import plain_tokens
from hyenacli.errors import UsageError, UserError
from hyenacli.score.predict import predict
from hyenacli.train.judge import Judge, Logits
from hyenacli.train.kmer_baseline import fit_baseline
from hyenacli.train.quality import intervals, measure
from hyenacli.train.species import K, bases_of, fitted_windows, window_stretch
from hyenadna import HyenaDNA

_FIRST, _FACTOR = 256, 4


@dataclass(frozen=True)
class LengthQuality:
    """What came of windows of one length.

    Attributes:
        length: bases of a window.
        accuracy: share that is told right, `low` and `high` its 95 % bootstrap interval.
        kmers: accuracy of the k-mer model fitted to windows of this length; NaN without.
        confusion_KK: windows of a row's species that were taken for a column's.
    """

    length: int
    accuracy: float
    low: float
    high: float
    kmers: float
    confusion_KK: NDArray[np.int64]

    @property
    def windows(self) -> int:
        """How many there were."""
        return int(self.confusion_KK.sum())

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,): share of each species' windows that are taken for it."""
        share_K: NDArray[np.float64] = self.confusion_KK.diagonal() / np.maximum(1, self.confusion_KK.sum(1))
        return share_K

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,): share of the windows taken for each species that are of it."""
        share_K: NDArray[np.float64] = self.confusion_KK.diagonal() / np.maximum(1, self.confusion_KK.sum(0))
        return share_K


def read_run(run: Path) -> SpeciesTrainConfig:
    """The settings of a run of `classify-species train`.

    Raises:
        UserError: it is none.
    """
    path = run / "config.yaml"
    known = list(SpeciesTrainConfig.__dataclass_fields__)
    if not path.is_file():
        raise UserError("is no run directory", at=run, remedy="name one of `hyena classify-species train`")
    try:
        values = settings_file.read_yaml(path, known)
    except UserError:
        remedy = "name a run of `hyena classify-species train`"
        raise UserError("is a run of another verb", at=run, remedy=remedy) from None
    values |= {key: Path(values[key]) for key in ("output", "species_file") if key in values}
    return SpeciesTrainConfig(**values)


def open_splits(settings: SpeciesTrainConfig, window: int) -> SpeciesSplits:
    """The genomes of a run, split as for its training."""
    genomes = open_species(read_species(settings.species_file, settings.species or ()))
    if settings.published_splits:
        genomes = use_published_splits(genomes)
    return split_species(
        genomes,
        valid=settings.valid_fraction,
        test=settings.test_fraction,
        window=window,
        seed=settings.seed,
    )


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
    settings: SpeciesTrainConfig,
    lengths: Sequence[int],
    *,
    split: str,
    per_species: int,
    kmers: bool,
    precision: Callable[[], AbstractContextManager[Any]],
) -> Iterator[LengthQuality]:
    """Judge a model on windows of each length, which it reads at once.

    Args:
        model: of the run, in eval mode, on its device.
        splits: of the run's genomes.
        settings: of the run: its seed and its strands.
        lengths: bases of a window.
        split: which windows.
        per_species: how many windows of each species.
        kmers: whether a k-mer model is fitted to training windows of each length, and judged beside.
        precision: context of every pass.

    Raises:
        UsageError: a length that the model does not take.
    """
    names = splits.names
    scheme = LabelScheme("binary" if len(names) == 2 else "multiclass", "sequence", names)
    for length in lengths:
        if not 1 <= length <= model.longest_input:
            raise UsageError(
                f"{length:,} bases are not what the model takes, at most {model.longest_input:,}",
                at="--lengths",
                remedy="give others",
            )
        held = fixed_species_windows(splits, split, length, per_species)
        for sentence in held.missing:
            console.log.warning("%s", sentence)
        if len(np.unique(held.labels_N)) < len(names):
            console.log.warning("%s bases are left out: a species has no such window", f"{length:,}")
            continue
        stretches = (window_stretch(row) for row in held.tokens_NW)
        with torch.inference_mode(), precision():
            answers = predict(model, stretches, rc=settings.rc == "mean", window=length)
            logits: list[Logits] = [one.logits for one in answers if one.logits is not None]
        judge = Judge(scheme, list(held.labels_N))
        outputs_NK = judge.outputs(logits)
        confusion_KK = np.zeros((len(names), len(names)), np.int64)
        np.add.at(confusion_KK, (held.labels_N, outputs_NK.argmax(axis=1)), 1)
        low, high = intervals(scheme.task, held.labels_N, outputs_NK, seed=settings.seed)["accuracy"]
        accuracy = measure(scheme.task, held.labels_N, outputs_NK)["accuracy"]
        beside = float("nan")
        if kmers:
            sequences = [bases_of(row) for row in held.tokens_NW]
            beside = _kmers(splits, settings, scheme, length, (sequences, held.labels_N))
        yield LengthQuality(length, accuracy, low, high, beside, confusion_KK)


def _kmers(
    splits: SpeciesSplits,
    settings: SpeciesTrainConfig,
    scheme: LabelScheme,
    length: int,
    held: tuple[Sequence[bytes], NDArray[np.int64]],
) -> float:
    """Accuracy of the k-mer model of a length; its penalty is chosen by the validation windows."""
    sampler = SpeciesSampler(
        splits.contigs, splits.intervals("train"), settings.seed, rc_augment=settings.rc_augment
    )
    codes_NW, labels_N = sampler.rows(range(fitted_windows(length, len(splits.names))), length)
    valid = fixed_species_windows(splits, "valid", length, settings.eval_windows)
    fitted = fit_baseline(
        [bases_of(row) for row in plain_tokens(codes_NW)],
        labels_N,
        scheme.task,
        valid=([bases_of(row) for row in valid.tokens_NW], valid.labels_N),
        lengths=(K,),
    )
    return measure(scheme.task, held[1], fitted.predict(held[0]))["accuracy"]
