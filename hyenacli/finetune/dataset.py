"""The labelled data set of a run: read from its files, its task inferred, and split."""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyenacli.adaptation.evaluation import SplitEvaluator
from hyenacli.adaptation.labels import LabelScheme, RequestedTask, Targets, read_labels
from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.finetune.leakage import LeakFinder
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.finetune.splits import (
    NO_RECORDS,
    LabelSplits,
    SplitMaker,
    contigs_of,
    given_splits,
    named_splits,
    strata_of,
)
from hyenacli.finetune.task import infer_task
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.features import FeatureChoice
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.regions import open_reference
from hyenacli.readers.tables import Columns, LabelledRecord
from hyenadna.config import Level

_VALID_SHARE = _TEST_SHARE = 0.1
_FEW = 10


@dataclass(frozen=True)
class LabelledSet:
    """Labelled records to train and evaluate on.

    Attributes:
        records: in input order.
        targets: of each record, from `LabelScheme.encode`.
        splits: one for each fold.
        leak_finder: searches what the splits share.
        inputs: the input files, with a sha256 of the data that matter.
    """

    records: list[LabelledRecord]
    scheme: LabelScheme
    targets: list[Targets]
    splits: list[LabelSplits]
    leak_finder: LeakFinder
    inputs: dict[str, str | int]

    def evaluators(self, splits: LabelSplits) -> dict[str, SplitEvaluator]:
        """Return the labels of every split that has records."""
        return {
            split: SplitEvaluator(self.scheme, [self.targets[i] for i in indices])
            for split, indices in splits.indices().items()
        }


def open_set(settings: FinetuneSettings) -> LabelledSet:
    """Read the labelled data of a run, infer their task, and split them.

    Raises:
        UsageError: flags that do not go together.
        UserError: the data cannot be read or split, or pose no task.
    """
    task, level = _task_and_level(settings)
    records, names = _read(settings)
    given = given_splits(records)
    train = records if given is None else [records[i] for i in given.train.tolist()]
    scheme = infer_task(train, names, task, level)
    targets = read_labels(records, scheme.encode)
    finder = LeakFinder(records)
    splits = _split(settings, records, scheme, targets, given, finder)
    return LabelledSet(records, scheme, targets, splits, finder, _fingerprint(settings, records))


def _task_and_level(settings: FinetuneSettings) -> tuple[RequestedTask, Level]:
    return settings.task, "nucleotide" if settings.bedgraph is not None else settings.level


def _read(settings: FinetuneSettings) -> tuple[list[LabelledRecord], tuple[str, ...]]:
    """Read the records of all inputs, and the names of their label columns."""
    columns = Columns(
        sequence=settings.sequence_column,
        labels=tuple(settings.label_column or ("label",)),
        id=settings.id_column,
        group=settings.group_column,
        split=settings.split_column,
    )
    check_naming(settings.contig_style, settings.contig_aliases, settings.fasta)
    train = "train" if settings.valid or settings.test else ""
    sources = [(train, settings.data), ("valid", settings.valid), ("test", settings.test)]
    records: list[LabelledRecord] = []
    names: tuple[str, ...] = ()
    with ExitStack() as stack:
        reference = None
        if settings.fasta:
            genome = open_reference(settings.fasta, settings.contig_style, settings.contig_aliases)
            reference = stack.enter_context(genome)
        for split, files in sources:
            if not files:
                continue
            with open_labelled(
                files,
                columns,
                reference=reference,
                signal=settings.bedgraph,
                split=split,
                choice=FeatureChoice.of(settings, settings.fasta),
            ) as rows:
                records += _check_split(rows.load(), split)
                if names and rows.label_names != names:
                    what = f"has label columns {', '.join(rows.label_names)}, DATA has {', '.join(names)}"
                    raise UserError(what, at=rows.names[0], remedy="give files of the same columns")
                names = rows.label_names
    if settings.fasta and all(record.region is None for record in records):
        what = "a genome is for BED, and no input is one"
        raise UsageError(what, at="--fasta", remedy="leave it out")
    return records, names


def _check_split(records: list[LabelledRecord], split: str) -> list[LabelledRecord]:
    """Return the records of a flag; raise UserError if a record names another split."""
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
    finder: LeakFinder,
) -> list[LabelSplits]:
    strata = (
        strata_of(scheme, np.stack(targets))  # type: ignore[arg-type]
        if scheme.level == "sequence"
        else np.zeros(len(records), np.int64)
    )
    groups = _groups(settings, records, given, finder)
    maker = SplitMaker(records, strata, groups, settings.seed)
    valid = _VALID_SHARE if settings.valid_fraction is None else settings.valid_fraction
    if settings.folds is not None:
        if given is not None or settings.valid_groups or settings.test_groups:
            raise UsageError(
                "the splits are named already", at="--folds", remedy="leave it out, or use --seeds"
            )
        if settings.test_fraction is not None:
            what = "every fold tests on its own part of the data"
            raise UsageError(what, at="--test-fraction", remedy="leave it out, or give other --folds")
        return [maker.hold_out(splits, valid, 0.0) for splits in maker.folds(settings.folds)]
    if settings.valid_groups or settings.test_groups:
        if given is not None:
            raise UsageError(
                "the data name their splits already", remedy="leave out --valid-groups and --test-groups"
            )
        names = map(_names, (settings.valid_groups, settings.test_groups))
        given = named_splits(groups or contigs_of(records), *names)
    for split, fraction in (("valid", settings.valid_fraction), ("test", settings.test_fraction)):
        if fraction is not None and given is not None and len(getattr(given, split)):
            what = f"the {split} split is given already"
            raise UsageError(what, at=f"--{split}-fraction", remedy="leave it out")
    # a test set is made only where neither the data nor the flags name splits
    test = settings.test_fraction if settings.test_fraction is not None else _TEST_SHARE * (given is None)
    splits = given or LabelSplits(np.arange(len(records)), NO_RECORDS, NO_RECORDS)
    return [maker.hold_out(splits, valid, test)]


def _groups(
    settings: FinetuneSettings,
    records: list[LabelledRecord],
    given: LabelSplits | None,
    finder: LeakFinder,
) -> list[str] | None:
    """Return the group of each record that stays in one split; None where only equal sequences do."""
    if settings.split_by == "similarity":
        if settings.group_column or settings.valid_groups or settings.test_groups:
            what = "groups say already what stays together"
            raise UsageError(what, at="--split-by similarity", remedy="leave out one of them")
        if given is not None and len(given.valid) and len(given.test):
            what = "the splits are given already"
            raise UsageError(what, at="--split-by similarity", remedy="leave it out")
        return finder.components()
    return [record.group for record in records] if settings.group_column else None


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def find_gaps(data: LabelledSet, splits: LabelSplits) -> list[str]:
    """Return warnings about splits with too few records, or without records of a class."""
    sentences = []
    for name, count in splits.counts().items():
        if 0 < count < _FEW:
            sentences.append(
                f"the {name} split has only {count} record{'s' * (count > 1)}: its metrics say little"
            )
        if count and data.scheme.has_classes:
            labels = np.concatenate([data.targets[i].reshape(-1) for i in getattr(splits, name).tolist()])
            missing = [label for k, label in enumerate(data.scheme.names) if not (labels == k).any()]
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
        # groups and regions decide the splits too
        parts += [f"group {record.group}".encode()] * bool(record.group)
        parts += [f"region {record.region}".encode()] * (record.region is not None)
        digest.update(b"\t".join(parts) + b"\n")
    files = [*settings.data, *(settings.valid or ()), *(settings.test or ())]
    names = ", ".join(Path(file).name for file in files)
    return {"path": names, "records": len(records), "sha256": digest.hexdigest()}


def split_sizes(splits: LabelSplits) -> str:
    """Return the number of records of each split, in words."""
    return ", ".join(f"{splits.counts()[name]:,} {name}" for name in SPLITS)
