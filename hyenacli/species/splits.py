"""The parts of every species' genomes to train, validate and test on, and windows drawn from them.

Legend of shape suffixes: N windows, W bases of a window.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError, abbreviate
from hyenacli.inference.intervals import (
    SPLITS,
    Interval,
    Splits,
    cut_into_blocks,
    fill_to_size,
    merged,
    named_contigs,
    split_by_contigs,
)
from hyenacli.inference.sampling import WindowSampler, fixed_windows, has_window
from hyenacli.readers.genome import Codes, Contig, Tokens
from hyenacli.species.genomes import Species, SpeciesGenomes
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.writers.atomic import atomic_path
from hyenadna.tokenizer import PAD

SPLITS_FILE = "splits.bed"

# Whole contigs are held out where no split misses its bases by more than this part of them.
_MAX_DEVIATION = 0.5
# The search ends at the first random order that misses them by no more than this.
_GOOD_DEVIATION = 0.1
_MAX_ORDERS = 100
_BLOCKS_PER_SPLIT = 10
# Bases that are read at once.
_PIECE = 1 << 22

Labels = NDArray[np.int64]
"""Species as indices into the label set."""


@dataclass(frozen=True)
class SpeciesSplits:
    """The contigs of all species, and their splits.

    Attributes:
        names: of the species; a label is an index into them.
        contigs: of all species, one species after the other.
        labels: the label of each contig.
        splits: of each species; the contig number of an interval is an index into `contigs`.
        notes: a sentence per species on how it was split.
    """

    names: tuple[str, ...]
    contigs: list[Contig]
    labels: list[int]
    splits: tuple[Splits, ...]
    notes: tuple[str, ...]

    def intervals(self, split: str) -> list[list[Interval]]:
        """Return the intervals of every species in "train", "valid" or "test"."""
        return [getattr(splits, split) for splits in self.splits]

    def training_bases(self, label: int, overlap: int) -> Iterator[Tokens]:
        """Yield the token ids of the training intervals of a species, in pieces that overlap."""
        for interval in self.splits[label].train:
            for start in range(interval.start, interval.end, _PIECE):
                end = min(interval.end, start + _PIECE + overlap)
                yield self.contigs[interval.contig].tokens(start, end)

    def to_bed(self) -> str:
        """Return the splits as a BED: contig, start, end, split and species, by species."""
        return "".join(
            f"{self.contigs[interval.contig].name}\t{interval.start}\t{interval.end}\t{split}\t{species}\n"
            for species, by_split in zip(self.names, self.splits, strict=True)
            for interval, split in sorted(
                (interval, split) for split in SPLITS for interval in getattr(by_split, split)
            )
        )


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


def split_species(
    genomes: SpeciesGenomes, *, valid: float, test: float, window: int, seed: int
) -> SpeciesSplits:
    """Split every species by itself, so that another species changes nothing for the others.

    Contigs that a species names are held out. For a split without named contigs, whole contigs are chosen at
    random among the others, so that they come near the share of their bases; contigs of one name in several
    files stay together. Where whole contigs cannot come near it, because there are few or one has nearly all
    bases, the others are cut into blocks and some blocks are held out.

    Args:
        genomes: the species.
        valid: the share of the bases to validate on; 0 for none.
        test: the share to test on; 0 for none.
        window: bases of a window.
        seed: of the choice.

    Raises:
        UserError: a named contig is missing, or a split of a species has no window.
    """
    shares = {"valid": valid, "test": test}
    contigs: list[Contig] = []
    labels: list[int] = []
    all_splits, notes = [], []
    for label, species in enumerate(genomes.species):
        species_contigs = genomes.contigs(label)
        splits, note = _split(species, species_contigs, shares, window, seed)
        held_out = [name for name, share in shares.items() if share or getattr(species, name)]
        _check(species, species_contigs, splits, held_out, window)
        numbers = range(len(contigs), len(contigs) + len(species_contigs))
        all_splits.append(_renumbered(splits, numbers))
        notes.append(f"{species.name}: {note}; {_shares(splits)}")
        contigs += species_contigs
        labels += [label] * len(species_contigs)
    names = tuple(species.name for species in genomes.species)
    return SpeciesSplits(names, contigs, labels, tuple(all_splits), tuple(notes))


def _split(
    species: Species, contigs: Sequence[Contig], shares: Mapping[str, float], window: int, seed: int
) -> tuple[Splits, str]:
    """Return the splits of a species, and a note on how they were chosen."""
    named_contigs(contigs, (*species.valid, *species.test), f"to hold out of species '{species.name}'")
    named = split_by_contigs(contigs, species.valid, species.test)
    notes = [
        f"{split} {abbreviate(names)} by name"
        for split, names in (("valid", species.valid), ("test", species.test))
        if names
    ]
    to_choose = {split: share for split, share in shares.items() if share and not getattr(species, split)}
    if to_choose:
        free = [interval.contig for interval in named.train]
        chosen, note = _choose([contigs[number] for number in free], to_choose, window, seed)
        fixed = {split: getattr(named, split) for split in shares if split not in to_choose}
        return replace(_renumbered(chosen, free), **fixed), ", ".join([*notes, note])
    if species.train:
        kept = named_contigs(contigs, species.train, "to train on")
        omitted = sum(len(i) for i in named.train if contigs[i.contig].name not in kept)
        named = replace(named, train=[i for i in named.train if contigs[i.contig].name in kept])
        notes.append(f"{omitted:,} bases of contigs that the published splits lack left out")
    return named, ", ".join(notes) or "nothing is held out"


def _choose(
    contigs: Sequence[Contig], shares: Mapping[str, float], window: int, seed: int
) -> tuple[Splits, str]:
    """Hold out shares of contigs, in whole contigs or in blocks; return the splits and a note."""
    by_name: dict[str, list[Interval]] = {}
    for number, contig in enumerate(contigs):
        by_name.setdefault(contig.name, []).append(Interval(number, 0, len(contig)))
    fits = [has_window(contigs, intervals, window) for intervals in by_name.values()]
    lengths = [sum(map(len, intervals)) for intervals in by_name.values()]
    roles, deviation = _assign(lengths, fits, shares, seed)
    if deviation <= _MAX_DEVIATION:
        names = {
            split: [name for name, role in zip(by_name, roles, strict=True) if role == split]
            for split in SPLITS
        }
        text = ", ".join(f"{split} {abbreviate(names[split])}" for split in shares)
        return split_by_contigs(contigs, names["valid"], names["test"]), f"{text} as whole contigs"
    total = sum(map(len, contigs))
    block_length = max(window, round(total * min(shares.values()) / _BLOCKS_PER_SPLIT))
    blocks = cut_into_blocks(contigs, block_length)
    fits = [has_window(contigs, [block], window) for block in blocks]
    roles, _ = _assign(list(map(len, blocks)), fits, shares, seed)
    splits = {
        split: merged([block for block, role in zip(blocks, roles, strict=True) if role == split])
        for split in SPLITS
    }
    reason = "one contig" if len(by_name) == 1 else "no whole contigs near the shares"
    return Splits(
        **splits
    ), f"{reason}, so {' and '.join(shares)} in blocks of {block_length:,} bases or more"


def _assign(
    lengths: Sequence[int], fits: Sequence[bool], shares: Mapping[str, float], seed: int
) -> tuple[list[str], float]:
    """Assign units, such as contigs, to splits.

    In a random order, a unit joins a split if that brings the split's bases nearer to its share. The search
    ends at the first order that comes near enough, and otherwise takes the best of many.

    Args:
        lengths: of the units.
        fits: whether a window fits into each; every split gets one that has, the training split too.
        shares: of the bases, of every split to hold out.
        seed: of the orders.

    Returns:
        The split of every unit, and by how much the worst split misses its bases, as a part of them; all
        units for training and infinity where no assignment is possible.
    """
    sizes = dict(enumerate(lengths))
    targets = {split: share * sum(lengths) for split, share in shares.items()}
    generator = np.random.Philox(key=seed)
    best_roles, best_deviation = ["train"] * len(sizes), math.inf
    if sum(fits) <= len(targets):
        return best_roles, best_deviation
    for _ in range(_MAX_ORDERS):
        free = np.argsort(generator.random_raw(len(sizes)), kind="stable").tolist()
        roles = ["train"] * len(sizes)
        deviation = 0.0
        for remaining, (split, bases) in zip(range(len(targets), 0, -1), targets.items(), strict=True):
            chosen = fill_to_size(free, sizes, bases, limit=len(free) - remaining)
            for number in chosen:
                roles[number] = split
            free = [number for number in free if roles[number] == "train"]
            deviation = max(deviation, abs(sum(sizes[number] for number in chosen) / bases - 1))
        with_windows = {role for role, fit in zip(roles, fits, strict=True) if fit}
        if deviation < best_deviation and len(with_windows) > len(targets):
            best_roles, best_deviation = roles, deviation
        if best_deviation <= _GOOD_DEVIATION:
            break
    return best_roles, best_deviation


def _check(
    species: Species, contigs: Sequence[Contig], splits: Splits, held_out: Iterable[str], window: int
) -> None:
    """Raise UserError where the training split, or a held-out split, has no window."""
    for split in ("train", *held_out):
        intervals = getattr(splits, split)
        if not has_window(contigs, intervals, window):
            longest = max(map(len, intervals), default=0)
            total = sum(map(len, contigs))
            raise UserError(
                f"species '{species.name}' has no {split} window of {window:,} bases that is not mostly N: "
                f"the longest {split} stretch has {longest:,} of {total:,} bases",
                at=", ".join(map(str, species.fasta)),
                remedy="use shorter windows, add sequence, or hold out other contigs",
            )


def _renumbered(splits: Splits, numbers: Sequence[int]) -> Splits:
    """Return the same intervals with `numbers` in place of the indices of their contigs."""
    return Splits(*([replace(i, contig=numbers[i.contig]) for i in getattr(splits, name)] for name in SPLITS))


def _shares(splits: Splits) -> str:
    bases = splits.bases()
    total = sum(bases.values())
    return f"{', '.join(f'{name} {n / total:.1%}' for name, n in bases.items() if n)} of {total:,} bases"


def unrolled(
    contigs: Sequence[Contig], intervals: Sequence[Interval], circles: Collection[str], window: int
) -> tuple[list[Contig], list[Interval]]:
    """Return contigs that are circles with some bases of their start after their end, and intervals to match.

    An interval that ends with such a contig goes on into the one that begins with it, so that windows of up
    to `window` bases may lie across the end. Other contigs and intervals stay.
    """
    longer, joined = list(contigs), list(intervals)
    for number, contig in enumerate(contigs):
        of_contig = sorted(interval for interval in intervals if interval.contig == number)
        if contig.name not in circles or not of_contig:
            continue
        first, last = of_contig[0], of_contig[-1]
        if first.start != 0 or last.end != len(contig):
            continue
        more = min(window - 1, len(contig)) if first == last else first.end
        longer[number] = replace(contig, codes=np.concatenate([contig.codes, contig.codes[:more]]))
        joined = [interval for interval in joined if interval not in (first, last)]
        joined.append(replace(last, end=last.end + more))
    return longer, sorted(joined)


class SpeciesSampler:
    """The balanced training stream: window i and its label are a pure function of (seed, i).

    With K species, windows jK to jK + K - 1 have every species once for any j, in a random order; a batch is
    balanced if its size is a multiple of K and it begins at one. Within a species windows lie as
    `WindowSampler` draws them: uniformly over the bases of all its intervals.

    Args:
        intervals: of each species, to draw from.
        rc_augment: read every window as its reverse complement with probability 1/2.
        circles: names of contigs whose windows go on across the end.
        window: most bases of a window; only circles need it.
    """

    def __init__(
        self,
        contigs: Sequence[Contig],
        intervals: Sequence[Sequence[Interval]],
        seed: int,
        *,
        rc_augment: bool,
        circles: Collection[str] = (),
        window: int = 1,
    ):
        parts = (unrolled(contigs, part, circles, window) for part in intervals)
        self._samplers = [WindowSampler(*part, seed, rc_augment=rc_augment) for part in parts]
        self._seed = seed

    def labels(self, numbers: Sequence[int]) -> Labels:
        """Return the labels (N,) of windows `numbers`."""
        return np.array([self._label(number) for number in numbers], np.int64)

    def rows(self, numbers: Sequence[int], width: int) -> tuple[Codes, Labels]:
        """Return windows `numbers` of the stream as codes (N, W), and their labels (N,)."""
        labels_N = self.labels(numbers)
        codes_NW = np.empty((len(numbers), width), np.uint8)
        for label, sampler in enumerate(self._samplers):
            rows = np.flatnonzero(labels_N == label)
            if rows.size:
                codes_NW[rows] = sampler.rows([numbers[row] for row in rows.tolist()], width)
        return codes_NW, labels_N

    def _label(self, number: int) -> int:
        round_number, position = divmod(number, len(self._samplers))
        # The last word of the counter keeps these words apart from those that WindowSampler draws with.
        counter = [0, round_number, 0, 1]
        words = np.random.Philox(key=self._seed, counter=counter).random_raw(len(self._samplers))
        return int(np.argsort(words, kind="stable")[position])


@dataclass(frozen=True)
class SpeciesWindows:
    """Windows to evaluate on.

    Attributes:
        tokens_NW: token ids, the species one after the other.
        labels_N: their labels.
        missing: a sentence for every species with fewer windows than requested.
    """

    tokens_NW: Tokens
    labels_N: Labels
    missing: tuple[str, ...]


def fixed_species_windows(splits: SpeciesSplits, split: str, width: int, per_species: int) -> SpeciesWindows:
    """Return windows of each species, spread evenly over one of its splits.

    Args:
        splits: of the species.
        split: "train", "valid" or "test".
        width: bases of a window, W; a shorter interval gives no window.
        per_species: number of windows, or as many as the split has.
    """
    rows, missing = [], []
    for name, intervals in zip(splits.names, splits.intervals(split), strict=True):
        tokens_NW = fixed_windows(splits.contigs, intervals, width, per_species)
        # Without a whole window, `fixed_windows` returns rests of the intervals, filled up with [PAD].
        rows.append(tokens_NW[tokens_NW[:, -1] != PAD])
        count = len(rows[-1])
        if count < per_species:
            missing.append(f"{name}: {count:,} instead of {per_species:,} {split} windows of {width:,} bases")
    labels_N = np.repeat(np.arange(len(rows)), [len(tokens_NW) for tokens_NW in rows])
    return SpeciesWindows(np.concatenate(rows), labels_N, tuple(missing))


def write_splits(run: Path, splits: SpeciesSplits) -> None:
    """Write the splits into a run as `splits.bed`."""
    with atomic_path(run / SPLITS_FILE) as target:
        target.write_text(splits.to_bed(), encoding="utf-8")


def check_splits(run: Path, splits: SpeciesSplits) -> None:
    """Check that splits are those a run was trained with: a YAML may have changed since.

    Raises:
        UserError: they are not, or the run does not say.
    """
    path = run / SPLITS_FILE
    if not path.is_file() or path.read_bytes() != splits.to_bed().encode():
        raise UserError(
            "the species, their order or what is held out of them are no longer those of the run",
            at=path,
            remedy="put the YAML back as it was, or this file, or train again",
        )
