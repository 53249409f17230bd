"""Labelled sequences as a verb is told about them: read, understood, split, and checked for leaks."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyenacli.adaptation.labels import AskedTask, LabelScheme, Targets
from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.finetune.label_splits import (
    Indices,
    LabelSplits,
    contigs_of,
    fold_splits,
    given_splits,
    group_splits,
    named_splits,
    random_splits,
    strata_of,
)
from hyenacli.finetune.label_task import infer_task
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.genome.contigs import check_naming, parse_style, read_aliases
from hyenacli.genome.dna import strandless_digest
from hyenacli.genome.names import abbreviate
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.genome_file import Genome
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.labelled_record import Columns, LabelledRecord
from hyenacli.readers.region_records import Reference
from hyenadna.config import Level

_TASKS: tuple[AskedTask, ...] = ("auto", "binary", "multiclass", "multilabel", "regression")
_LEVELS: tuple[Level, ...] = ("sequence", "nucleotide")
_VALID_SHARE = _TEST_SHARE = 0.1
_FEW = 10
_NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True)
class LabelledSet:
    """Labelled records ready to be learnt from.

    Attributes:
        records: in input order.
        scheme: what their labels mean.
        targets: of each record, as `LabelScheme.encode`.
        splits: how they are split, once for each fold.
        inputs: what they were read from, with a sha256 of all that matters.
    """

    records: list[LabelledRecord]
    scheme: LabelScheme
    targets: list[Targets]
    splits: list[LabelSplits]
    inputs: dict[str, str | int]

    def sequences(self, indices: Sequence[int]) -> list[bytes]:
        """The bases of some records."""
        return [self.records[i].sequence for i in indices]


def open_set(settings: FinetuneSettings) -> LabelledSet:
    """Read, understand and split the labelled data of a verb.

    Raises:
        UsageError: flags that do not go together.
        UserError: the data cannot be read, understood or split.
    """
    asked, level = _asked(settings)
    records, names = _read(settings)
    given = given_splits(records)
    known = records if given is None else [records[i] for i in given.train.tolist()]
    scheme = infer_task(known, names, asked, level)
    targets = [scheme.encode(record) for record in records]
    splits = _split(settings, records, scheme, targets, given)
    return LabelledSet(records, scheme, targets, splits, _fingerprint(settings, records))


def _asked(settings: FinetuneSettings) -> tuple[AskedTask, Level]:
    tasks = {name: name for name in _TASKS}
    levels = {name: name for name in _LEVELS}
    if settings.task not in tasks:
        raise UsageError(
            f"unknown task '{settings.task}'", at="--task", remedy=nearest(settings.task, list(tasks))
        )
    level = "nucleotide" if settings.bedgraph is not None else settings.level
    if level not in levels:
        raise UsageError(f"unknown level '{level}'", at="--level", remedy=nearest(level, list(levels)))
    return tasks[settings.task], levels[level]


def _read(settings: FinetuneSettings) -> tuple[list[LabelledRecord], tuple[str, ...]]:
    """The records of all inputs, and the names of their label columns."""
    columns = Columns(
        sequence=settings.sequence_column,
        labels=tuple(settings.label_column or ("label",)),
        id=settings.id_column,
        group=settings.group_column,
        split=settings.split_column,
    )
    check_naming(settings.contig_style, settings.contig_aliases, settings.fasta)
    aliases = read_aliases(settings.contig_aliases) if settings.contig_aliases else None
    named = settings.valid or settings.test
    sources = [("train" if named else "", settings.data), ("valid", settings.valid), ("test", settings.test)]
    records: list[LabelledRecord] = []
    names: tuple[str, ...] = ()
    with ExitStack() as stack:
        genome = stack.enter_context(Genome(settings.fasta)) if settings.fasta else None
        reference = Reference(genome, parse_style(settings.contig_style), aliases) if genome else None
        for split, files in sources:
            if not files:
                continue
            with open_labelled(
                files, columns, reference=reference, signal=settings.bedgraph, split=split
            ) as rows:
                records += _agreeing(rows.load(), split)
                if names and rows.label_names != names:
                    what = f"has label columns {', '.join(rows.label_names)}, DATA has {', '.join(names)}"
                    raise UserError(what, at=rows.names[0], remedy="give files of the same columns")
                names = rows.label_names
    if settings.fasta and all(record.region is None for record in records):
        raise UsageError("a genome is for BED, and no input is one", at="--fasta", remedy="leave it out")
    return records, names


def _agreeing(records: list[LabelledRecord], split: str) -> list[LabelledRecord]:
    """The records of one flag, none of which says itself that it is for something else."""
    for record in records if split in ("valid", "test") else ():
        if record.split != split:
            what = f"its own split is '{record.split}', but it is given with --{split}"
            raise record.error(what, "correct one of the two, or give the file as DATA")
    return records


def _split(
    settings: FinetuneSettings,
    records: list[LabelledRecord],
    scheme: LabelScheme,
    targets: list[Targets],
    given: LabelSplits | None,
) -> list[LabelSplits]:
    strata = (
        strata_of(scheme, np.stack(targets))  # type: ignore[arg-type]
        if scheme.level == "sequence"
        else np.zeros(len(records), np.int64)
    )
    groups = _groups(settings, records)
    valid = _VALID_SHARE if settings.valid_fraction is None else settings.valid_fraction
    if settings.folds is not None:
        if given is not None or settings.valid_groups or settings.test_groups:
            raise UsageError(
                "the splits are named already", at="--folds", remedy="leave it out, or use --seeds"
            )
        if settings.test_fraction is not None:
            what = "every fold tests on its own part of the data"
            raise UsageError(what, at="--test-fraction", remedy="leave it out, or give other --folds")
        drawing = _Drawing(records, strata, groups, settings.seed)
        return [drawing.held_out(splits, valid, 0.0) for splits in drawing.folds(settings.folds)]
    if settings.valid_groups or settings.test_groups:
        if given is not None:
            raise UsageError(
                "the data name their splits already", remedy="leave out --valid-groups and --test-groups"
            )
        given = named_splits(groups or contigs_of(records), *map(_names, _named_groups(settings)))
    for split, fraction in (("valid", settings.valid_fraction), ("test", settings.test_fraction)):
        if fraction is not None and given is not None and len(getattr(given, split)):
            what = f"the {split} split is given already"
            raise UsageError(what, at=f"--{split}-fraction", remedy="leave it out")
    # a test set is made only where nobody has said anything of splits
    test = settings.test_fraction if settings.test_fraction is not None else _TEST_SHARE * (given is None)
    splits = given or LabelSplits(np.arange(len(records)), _NOBODY, _NOBODY)
    return [_Drawing(records, strata, groups, settings.seed).held_out(splits, valid, test)]


class _Drawing:
    """Draws splits in which groups stay together, or else what has the same sequence on either strand.

    Args:
        records: all there are.
        strata_N: of which every split is to have equal shares, where there are no groups.
        groups: of the records.
        seed: of what is drawn.
    """

    def __init__(
        self, records: list[LabelledRecord], strata_N: Indices, groups: list[str] | None, seed: int
    ) -> None:
        self._records, self._strata_N, self._groups, self._seed = records, strata_N, groups, seed

    def folds(self, count: int) -> list[LabelSplits]:
        """Every record is in the test split of one fold, and in the training split of the others."""
        places = np.arange(len(self._records))
        if self._groups is not None:
            drawn = fold_splits(count, self._seed, self._strata_N, self._groups)
        else:
            first, which = self._alike(places)
            drawn = [
                _spread(splits, which, places)
                for splits in fold_splits(count, self._seed, self._strata_N[first])
            ]
        return [
            LabelSplits(np.setdiff1d(places, splits.test, assume_unique=True), _NOBODY, splits.test)
            for splits in drawn
        ]

    def held_out(self, splits: LabelSplits, valid: float, test: float) -> LabelSplits:
        """Splits with a validation and a test split, taken from the training records where there are none."""
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
        places = splits.train
        if self._groups is not None:
            own = [self._groups[i] for i in places.tolist()]
            drawn = _spread(group_splits(own, valid, test, self._seed), np.arange(len(places)), places)
        else:
            first, which = self._alike(places)
            drawn = _spread(random_splits(self._strata_N[first], valid, test, self._seed), which, places)
        return LabelSplits(
            drawn.train, drawn.valid if valid else splits.valid, drawn.test if test else splits.test
        )

    def _alike(self, places: Indices) -> tuple[Indices, Indices]:
        """The first record of each sequence among some, and for each of these the number of its sequence."""
        numbers: dict[bytes, int] = {}
        keys = [strandless_digest(self._records[i].sequence) for i in places.tolist()]
        which = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        return places[np.unique(which, return_index=True)[1]], which


def _spread(splits: LabelSplits, which: Indices, places: Indices) -> LabelSplits:
    """Splits of numbers as splits of the records that have them."""
    return LabelSplits(*(places[np.isin(which, part)] for part in (splits.train, splits.valid, splits.test)))


def _groups(settings: FinetuneSettings, records: list[LabelledRecord]) -> list[str] | None:
    return [record.group for record in records] if settings.group_column else None


def _named_groups(settings: FinetuneSettings) -> tuple[str | None, str | None]:
    return settings.valid_groups, settings.test_groups


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def find_gaps(data: LabelledSet, splits: LabelSplits) -> list[str]:
    """Sentences about splits that can say little: too few records, or a class that is not in them."""
    sentences = []
    for name, count in splits.counts().items():
        if 0 < count < _FEW:
            sentences.append(
                f"the {name} split has only {count} record{'s' * (count > 1)}: its metrics say little"
            )
        if count and data.scheme.has_classes:
            own = np.concatenate([data.targets[i].reshape(-1) for i in getattr(splits, name).tolist()])
            missing = [kind for k, kind in enumerate(data.scheme.names) if not (own == k).any()]
            if missing:
                sentences.append(f"the {name} split has no record of {abbreviate(missing)}")
    return sentences


def _fingerprint(settings: FinetuneSettings, records: list[LabelledRecord]) -> dict[str, str | int]:
    digest = hashlib.sha256()
    for record in records:
        label = (
            record.label.tobytes() if isinstance(record.label, np.ndarray) else repr(record.label).encode()
        )
        parts = [record.id.encode(), record.sequence, label, record.split.encode()]
        # what else decides the splits that are drawn, where there is such
        parts += [f"group {record.group}".encode()] * bool(record.group)
        parts += [f"region {record.region}".encode()] * (record.region is not None)
        digest.update(b"\t".join(parts) + b"\n")
    files = [*settings.data, *(settings.valid or ()), *(settings.test or ())]
    names = ", ".join(Path(file).name for file in files)
    return {"path": names, "records": len(records), "sha256": digest.hexdigest()}


def split_sizes(splits: LabelSplits) -> str:
    """The records of each split, in words."""
    return ", ".join(f"{splits.counts()[name]:,} {name}" for name in SPLITS)
