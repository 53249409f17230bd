"""The predictions of a fine-tuning run as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hyenacli.adaptation.evaluation_result import Scored
from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets
from hyenacli.finetune.run import Trial, stretch_of
from hyenacli.inference.prediction import Predicted
from hyenacli.inference.record_tables import prediction_columns, prediction_rows
from hyenacli.readers.labelled_record import LabelledRecord
from hyenacli.readers.records import SequenceRecord
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import open_table
from hyenadna.config import HeadConfig


def write_predictions(
    directory: Path, trial: Trial, head: HeadConfig, splits: Mapping[str, Scored], sha256: str
) -> Path:
    """Write the table: as `hyena predict`, with the split and the label of each record.

    Of labels of bases, which are many, only the last split that there is of train, valid and test.

    Args:
        directory: of the run.
        trial: whose records.
        head: of its model.
        splits: what the model says of each.
        sha256: of the model.
    """
    scheme = trial.data.scheme
    titles = (
        ["label"] if scheme.has_classes or scheme.n_outputs == 1 else [f"label_{n}" for n in scheme.names]
    )
    own = [Column("split", str), *(Column(title, str) for title in titles)]
    first, *others = prediction_columns(head)
    shown = list(splits) if scheme.level == "sequence" else list(splits)[-1:]
    provenance = {"model_sha256": sha256, "data": trial.data.inputs}
    path = directory / f"predictions.{trial.settings.predictions}"
    with open_table(path, None, [first, *own, *others], provenance) as table:
        for split in shown:
            places = getattr(trial.splits, split).tolist()
            for i, said in zip(places, splits[split].logits, strict=True):
                record, per_base = trial.data.records[i], said.ndim > 1
                logits, target = said, trial.data.targets[i]
                if per_base and record.region is not None and record.region.strand == "-":
                    # rows of bases go along the + strand, and the record was read along the other
                    logits, target = logits[::-1], target[::-1]
                answer = Predicted(_placed(record), 1 if per_base else len(record.sequence), logits)
                rows = dict(prediction_rows(answer, head))
                labels = _texts(scheme, target)
                rows["split"] = [split] * len(labels[0])
                table.write(rows | dict(zip(titles, labels, strict=True)))
    return path


def _placed(record: LabelledRecord) -> SequenceRecord:
    """The record where it lies."""
    stretch, region = stretch_of(record), record.region
    if region is None:
        return stretch
    return replace(stretch, chrom=region.contig, start=region.start, end=region.end, strand=region.strand)


def _texts(scheme: LabelScheme, target: Targets) -> Sequence[list[str]]:
    """The texts of each label column: of a sequence one, or one for each base."""
    if scheme.has_classes:
        return [[scheme.names[int(k)] if k != IGNORED else "" for k in target.reshape(-1).tolist()]]
    by_column = target.reshape(-1, scheme.n_outputs).T.tolist()
    return [["" if math.isnan(value) else f"{value:.7g}" for value in column] for column in by_column]
