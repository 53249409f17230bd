"""Windows of species with their classes: the balanced training stream, and the fixed evaluation set.

Legend of shape suffixes: N windows, W bases in a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyenacli.inference.intervals import Interval
from hyenacli.inference.sampling import WindowSampler, fixed_windows
from hyenacli.readers.token_store import Codes, Contig, Tokens
from hyenacli.species.splits import SpeciesSplits
from hyenadna.tokenizer import PAD

Classes = NDArray[np.int64]
"""Places of species in the label set."""


class SpeciesSampler:
    """The training stream: window i and its class are a pure function of (seed, i).

    With K species, numbers jK to jK + K - 1 have every species once for any j, in an order of their own; a
    batch whose size is a multiple of K, and that begins at one, is balanced. Within a species windows lie as
    `WindowSampler` lays them: uniformly over the bases of all its intervals.

    Args:
        contigs: of all species.
        intervals: where windows of each species may lie.
        seed: of the stream.
        rc_augment: read every window as its reverse complement with probability 1/2.
    """

    def __init__(
        self,
        contigs: Sequence[Contig],
        intervals: Sequence[Sequence[Interval]],
        seed: int,
        *,
        rc_augment: bool,
    ):
        self._samplers = [WindowSampler(contigs, mine, seed, rc_augment=rc_augment) for mine in intervals]
        self._seed = seed

    def labels(self, numbers: Sequence[int]) -> Classes:
        """Classes (N,) of windows `numbers`."""
        return np.array([self._label(number) for number in numbers], np.int64)

    def rows(self, numbers: Sequence[int], width: int) -> tuple[Codes, Classes]:
        """Windows `numbers` of the stream, `width` bases each, as codes (N, W), and their classes (N,)."""
        labels_N = self.labels(numbers)
        codes_NW = np.empty((len(numbers), width), np.uint8)
        for label, sampler in enumerate(self._samplers):
            places = np.flatnonzero(labels_N == label)
            if places.size:
                codes_NW[places] = sampler.rows([numbers[place] for place in places.tolist()], width)
        return codes_NW, labels_N

    def _label(self, number: int) -> int:
        turn, place = divmod(number, len(self._samplers))
        # The last word of the counter keeps these words apart from those that WindowSampler draws with.
        words = np.random.Philox(key=self._seed, counter=[0, turn, 0, 1]).random_raw(len(self._samplers))
        return int(np.argsort(words, kind="stable")[place])


@dataclass(frozen=True)
class SpeciesWindows:
    """Windows to evaluate on.

    Attributes:
        tokens_NW: token ids, the species one after the other.
        labels_N: their classes.
        missing: a sentence for every species with fewer windows than asked for.
    """

    tokens_NW: Tokens
    labels_N: Classes
    missing: tuple[str, ...]


def fixed_species_windows(splits: SpeciesSplits, split: str, width: int, per_species: int) -> SpeciesWindows:
    """So many windows of each species, spread evenly over one of its splits, or as many as there are.

    Args:
        splits: of the species.
        split: 'train', 'valid' or 'test'.
        width: bases of a window, W; a shorter stretch gives none.
        per_species: how many windows.
    """
    rows, missing = [], []
    for name, intervals in zip(splits.names, splits.intervals(split), strict=True):
        found_NW = fixed_windows(splits.contigs, intervals, width, per_species)
        # Where there is no whole window it gives what is left of the stretches, filled up with [PAD].
        rows.append(found_NW[found_NW[:, -1] != PAD])
        if len(rows[-1]) < per_species:
            missing.append(
                f"{name}: {len(rows[-1]):,} {split} windows of {width:,} bases instead of {per_species:,}"
            )
    labels_N = np.repeat(np.arange(len(rows)), [len(found_NW) for found_NW in rows])
    return SpeciesWindows(np.concatenate(rows), labels_N, tuple(missing))
