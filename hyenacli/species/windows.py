"""Windows of genomes with the species they are of: those to train on, and those held out.

N windows, W bases of a window, K species.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyenacli.adaptation.evaluation import Logits, SplitEvaluator, predict_over_ranks
from hyenacli.adaptation.examples import HostBatch, apply_head
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.genome.contigs import match_contigs, parse_circular
from hyenacli.inference.prediction import Predicted, predict
from hyenacli.readers.genome import Tokens, plain_tokens
from hyenacli.readers.records import SequenceRecord
from hyenacli.species.predict import species_head, species_options
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.species.splits import SpeciesSampler, SpeciesSplits, fixed_species_windows
from hyenadna import HyenaDNA

# The k-mer model is fitted to at most this many windows, and this many bases.
MAX_BASELINE_WINDOWS, _MAX_BASELINE_BASES = 4_000, 1 << 25
_LETTERS = np.full(256, ord("N"), np.uint8)
_LETTERS[[7, 8, 9, 10]] = np.frombuffer(b"ACGT", np.uint8)


def scheme_of(names: tuple[str, ...]) -> LabelScheme:
    """Return species as the classes of a label scheme."""
    return LabelScheme("binary" if len(names) == 2 else "multiclass", "sequence", names)


class SpeciesSource:
    """Training windows of all species in equal numbers, of `window` bases at most; an `ExampleSource`.

    Raises:
        UsageError: --circular names a contig that no species has.
    """

    def __init__(self, settings: SpeciesTrainSettings, splits: SpeciesSplits, window: int) -> None:
        names = list(dict.fromkeys(contig.name for contig in splits.contigs))
        contigs = match_contigs(
            (), names, style="exact", aliases={}, input_name="--circular", genome_name="the genomes"
        )
        self._sampler = SpeciesSampler(
            splits.contigs,
            splits.intervals("train"),
            settings.seed,
            rc_augment=settings.rc_augment,
            circles=parse_circular(settings.circular, contigs)
            | {contig.name for contig in splits.contigs if contig.circular},
            window=window,
        )
        self._species = len(splits.names)

    def read(self, numbers: range, length: int) -> HostBatch:
        """Read windows of `length` bases by their numbers, as tokens (N, W), and their species (N,)."""
        codes_NW, labels_N = self._sampler.rows(numbers, length)
        return HostBatch(plain_tokens(codes_NW), labels_N)

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute the logits (B, K) of windows."""
        return apply_head(model, inputs)

    def baseline_windows(self, length: int, count: int) -> HostBatch:
        """Read the windows that the k-mer model is fitted to: `count`, or fewer where they are long."""
        return self.read(range(max(10 * self._species, min(count, _MAX_BASELINE_BASES // length))), length)


class HeldOut:
    """Windows of a split, the same count of every species where there are as many.

    Args:
        split: valid or test.
        length: bases of a window.
        per_species: how many.

    Attributes:
        length: bases of a window.
        labels_N: indices of their species in the label set.
        missing: a sentence for each species that has fewer.
    """

    def __init__(self, splits: SpeciesSplits, split: str, length: int, per_species: int) -> None:
        windows = fixed_species_windows(splits, split, length, per_species)
        self._tokens_NW, self.length = windows.tokens_NW, length
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
        """Compute a model's logits (K,) of each window as `predict` does; the same on every rank."""

        def compute(model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
            answers = self.answers(model, indices, rc=rc)
            return [answer.logits for answer in answers if answer.logits is not None]

        model.eval()
        with torch.inference_mode(), precision():
            return predict_over_ranks(compute, model, range(len(self)), [0] * len(self), device)

    def answers(self, model: HyenaDNA, indices: Sequence[int], *, rc: bool) -> Iterator[Predicted]:
        """Predict some windows as `hyena classify-species predict` does, without experts."""
        sequences = bases_of(self._tokens_NW[list(indices)])
        records = (SequenceRecord.of_sequence("", bases) for bases in sequences)
        return predict(model, records, species_options(species_head(model), rc=rc))


def bases_of(tokens_NW: Tokens) -> list[bytes]:
    """Return the bases of token ids.

    >>> bases_of(np.array([[7, 8, 9, 10, 11]], np.uint8))
    [b'ACGTN']
    """
    return [row_W.tobytes() for row_W in _LETTERS[tokens_NW]]
