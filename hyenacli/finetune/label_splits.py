"""Which labelled records are trained on, validated on and tested on.

Legend of shape suffixes: N records.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.errors import UserError, nearest
from hyenacli.genome.contigs import match_contigs
from hyenacli.genome.names import natural_key
from hyenacli.inference.intervals import SPLITS, fill_to_size
from hyenacli.readers.labelled_record import LabelledRecord

Indices = NDArray[np.int64]
"""Records by their 0-based place, ascending."""
_DECILES = 10


@dataclass(frozen=True)
class LabelSplits:
    """Records by what they are for; no record is in two splits."""

    train: Indices
    valid: Indices
    test: Indices

    def counts(self) -> dict[str, int]:
        """Records in each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}

    def indices(self) -> dict[str, list[int]]:
        """Return the indices of the records of each split that has any."""
        return {name: getattr(self, name).tolist() for name, count in self.counts().items() if count}


def given_splits(records: Sequence[LabelledRecord]) -> LabelSplits | None:
    """The splits that the records name; None where they name none.

    Raises:
        UserError: some records name a split and others none, or none of them is for training.
    """
    names_N = np.array([record.split for record in records])
    if not (names_N != "").any():
        return None
    bare = np.flatnonzero(names_N == "")
    if bare.size:
        remedy = "write train, valid or test into every row"
        raise records[int(bare[0])].error("the split is missing, which other records have", remedy)
    splits = LabelSplits(*(np.flatnonzero(names_N == name) for name in SPLITS))
    if not len(splits.train):
        raise UserError("no record is for training", at=records[0].file, remedy="mark some as train")
    return splits


def strata_of(scheme: LabelScheme, targets: Targets) -> Indices:
    """What splits are to have in equal shares, as a number per record (N,), from targets of sequences.

    The class; of one number, its tenth of all in order; nothing (all 0) of several labels.
    """
    if scheme.has_classes:
        return targets.astype(np.int64)
    if targets.shape[1] > 1:
        return np.zeros(len(targets), np.int64)
    ranks = np.empty(len(targets), np.int64)
    ranks[np.argsort(targets[:, 0], kind="stable")] = np.arange(len(targets))
    return ranks * _DECILES // len(targets)


def random_splits(strata_N: Indices, valid: float, test: float, seed: int) -> LabelSplits:
    """Hold records out at random, the same share of every stratum.

    Every record has a random number that depends on the seed and its place only. In each stratum those with
    the least are the test split, the next the validation split. Sizes are exact: the held-out records of all
    strata together, and of each to within one. A stratum keeps a record for training.

    Args:
        strata_N: a number per record, such as its class.
        valid: the share to validate on.
        test: the share to test on.
        seed: of the choice.

    Raises:
        UserError: a split would be empty, or would leave nothing to train on.
    """
    keys_N = _keys(len(strata_N), seed)
    roles_N = np.zeros(len(strata_N), np.int64)
    members = [np.flatnonzero(strata_N == stratum) for stratum in np.unique(strata_N)]
    rooms = [len(places) - 1 for places in members]
    for role, share in ((2, test), (1, valid)):
        quotas = _shares([len(places) for places in members], rooms, share)
        for number, places in enumerate(members):
            free = places[roles_N[places] == 0]
            roles_N[free[np.argsort(keys_N[free])][: quotas[number]]] = role
            rooms[number] -= quotas[number]
    return _splits(roles_N, valid, test)


def group_splits(groups: Sequence[str], valid: float, test: float, seed: int) -> LabelSplits:
    """Hold whole groups out, at random, until a split has about its share of the records.

    A group's place in the random order depends on the seed and its name only. In this order a group joins the
    test split if that brings its size nearer to what it should be, else the validation split likewise, else
    the training data.

    Args:
        groups: the group of every record, such as its contig; a record without group ('') is one by itself.
        valid: the share to validate on.
        test: the share to test on.
        seed: of the choice.

    Raises:
        UserError: there are too few groups for as many splits.
    """
    names = _by_itself(groups)
    sizes = Counter(names)
    order = sorted(sizes, key=lambda name: _hash(seed, name))
    asked = [(role, share * len(names)) for role, share in ((2, test), (1, valid)) if share]
    if len(order) <= len(asked):
        what = f"{len(order)} groups are too few for {len(asked) + 1} splits"
        raise UserError(what, remedy="name another --group-column, or hold out fewer splits")
    role_of: dict[str, int] = {}
    for still, (role, wanted) in zip(range(len(asked), 0, -1), asked, strict=True):
        free = [name for name in order if name not in role_of]
        for name in fill_to_size(free, sizes, wanted, limit=len(free) - still):
            role_of[name] = role
    return _splits(np.array([role_of.get(name, 0) for name in names]), valid, test)


def named_splits(groups: Sequence[str], valid: Sequence[str], test: Sequence[str]) -> LabelSplits:
    """Hold groups out by name; chr1 and 1, chrM and MT are taken for each other where only one is there.

    Args:
        groups: the group of every record, such as its contig.
        valid: the groups to validate on.
        test: the groups to test on.

    Raises:
        UserError: there is no such group, one is named for both, or none is left to train on.
    """
    known = sorted(set(groups) - {""}, key=natural_key)
    spellings = match_contigs(
        (), known, style="auto", aliases={}, input_name="the groups to hold out", genome_name="the data"
    )
    role_of: dict[str, int] = {}
    for role, names in ((1, valid), (2, test)):
        for name in names:
            spelt = spellings.resolve(name)
            if spelt is None:
                raise UserError(f"no group '{name}' to hold out", remedy=nearest(name, known))
            if role_of.setdefault(spelt, role) != role:
                raise UserError(f"'{name}' is both for validation and test", remedy="name it once")
    return _splits(np.array([role_of.get(group, 0) for group in groups]), len(valid), len(test))


def contigs_of(records: Sequence[LabelledRecord]) -> list[str]:
    """The contig of every record, as a group.

    Raises:
        UserError: a record is no region.
    """
    for record in records:
        if record.region is None:
            raise record.error("lies on no contig", "give a BED with its genome, or name a --group-column")
    return [record.region.contig for record in records if record.region is not None]


def fold_splits(
    folds: int, seed: int, strata_N: Indices, groups: Sequence[str] | None = None
) -> list[LabelSplits]:
    """Cross-validation: every record is tested on once, and validated on once.

    In turn one fold is the test split, the next one the validation split, the others train. Folds have the
    same number of records, of all and of each stratum, to within one. With groups these are kept whole, and
    folds have about the same number of records: the largest group first, each joins the smallest fold.

    Args:
        folds: how many, at least 3.
        seed: of the choice.
        strata_N: a number per record, such as its class; not looked at where there are groups.
        groups: the group of every record.

    Raises:
        UserError: there are fewer than 3 folds, or more folds than records or groups.
    """
    if folds < 3:
        raise UserError(
            f"{folds} folds are too few", remedy="give at least 3: to train, validate and test on"
        )
    n = len(strata_N)
    if groups is None:
        order = np.lexsort((_keys(n, seed), strata_N))
        fold_N = np.empty(n, np.int64)
        fold_N[order] = np.arange(n) % folds
    else:
        fold_N = _folds_of_groups(_by_itself(groups), folds, seed)
    empty = folds - len(np.unique(fold_N))
    if empty:
        kind = "records" if groups is None else "groups"
        raise UserError(f"there are fewer {kind} than {folds} folds", remedy="give fewer folds")
    splits = []
    for fold in range(folds):
        test_N, valid_N = fold_N == fold, fold_N == (fold + 1) % folds
        splits.append(_splits(np.where(test_N, 2, valid_N.astype(np.int64)), 1, 1))
    return splits


def _folds_of_groups(names: Sequence[str], folds: int, seed: int) -> Indices:
    sizes = Counter(names)
    held = [0] * folds
    fold_of = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], _hash(seed, name))):
        fold_of[name] = held.index(min(held))
        held[fold_of[name]] += sizes[name]
    return np.array([fold_of[name] for name in names])


def _keys(n: int, seed: int) -> NDArray[np.uint64]:
    """A random number for each of n records: word i of a counter-based stream belongs to record i."""
    return np.random.Philox(key=seed).random_raw(n)


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\t{name}".encode(), digest_size=16).digest()


def _by_itself(groups: Sequence[str]) -> list[str]:
    """Names of groups, with one of its own for every record without group."""
    return [f"={group}" if group else f"record {number}" for number, group in enumerate(groups)]


def _shares(sizes: Sequence[int], rooms: Sequence[int], share: float) -> list[int]:
    """How many to take of each stratum, to the nearest in all, and never more than there is room.

    >>> _shares([5, 5, 2], [4, 4, 1], 0.25)
    [1, 1, 1]
    """
    exact = [share * size for size in sizes]
    taken = [min(math.floor(one), room) for one, room in zip(exact, rooms, strict=True)]
    for number in sorted(range(len(sizes)), key=lambda i: taken[i] - exact[i]):
        if sum(taken) < round(share * sum(sizes)) and taken[number] < rooms[number]:
            taken[number] += 1
    return taken


def _splits(roles_N: Indices, valid: float, test: float) -> LabelSplits:
    """Records by role: 0 train, 1 validation, 2 test; a split that was asked for has to have some."""
    splits = LabelSplits(*(np.flatnonzero(roles_N == role) for role in range(3)))
    for name, asked in (("train", 1), ("valid", valid), ("test", test)):
        if asked and not len(getattr(splits, name)):
            what = f"the {name} split of {len(roles_N)} records would be empty"
            raise UserError(what, remedy="hold out another share, or give more records")
    return splits
