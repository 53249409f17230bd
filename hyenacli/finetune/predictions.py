"""The predictions of a fine-tuning run as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hyenacli.adaptation.evaluation import SplitResult
from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets
from hyenacli.finetune.dataset import LabelledSet
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.finetune.splits import LabelSplits
from hyenacli.inference.prediction import Predicted
from hyenacli.inference.record_tables import prediction_columns, prediction_rows
from hyenacli.readers.labelled_record import LabelledRecord
from hyenacli.readers.records import SequenceRecord, whole_record
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import open_table
from hyenadna.config import HeadConfig


def write_predictions(
    settings: FinetuneSettings,
    data: LabelledSet,
    splits: LabelSplits,
    head: HeadConfig,
    results: Mapping[str, SplitResult],
    model_sha256: str,
) -> Path:
    """Write the table: that of `hyena predict`, with the split and the label of each record.

    Of labels of bases, which are many, only the last split of train, valid and test is written.

    Args:
        settings: of the run.
        data: the records.
        splits: of them.
        head: of the model.
        results: logits of each split.
        model_sha256: hash of the model.
    """
    scheme = data.scheme
    titles = (
        ["label"] if scheme.has_classes or scheme.n_outputs == 1 else [f"label_{n}" for n in scheme.names]
    )
    label_columns = [Column("split", str), *(Column(title, str) for title in titles)]
    first, *others = prediction_columns(head)
    written = list(results) if scheme.level == "sequence" else list(results)[-1:]
    provenance = {"model_sha256": model_sha256, "data": data.inputs}
    path = settings.output / f"predictions.{settings.predictions}"
    with open_table(path, None, [first, *label_columns, *others], provenance) as table:
        for split in written:
            for i, logits in zip(splits.indices()[split], results[split].logits, strict=True):
                record, target, per_base = data.records[i], data.targets[i], logits.ndim > 1
                if per_base and record.region is not None and record.region.strand == "-":
                    # rows of bases follow the + strand, and the record was read along the other
                    logits, target = logits[::-1], target[::-1]  # noqa: PLW2901
                n_bases = 1 if per_base else len(record.sequence)
                rows = dict(prediction_rows(Predicted(_with_region(record), n_bases, logits), head))
                labels = _label_texts(scheme, target)
                rows["split"] = [split] * len(labels[0])
                table.write(rows | dict(zip(titles, labels, strict=True)))
    return path


def as_sequence_record(record: LabelledRecord) -> SequenceRecord:
    """Return a labelled record as inference reads it."""
    return whole_record(record.id, record.sequence)


def _with_region(record: LabelledRecord) -> SequenceRecord:
    """Return the record with its region in the genome, where it has one."""
    sequence, region = as_sequence_record(record), record.region
    if region is None:
        return sequence
    return replace(sequence, chrom=region.contig, start=region.start, end=region.end, strand=region.strand)


def _label_texts(scheme: LabelScheme, target: Targets) -> Sequence[list[str]]:
    """Return the texts of each label column: one of a sequence, or one of each base."""
    if scheme.has_classes:
        return [[scheme.names[int(k)] if k != IGNORED else "" for k in target.reshape(-1).tolist()]]
    by_column = target.reshape(-1, scheme.n_outputs).T.tolist()
    return [["" if math.isnan(value) else f"{value:.7g}" for value in column] for column in by_column]
