"""Windows of genomes, as tokens and as bases: training examples of species, and held-out windows.

N window, W base of a window, P part of a window that is read at once, B example, K species.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyenacli.adaptation.evaluation import Logits, SplitEvaluator, predict_over_ranks
from hyenacli.adaptation.examples import HostBatch, apply_head
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.errors import UserError
from hyenacli.inference.intervals import SPLITS
from hyenacli.inference.prediction import predict, prediction_options
from hyenacli.inference.windows import cut
from hyenacli.readers.genome import Tokens, plain_tokens
from hyenacli.readers.records import SequenceRecord
from hyenacli.species.genomes import SpeciesGenomes, open_species, read_species, use_published_splits
from hyenacli.species.predict import pool, species_head
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.species.splits import SpeciesSampler, SpeciesSplits, fixed_species_windows, split_species
from hyenacli.writers.atomic import atomic_path
from hyenadna import HyenaDNA

SPLITS_FILE = "splits.bed"
K = 6
# The k-mer model is fitted to at most so many windows, and so many bases.
_FITTED, _FITTED_BASES = 4_000, 1 << 25
_LETTERS = np.full(256, ord("N"), np.uint8)
_LETTERS[[7, 8, 9, 10]] = np.frombuffer(b"ACGT", np.uint8)


def open_run_genomes(settings: SpeciesTrainSettings) -> SpeciesGenomes:
    """Open the genomes of a run.

    Raises:
        UsageError, UserError: as `read_species`, `open_species` and `use_published_splits`.
    """
    genomes = open_species(read_species(settings.species_file, settings.species or ()))
    return use_published_splits(genomes) if settings.published_splits else genomes


def split_run(settings: SpeciesTrainSettings, genomes: SpeciesGenomes, window: int) -> SpeciesSplits:
    """Split the genomes of a run into training, validation and test intervals.

    Raises:
        UserError: as `split_species`.
    """
    return split_species(
        genomes,
        valid=settings.valid_fraction,
        test=settings.test_fraction,
        window=window,
        seed=settings.seed,
    )


def fingerprints(genomes: SpeciesGenomes) -> list[dict[str, str | int]]:
    """Return what run.json says of the files of all species."""
    return [genome.fingerprint() for files in genomes.genomes for genome in files]


def write_splits(run: Path, splits: SpeciesSplits) -> None:
    """Write the splits into a run as a BED: contig, start, end, split and species, by species."""
    with atomic_path(run / SPLITS_FILE) as target:
        target.write_text(_bed(splits), encoding="utf-8")


def check_splits(run: Path, splits: SpeciesSplits) -> None:
    """Check that splits are those a run was trained with: a YAML may have changed since.

    Raises:
        UserError: they are not, or the run does not say.
    """
    path = run / SPLITS_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != _bed(splits):
        raise UserError(
            "the species, their order or what is held out of them are no longer those of the run",
            at=path,
            remedy="put the YAML back as it was, or this file, or train again",
        )


def _bed(splits: SpeciesSplits) -> str:
    return "".join(
        f"{splits.contigs[interval.contig].name}\t{interval.start}\t{interval.end}\t{split}\t{species}\n"
        for species, by_split in zip(splits.names, splits.splits, strict=True)
        for interval, split in sorted(
            (interval, split) for split in SPLITS for interval in getattr(by_split, split)
        )
    )


def scheme_of(names: tuple[str, ...]) -> LabelScheme:
    """Return species as the classes of a label scheme."""
    return LabelScheme("binary" if len(names) == 2 else "multiclass", "sequence", names)


class SpeciesSource:
    """Training windows of all species in equal numbers; an `ExampleSource`.

    Args:
        settings: of the run.
        splits: of its genomes.
    """

    def __init__(self, settings: SpeciesTrainSettings, splits: SpeciesSplits) -> None:
        self._sampler = SpeciesSampler(
            splits.contigs, splits.intervals("train"), settings.seed, rc_augment=settings.rc_augment
        )
        self._species = len(splits.names)

    def read(self, numbers: range, length: int) -> HostBatch:
        """Read windows of `length` bases by their numbers, as tokens (N, W), and their species (N,)."""
        codes_NW, labels_N = self._sampler.rows(numbers, length)
        return HostBatch(plain_tokens(codes_NW), labels_N)

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute the logits (B, K) of windows."""
        return apply_head(model, inputs)

    def baseline_windows(self, length: int) -> HostBatch:
        """Read the windows that the k-mer model is fitted to."""
        return self.read(range(max(10 * self._species, min(_FITTED, _FITTED_BASES // length))), length)


class HeldOut:
    """Windows of a split, the same count of every species where there are as many.

    Args:
        splits: of the genomes.
        split: valid or test.
        length: bases of a window.
        per_species: how many.

    Attributes:
        labels_N: indices of their species in the label set.
        missing: a sentence for each species that has fewer.
    """

    def __init__(self, splits: SpeciesSplits, split: str, length: int, per_species: int) -> None:
        windows = fixed_species_windows(splits, split, length, per_species)
        self._tokens_NW, self._length = windows.tokens_NW, length
        self.labels_N, self.missing = windows.labels_N, windows.missing
        self._scheme = scheme_of(splits.names)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._tokens_NW)

    @cached_property
    def evaluator(self) -> SplitEvaluator:
        """The species of each; there is at least one window."""
        return SplitEvaluator(self._scheme, list(self.labels_N))

    @property
    def sequences(self) -> list[bytes]:
        """The bases of each."""
        return bases_of(self._tokens_NW)

    def logits(
        self,
        model: HyenaDNA,
        *,
        rc: bool,
        precision: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
    ) -> list[Logits]:
        """Compute a model's logits (K,) of each window, the same on every rank.

        Windows longer than the model's are read in parts and pooled as `classify-species predict` does it,
        except that parts that are mostly N count too.
        """
        options = prediction_options(species_head(model), rc=rc)
        spans = [
            (start, end)
            for start, end, _, _ in cut(0, self._length, *options.windows(model.config, model.longest_input))
        ]

        def compute(model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
            records = (
                SequenceRecord("", "", start, end, bases=bases[start:end])
                for bases in bases_of(self._tokens_NW[list(indices)])
                for start, end in spans
            )
            answers = predict(model, records, options)
            logits = [answer.logits for answer in answers if answer.logits is not None]
            logits_NPK = np.stack(logits).reshape(len(indices), len(spans), -1)
            return [pool(spans, logits_PK)[1] for logits_PK in logits_NPK]

        model.eval()
        with torch.inference_mode(), precision():
            return predict_over_ranks(compute, model, range(len(self)), [0] * len(self), device)


def bases_of(tokens_NW: Tokens) -> list[bytes]:
    """Return the bases of token ids.

    >>> bases_of(np.array([[7, 8, 9, 10, 11]], np.uint8))
    [b'ACGTN']
    """
    return [row_W.tobytes() for row_W in _LETTERS[tokens_NW]]
