"""Which stretches of every species' genomes are trained on, validated on and tested on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyenacli import console
from hyenacli.errors import UserError, nearest
from hyenacli.finetune.label_splits import nearest_fill
from hyenacli.genome.contigs import match_contigs
from hyenacli.genome.names import abbreviate
from hyenacli.inference.intervals import (
    SPLITS,
    Interval,
    Splits,
    cut_into_blocks,
    merged,
    named_contigs,
    split_by_contigs,
)
from hyenacli.inference.sampling import has_window
from hyenacli.readers.token_store import Contig
from hyenacli.species.genomes import Species, SpeciesGenomes

# Whole contigs are held out where they miss the shares by no more than this part of them.
_FAR = 0.5
# The first of so many random orders is taken that misses them by no more than this, or else the best.
_NEAR = 0.1
_DRAWS = 100
_BLOCKS = 10


@dataclass(frozen=True)
class PublishedSplits:
    """Chromosomes of a species, by what they are for; those in none of the splits are left alone."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]


def _published(second: str, last: int, sexes: str) -> PublishedSplits:
    train = (*second.split(), "4", "6", "8", *map(str, range(14, last + 1)), *sexes)
    return PublishedSplits(train, ("1", "3", "12", "13"), ("5", "7", "9", "10", "11"))


# The tables of HyenaDNA's species task: all hold out chromosomes of the same numbers.
_PUBLISHED = {
    "human": _published("2", 22, "XY"),
    "lemur": _published("2", 27, "XY"),
    "mouse": _published("2", 19, "X"),
    "pig": _published("2", 18, "XY"),
    "hippo": _published("2", 17, "X"),
    "goat": _published("2", 29, "XY"),
    "sheep": _published("2", 26, "XY"),
    "gorilla": _published("2A 2B", 22, "XY"),
    "orangutan": _published("2A 2B", 22, "XY"),
    "chimpanzee": _published("2A 2B", 22, "XY"),
}


@dataclass(frozen=True)
class SpeciesSplits:
    """The contigs of all species, and what of them is for what.

    Attributes:
        names: of the species; a class is a place in them.
        contigs: of all species, one after the other.
        labels: the class of each contig.
        splits: of each species; intervals count `contigs`.
        notes: a sentence per species on how it was split.
    """

    names: tuple[str, ...]
    contigs: list[Contig]
    labels: list[int]
    splits: tuple[Splits, ...]
    notes: tuple[str, ...]

    def intervals(self, split: str) -> list[list[Interval]]:
        """The stretches of every species in 'train', 'valid' or 'test'."""
        return [getattr(mine, split) for mine in self.splits]


def published_splits(name: str) -> PublishedSplits:
    """The splits of a species in the HyenaDNA paper's task, by chromosome.

    Raises:
        UserError: it has no such species.

    >>> published_splits("hippo").train
    ('2', '4', '6', '8', '14', '15', '16', '17', 'X')
    """
    if name not in _PUBLISHED:
        remedy = f"{nearest(name, list(_PUBLISHED))}; or name its valid and test contigs in the YAML"
        raise UserError(f"there are no published splits of '{name}'", remedy=remedy)
    return _PUBLISHED[name]


def use_published_splits(genomes: SpeciesGenomes) -> SpeciesGenomes:
    """Name the contigs of the published splits for all species that name none themselves.

    chr1 and 1 are taken for each other. A chromosome that a genome lacks is left out with a warning.

    Raises:
        UserError: there are no published splits of a species, or its genome has no chromosome of one of them.
    """
    species = [
        one if one.valid or one.test else _with_published_splits(one, genomes.contigs(label))
        for label, one in enumerate(genomes.species)
    ]
    return replace(genomes, species=tuple(species))


def _with_published_splits(species: Species, contigs: Sequence[Contig]) -> Species:
    published = published_splits(species.name)
    names = list(dict.fromkeys(contig.name for contig in contigs))
    fasta = ", ".join(map(str, species.fasta))
    known = match_contigs(
        (), names, style="auto", aliases={}, input_name="the published splits", genome_name=fasta
    )
    found: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for split in SPLITS:
        wanted = getattr(published, split)
        spelt = {name: known.resolve(name) for name in wanted}
        missing += [name for name in wanted if spelt[name] is None]
        found[split] = tuple(name for name in spelt.values() if name is not None)
        if not found[split]:
            raise UserError(
                f"species '{species.name}' has none of the published {split} chromosomes "
                f"{abbreviate(wanted)}; its contigs are {abbreviate(names)}",
                at=fasta,
                remedy="name its contigs chr1 or 1, or name valid and test contigs in the YAML",
            )
    if missing:
        console.log.warning("%s: %s of the published splits are missing", species.name, abbreviate(missing))
    return replace(species, train=found["train"], valid=found["valid"], test=found["test"])


def split_species(
    genomes: SpeciesGenomes, *, valid: float, test: float, window: int, seed: int
) -> SpeciesSplits:
    """Split every species by itself, so that one more species changes nothing for the others.

    Contigs that a species names are held out. For a split of which it names none, whole contigs are chosen
    among the others at random, so that they come near the share of their bases; those of one name in several
    files stay together. Where they cannot come near it, because there are few or one has nearly all
    bases, the others are cut into blocks and some of these held out.

    Args:
        genomes: the species.
        valid: the share of the bases to validate on.
        test: the share to test on; 0 for none, as for `valid`.
        window: bases of a window.
        seed: of the choice.

    Raises:
        UserError: a contig that is named is not there, or a split of a species has no window.
    """
    shares = {"valid": valid, "test": test}
    contigs: list[Contig] = []
    labels: list[int] = []
    splits, notes = [], []
    for label, species in enumerate(genomes.species):
        mine = genomes.contigs(label)
        found, how = _split(species, mine, shares, window, seed)
        held = [name for name, share in shares.items() if share or getattr(species, name)]
        _check(species, mine, found, held, window)
        splits.append(_renumbered(found, range(len(contigs), len(contigs) + len(mine))))
        notes.append(f"{species.name}: {how}; {_shares(found)}")
        contigs += mine
        labels += [label] * len(mine)
    names = tuple(species.name for species in genomes.species)
    return SpeciesSplits(names, contigs, labels, tuple(splits), tuple(notes))


def _split(
    species: Species, contigs: Sequence[Contig], shares: Mapping[str, float], window: int, seed: int
) -> tuple[Splits, str]:
    """The splits of a species, and how they came about."""
    named_contigs(contigs, (*species.valid, *species.test), f"to hold out of species '{species.name}'")
    named = split_by_contigs(contigs, species.valid, species.test)
    how = [
        f"{split} {abbreviate(names)} by name"
        for split, names in (("valid", species.valid), ("test", species.test))
        if names
    ]
    asked = {split: share for split, share in shares.items() if share and not getattr(species, split)}
    if not asked:
        if species.train:
            kept = named_contigs(contigs, species.train, "to train on")
            left = sum(len(i) for i in named.train if contigs[i.contig].name not in kept)
            named = replace(named, train=[i for i in named.train if contigs[i.contig].name in kept])
            how.append(f"{left:,} bases of contigs that the published splits lack left out")
        return named, ", ".join(how) or "nothing is held out"
    free = [interval.contig for interval in named.train]
    chosen, text = _choose([contigs[number] for number in free], asked, window, seed)
    given = {split: getattr(named, split) for split in shares if split not in asked}
    return replace(_renumbered(chosen, free), **given), ", ".join([*how, text])


def _choose(
    contigs: Sequence[Contig], shares: Mapping[str, float], window: int, seed: int
) -> tuple[Splits, str]:
    """Hold out shares of some contigs: whole ones, or blocks."""
    by_name: dict[str, list[Interval]] = {}
    for number, contig in enumerate(contigs):
        by_name.setdefault(contig.name, []).append(Interval(number, 0, len(contig)))
    wide = [has_window(contigs, intervals, window) for intervals in by_name.values()]
    roles, miss = _deal([sum(map(len, intervals)) for intervals in by_name.values()], wide, shares, seed)
    if miss <= _FAR:
        held = {
            split: [n for n, role in zip(by_name, roles, strict=True) if role == split] for split in SPLITS
        }
        text = ", ".join(f"{split} {abbreviate(held[split])}" for split in shares)
        return split_by_contigs(contigs, held["valid"], held["test"]), f"{text} as whole contigs"
    total = sum(map(len, contigs))
    least = max(window, round(total * min(shares.values()) / _BLOCKS))
    blocks = cut_into_blocks(contigs, least)
    wide = [has_window(contigs, [block], window) for block in blocks]
    roles, _ = _deal(list(map(len, blocks)), wide, shares, seed)
    found = {
        split: merged([block for block, role in zip(blocks, roles, strict=True) if role == split])
        for split in SPLITS
    }
    why = "one contig" if len(by_name) == 1 else "no whole contigs near the shares"
    return Splits(**found), f"{why}, so {' and '.join(shares)} in blocks of {least:,} bases or more"


def _deal(
    lengths: Sequence[int], wide: Sequence[bool], shares: Mapping[str, float], seed: int
) -> tuple[list[str], float]:
    """Hold out units, such as contigs, each whole.

    In a random order a unit joins a split if that brings its bases nearer to what they should be. The first
    order is taken that comes near enough, or else the best of many.

    Args:
        lengths: of the units.
        wide: whether a window lies in each; every split gets one that is, the training split too.
        shares: of the bases, of every split to hold out.
        seed: of the orders.

    Returns:
        The split of every unit, and by how much the worst split misses its bases, as a part of them; all
        for training and infinity where there is no way.
    """
    sizes = dict(enumerate(lengths))
    wanted = {split: share * sum(lengths) for split, share in shares.items()}
    words = np.random.Philox(key=seed)
    best, least = ["train"] * len(sizes), math.inf
    if sum(wide) <= len(wanted):
        return best, least
    for _ in range(_DRAWS):
        free = np.argsort(words.random_raw(len(sizes)), kind="stable").tolist()
        roles = ["train"] * len(sizes)
        miss = 0.0
        for still, (split, bases) in zip(range(len(wanted), 0, -1), wanted.items(), strict=True):
            taken = nearest_fill(free, sizes, bases, most=len(free) - still)
            for number in taken:
                roles[number] = split
            free = [number for number in free if roles[number] == "train"]
            miss = max(miss, abs(sum(sizes[number] for number in taken) / bases - 1))
        served = {role for role, fits in zip(roles, wide, strict=True) if fits}
        if miss < least and len(served) > len(wanted):
            best, least = roles, miss
        if least <= _NEAR:
            break
    return best, least


def _check(
    species: Species, contigs: Sequence[Contig], splits: Splits, held: Iterable[str], window: int
) -> None:
    """Raise UserError where the training split, or one that is held out, has no window."""
    for split in ("train", *held):
        intervals = getattr(splits, split)
        if not has_window(contigs, intervals, window):
            most = max(map(len, intervals), default=0)
            total = sum(map(len, contigs))
            raise UserError(
                f"species '{species.name}' has no {split} window of {window:,} bases that is not mostly N: "
                f"the longest {split} stretch has {most:,} of {total:,} bases",
                at=", ".join(map(str, species.fasta)),
                remedy="use shorter windows, add sequence, or hold out other contigs",
            )


def _renumbered(splits: Splits, numbers: Sequence[int]) -> Splits:
    """The same stretches with other numbers for the contigs."""
    train, valid, test = (
        [replace(i, contig=numbers[i.contig]) for i in getattr(splits, name)] for name in SPLITS
    )
    return Splits(train, valid, test)


def _shares(splits: Splits) -> str:
    bases = splits.bases()
    total = sum(bases.values())
    return f"{', '.join(f'{name} {n / total:.1%}' for name, n in bases.items() if n)} of {total:,} bases"
