"""Splits of labelled records into training, validation and test data.

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
from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.genome.contigs import match_contigs, natural_key
from hyenacli.genome.dna import strandless_digest
from hyenacli.inference.intervals import SPLITS, fill_to_size
from hyenacli.readers.tables import LabelledRecord

Indices = NDArray[np.int64]
"""0-based indices of records, ascending."""
_DECILES = 10
NO_RECORDS: Indices = np.empty(0, np.int64)


@dataclass(frozen=True)
class LabelSplits:
    """The indices of the records of each split; no record is in two splits."""

    train: Indices
    valid: Indices
    test: Indices

    def counts(self) -> dict[str, int]:
        """Return the number of records in each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}

    def indices(self) -> dict[str, list[int]]:
        """Return the indices of the records of each split that has any."""
        return {name: getattr(self, name).tolist() for name, count in self.counts().items() if count}


def given_splits(records: Sequence[LabelledRecord]) -> LabelSplits | None:
    """Return the splits that the records name; None where they name none.

    Raises:
        UserError: some records name a split and others none, or none of them is for training.
    """
    names_N = np.array([record.split for record in records])
    if not (names_N != "").any():
        return None
    without_split = np.flatnonzero(names_N == "")
    if without_split.size:
        remedy = "write train, valid or test into every row"
        raise records[int(without_split[0])].error("the split is missing, which other records have", remedy)
    splits = LabelSplits(*(np.flatnonzero(names_N == name) for name in SPLITS))
    if not len(splits.train):
        raise UserError("no record is for training", at=records[0].file, remedy="mark some as train")
    return splits


def strata_of(scheme: LabelScheme, targets: Targets) -> Indices:
    """Return the stratum of each record (N,), from targets of sequences; splits get equal shares of each.

    A stratum is the class, or the decile of a number; with several labels all records are of one stratum.
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

    Every record has a random number that depends on the seed and its index only. In each stratum the records
    with the least numbers are the test split, the next ones the validation split. Sizes are exact: the
    held-out records of all strata together, and of each to within one. A stratum keeps a record to train on.

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
    limits = [len(indices) - 1 for indices in members]
    for role, share in ((2, test), (1, valid)):
        counts = _counts([len(indices) for indices in members], limits, share)
        for stratum, (indices, count) in enumerate(zip(members, counts, strict=True)):
            free = indices[roles_N[indices] == 0]
            roles_N[free[np.argsort(keys_N[free])][:count]] = role
            limits[stratum] -= count
    return _splits(roles_N, valid, test)


def group_splits(groups: Sequence[str], valid: float, test: float, seed: int) -> LabelSplits:
    """Hold whole groups out, at random, until a split has about its share of the records.

    A group's position in the random order depends on the seed and its name only. In this order a group joins
    the test split if that brings the split nearer to its size, else the validation split by the same rule,
    else the training data.

    Args:
        groups: the group of every record, such as its contig; a record without group ("") is a group itself.
        valid: the share to validate on.
        test: the share to test on.
        seed: of the choice.

    Raises:
        UserError: there are too few groups for as many splits.
    """
    names = _named(groups)
    sizes = Counter(names)
    free = sorted(sizes, key=lambda name: _hash(seed, name))
    targets = [(role, share * len(names)) for role, share in ((2, test), (1, valid)) if share]
    if len(free) <= len(targets):
        what = f"{len(free)} groups are too few for {len(targets) + 1} splits"
        raise UserError(what, remedy="name another --group-column, or hold out fewer splits")
    role_of: dict[str, int] = {}
    for remaining, (role, size) in zip(range(len(targets), 0, -1), targets, strict=True):
        for name in fill_to_size(free, sizes, size, limit=len(free) - remaining):
            role_of[name] = role
        free = [name for name in free if name not in role_of]
    return _splits(np.array([role_of.get(name, 0) for name in names]), valid, test)


def named_splits(groups: Sequence[str], valid: Sequence[str], test: Sequence[str]) -> LabelSplits:
    """Hold groups out by name; chr1 and 1, chrM and MT are taken for each other where only one exists.

    Args:
        groups: the group of every record, such as its contig.
        valid: the groups to validate on.
        test: the groups to test on.

    Raises:
        UserError: there is no such group, one is named for both, or none is left to train on.
    """
    names = sorted(set(groups) - {""}, key=natural_key)
    spellings = match_contigs(
        (), names, style="auto", aliases={}, input_name="the groups to hold out", genome_name="the data"
    )
    role_of: dict[str, int] = {}
    for role, held_out in ((1, valid), (2, test)):
        for name in held_out:
            group = spellings.resolve(name)
            if group is None:
                raise UserError(f"no group '{name}' to hold out", remedy=nearest(name, names))
            if role_of.setdefault(group, role) != role:
                raise UserError(f"'{name}' is both for validation and test", remedy="name it once")
    return _splits(np.array([role_of.get(group, 0) for group in groups]), len(valid), len(test))


def contigs_of(records: Sequence[LabelledRecord]) -> list[str]:
    """Return the contig of every record, as a group.

    Raises:
        UserError: a record is not a region.
    """
    for record in records:
        if record.region is None:
            raise record.error("lies on no contig", "give a BED with its genome, or name a --group-column")
    return [record.region.contig for record in records if record.region is not None]


def fold_splits(
    folds: int, seed: int, strata_N: Indices, groups: Sequence[str] | None = None
) -> list[LabelSplits]:
    """Return the splits of a cross-validation, which tests and validates on every record once.

    Fold after fold is the test split, the fold after it the validation split; the others train. Folds have
    the same number of records, of all and of each stratum, to within one. Groups are kept whole, and folds of
    groups have about the same number of records: the largest group first, each joins the smallest fold.

    Args:
        folds: how many, at least 3.
        seed: of the choice.
        strata_N: a number per record, such as its class; ignored where there are groups.
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
        fold_N = _folds_of_groups(_named(groups), folds, seed)
    if len(np.unique(fold_N)) < folds:
        kind = "records" if groups is None else "groups"
        raise UserError(f"there are fewer {kind} than {folds} folds", remedy="give fewer folds")
    splits = []
    for fold in range(folds):
        test_N, valid_N = fold_N == fold, fold_N == (fold + 1) % folds
        splits.append(_splits(np.where(test_N, 2, valid_N.astype(np.int64)), 1, 1))
    return splits


def _folds_of_groups(names: Sequence[str], folds: int, seed: int) -> Indices:
    sizes = Counter(names)
    totals = [0] * folds
    fold_of = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], _hash(seed, name))):
        fold_of[name] = totals.index(min(totals))
        totals[fold_of[name]] += sizes[name]
    return np.array([fold_of[name] for name in names])


def _keys(n: int, seed: int) -> NDArray[np.uint64]:
    """Return a random number for each of n records: word i of a counter-based stream belongs to record i."""
    return np.random.Philox(key=seed).random_raw(n)


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\t{name}".encode(), digest_size=16).digest()


def _named(groups: Sequence[str]) -> list[str]:
    """Return names of groups, a separate one for every record without group."""
    return [f"={group}" if group else f"record {number}" for number, group in enumerate(groups)]


def _counts(sizes: Sequence[int], limits: Sequence[int], share: float) -> list[int]:
    """Return how many records to take of each stratum: the nearest number in all, none beyond its limit.

    >>> _counts([5, 5, 2], [4, 4, 1], 0.25)
    [1, 1, 1]
    """
    exact = [share * size for size in sizes]
    counts = [min(math.floor(number), limit) for number, limit in zip(exact, limits, strict=True)]
    for stratum in sorted(range(len(sizes)), key=lambda i: counts[i] - exact[i]):
        if sum(counts) < round(share * sum(sizes)) and counts[stratum] < limits[stratum]:
            counts[stratum] += 1
    return counts


def _splits(roles_N: Indices, valid: float, test: float) -> LabelSplits:
    """Return splits from roles (0 train, 1 validation, 2 test); raise if a requested split is empty."""
    splits = LabelSplits(*(np.flatnonzero(roles_N == role) for role in range(3)))
    for name, share in (("train", 1), ("valid", valid), ("test", test)):
        if share and not len(getattr(splits, name)):
            what = f"the {name} split of {len(roles_N)} records would be empty"
            raise UserError(what, remedy="hold out another share, or give more records")
    return splits


class SplitMaker:
    """Makes splits in which groups stay together, or else equal sequences, on either strand.

    Args:
        strata_N: of the records; every split gets equal shares of each, unless there are groups.
    """

    def __init__(
        self,
        records: Sequence[LabelledRecord],
        strata_N: Indices,
        groups: Sequence[str] | None,
        seed: int,
    ) -> None:
        self._records, self._strata_N, self._groups, self._seed = records, strata_N, groups, seed

    def folds(self, count: int) -> list[LabelSplits]:
        """Return folds; every record is in the test split of one, and in the training split of the others."""
        indices_N = np.arange(len(self._records))
        if self._groups is not None:
            folds = fold_splits(count, self._seed, self._strata_N, self._groups)
        else:
            first, sequence_N = self._sequences(indices_N)
            folds = [
                _expanded(splits, sequence_N, indices_N)
                for splits in fold_splits(count, self._seed, self._strata_N[first])
            ]
        return [
            LabelSplits(np.setdiff1d(indices_N, splits.test, assume_unique=True), NO_RECORDS, splits.test)
            for splits in folds
        ]

    def hold_out(self, splits: LabelSplits, valid: float, test: float) -> LabelSplits:
        """Return splits with a validation and a test split, taken from the training data where they lack one.

        Args:
            splits: as far as they are given.
            valid: the share of the training data to validate on, if there is no validation split.
            test: the share to test on, if there is no test split; 0 for none.

        Raises:
            UsageError: there would be no validation split, or no training data.
            UserError: as `random_splits` and `group_splits`.
        """
        valid, test = valid * (not len(splits.valid)), test * (not len(splits.test))
        if not len(splits.valid) and not valid:
            raise UsageError(
                "there is nothing to choose the model by",
                remedy="give --valid, or a --valid-fraction above 0",
            )
        if valid + test >= 1:
            what = f"{valid:g} to choose the model by and {test:g} to test on leave nothing to train on"
            raise UsageError(what, at="--valid-fraction, --test-fraction", remedy="hold out less")
        if not valid and not test:
            return splits
        train_N = splits.train
        if self._groups is not None:
            groups = [self._groups[i] for i in train_N.tolist()]
            chosen = _expanded(
                group_splits(groups, valid, test, self._seed), np.arange(len(train_N)), train_N
            )
        else:
            first, sequence_N = self._sequences(train_N)
            chosen = random_splits(self._strata_N[first], valid, test, self._seed)
            chosen = _expanded(chosen, sequence_N, train_N)
        return LabelSplits(
            chosen.train, chosen.valid if valid else splits.valid, chosen.test if test else splits.test
        )

    def _sequences(self, indices_N: Indices) -> tuple[Indices, Indices]:
        """Return the first record of each different sequence, and the number of each record's sequence."""
        numbers: dict[bytes, int] = {}
        digests = [strandless_digest(self._records[i].sequence) for i in indices_N.tolist()]
        sequence_N = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests])
        return indices_N[np.unique(sequence_N, return_index=True)[1]], sequence_N


def _expanded(splits: LabelSplits, unit_N: Indices, indices_N: Indices) -> LabelSplits:
    """Return splits of units as splits of the records that belong to them."""
    return LabelSplits(*(indices_N[np.isin(unit_N, getattr(splits, name))] for name in SPLITS))
