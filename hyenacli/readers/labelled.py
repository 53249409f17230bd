"""Labelled sequences from tables, FASTA, regions of a genome, and folders of classes."""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from hyenacli.errors import UsageError, UserError, abbreviate, quote
from hyenacli.genome.contigs import natural_key
from hyenacli.readers.annotation import is_annotation
from hyenacli.readers.features import FeatureChoice
from hyenacli.readers.json_lines import is_json_lines, read_json_lines
from hyenacli.readers.regions import Reference, read_regions
from hyenacli.readers.sequences import FastaRecord, read_records
from hyenacli.readers.signal import Signal
from hyenacli.readers.tables import (
    Columns,
    LabelledRecord,
    is_sequence,
    is_split,
    read_bases,
    read_parquet,
    read_text_table,
    split_name,
)
from hyenacli.readers.text import (
    Source,
    compression,
    file_format,
    open_binary,
    refuse_foreign,
    sniff_format,
    source_name,
)

Kind = Literal["table", "parquet", "fasta", "bed", "folder"]
_Opened = tuple[Kind, tuple[str, ...], Iterator[LabelledRecord]]
_PARQUET = b"PAR1"
_SPLIT_FOLDERS = ("train", "valid", "validation", "val", "dev", "test")
# The flags of the fields of `Columns`.
_COLUMN_FLAGS = {
    "sequence": "--sequence-column",
    "labels": "--label-column",
    "id": "--id-column",
    "group": "--group-column",
    "split": "--split-column",
}
_logger = logging.getLogger("hyena")


class LabelledRows:
    """The records of inputs of labelled sequences, one input after the other; from `open_labelled`.

    Iterate once over the records in their order, or `load` those that can be trained on. Use in a `with`
    statement.

    Attributes:
        names: the names of the inputs in messages.
        kinds: the kind of each input.
        label_names: names of the label columns; empty where there are no labels.
    """

    def __init__(self, names: Sequence[str], inputs: Sequence[_Opened], files: ExitStack) -> None:
        self.names = tuple(names)
        self.kinds: tuple[Kind, ...] = tuple(kind for kind, _, _ in inputs)
        self.label_names = inputs[0][1]
        self._records = [records for _, _, records in inputs]
        self._files = files
        for name, (_, label_names, _) in zip(names, inputs, strict=True):
            if label_names != self.label_names:
                what = (
                    f"the label columns are {abbreviate(label_names)}, but {abbreviate(self.label_names)} in "
                )
                raise UserError(what + self.names[0], at=name, remedy="give inputs of the same columns")

    def __iter__(self) -> Iterator[LabelledRecord]:
        for records in self._records:
            yield from records

    def load(self) -> list[LabelledRecord]:
        """Read every record but those on no contig of the genome or of nothing but N, with a warning.

        Raises:
            UserError: there is no record, or some cannot be trained on; and as the readers.
        """
        kept: list[LabelledRecord] = []
        faulty: list[LabelledRecord] = []
        omitted: dict[str, list[str]] = {"on no contig of the genome": [], "nothing but N": []}
        for record in self:
            if record.status == "NO_CONTIG":
                omitted["on no contig of the genome"].append(record.id)
            elif record.status != "OK":
                faulty.append(record)
            elif not record.sequence.strip(b"N"):
                omitted["nothing but N"].append(record.id)
            else:
                kept.append(record)
        if faulty:
            raise _unusable(faulty)
        names = ", ".join(self.names)
        for reason, ids in omitted.items():
            if ids:
                _logger.warning("%s: left out, as %s: %s", names, reason, abbreviate(ids))
        if not kept:
            raise UserError("no records", at=names, remedy="give some with A, C, G and T")
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()


def _unusable(records: Sequence[LabelledRecord]) -> UserError:
    """Return the error that names the records that cannot be trained on."""
    first = records[0]
    if len(records) == 1:
        return first.error(first.problem, "mend or remove the record")
    lines = abbreviate(f"{record.line:,}" for record in records)
    what = f"{len(records):,} records cannot be trained on, the first as {first.problem}"
    return UserError(what, at=f"{first.file}, {first.unit}s {lines}", remedy="mend or remove them")


def open_labelled(
    sources: Sequence[Source],
    columns: Columns | None = None,
    *,
    reference: Reference | None = None,
    signal: Source | None = None,
    split: str = "",
    labelled: bool = True,
    choice: FeatureChoice | None = None,
) -> LabelledRows:
    """Open inputs of labelled sequences; their kind is detected by content, and gzip is read everywhere.

    * Tables (csv, tsv, Parquet, JSON Lines); csv and tsv with a line of column names or without.
    * FASTA with the label in the header: `>name|label`, or with a split `>name|label|train`.
    * BED, on a genome, with the label in a column or in a bedGraph.
    * Folders of one file per sequence, `train/<class>/*.txt` and `test/<class>/*.txt` as GenomicBenchmarks
      unpacks them, or only `<class>/*.txt`.
    * `label=FILE`: any of these files with one label for all its records. A file of that name goes first.

    Args:
        sources: paths, '-', streams or `label=FILE`; at least one.
        columns: of tables and BED.
        reference: the genome of a BED.
        signal: a bedGraph or bigWig with the labels of the bases of a BED.
        split: the split of all records that name none.
        labelled: whether labels are required; otherwise tables and BED give those they have, and the header
            of a FASTA is the name of its sequence.
        choice: of the features of an annotation, which is read as a BED is.

    Raises:
        UsageError: a BED comes without a genome, or columns are named that an input cannot have.
        UserError: an input cannot be read or lacks a column, or inputs disagree about the label columns.
    """
    columns = columns or Columns()
    with ExitStack() as files:
        numbers = None
        if signal is not None and reference is not None:
            numbers = files.enter_context(closing(Signal(signal, reference)))
        names, inputs = [], []
        for text in sources:
            label, source = split_label_prefix(text)
            opened = _open(
                source, files, columns, reference, numbers, choice, labelled=labelled and label is None
            )
            if signal is not None and opened[0] != "bed":
                remedy = "give a BED and its genome"
                raise UserError(
                    "a bedGraph has labels for regions only", at=source_name(source), remedy=remedy
                )
            if labelled:
                given = signal is not None or label is not None
                _refuse_columns(columns, opened[0], source_name(source), labels_given=given)
            names.append(source_name(source))
            inputs.append(_marked(opened, label, split))
        return LabelledRows(names, inputs, files.pop_all())


def split_label_prefix(source: Source) -> tuple[str | None, Source]:
    """Return the label of a `label=FILE`, None for any other source, and the file.

    Raises:
        UsageError: one of them is missing.
    """
    if not isinstance(source, str | Path) or Path(source).exists():
        return None, source
    label, equals, path = str(source).partition("=")
    if not equals or "/" in label:
        return None, source
    if not label or not path:
        raise UsageError(f"'{source}' is not label=FILE", remedy="write a label and a file, as enhancer=a.fa")
    return label, path


def _refuse_columns(columns: Columns, kind: Kind, name: str, *, labels_given: bool) -> None:
    """Raise UsageError for columns that an input of this kind cannot have.

    Args:
        columns: of the command line.
        kind: of the input.
        name: the input's name in messages.
        labels_given: whether its labels come from no column.
    """
    defaults, meaningless, instead = Columns(), dict[str, str](), ""
    if kind in ("fasta", "folder"):
        what = f"is a {kind.replace('fasta', 'FASTA')}, which has no columns"
        meaningless, instead = dict.fromkeys(_COLUMN_FLAGS, what), ", or give a table"
    if kind == "bed":
        meaningless["sequence"] = "is a BED, and its sequences are those of the genome"
    if labels_given:
        meaningless["labels"] = "has its labels from elsewhere"
    for field, what in meaningless.items():
        column = getattr(columns, field)
        if column and column != getattr(defaults, field):
            raise UsageError(what, at=name, remedy=f"leave out {_COLUMN_FLAGS[field]}{instead}")


def _marked(opened: _Opened, label: str | None, split: str) -> _Opened:
    """Return the same records with the label of their file, and a split for those without."""
    kind, names, records = opened
    if label is not None:
        names, records = ("label",), (replace(record, label=label) for record in records)
    if split:
        records = (record if record.split else replace(record, split=split) for record in records)
    return kind, names, records


def _open(
    source: Source,
    files: ExitStack,
    columns: Columns,
    reference: Reference | None,
    signal: Signal | None,
    choice: FeatureChoice | None,
    *,
    labelled: bool,
) -> _Opened:
    if isinstance(source, str | Path) and Path(source).is_dir():
        return "folder", ("label",), _read_folder(Path(source))
    stream = files.enter_context(open_binary(source, allow_empty=not labelled))
    if not stream.peek(1):
        return "table", (), iter(())
    choice = choice or FeatureChoice()
    kind: Kind = "bed" if is_annotation(stream, choice) else _kind(stream)
    if kind == "parquet":
        # Parquet is read from its end: a stream or a compressed file must be in memory.
        plain = isinstance(source, str | Path) and str(source) != "-" and compression(Path(source)) == "plain"
        data = Path(str(source)) if plain else stream.read()
        return kind, *read_parquet(data, str(stream.name), columns, labelled=labelled)
    if kind == "fasta":
        return kind, ("label",) * labelled, _read_fasta(stream, labelled=labelled)
    if kind == "table":
        read = read_json_lines if is_json_lines(stream) else read_text_table
        return kind, *read(stream, columns, labelled=labelled)
    if reference is None:
        what = f"is {file_format(stream) or 'a BED'}"
        raise UsageError(what, at=stream.name, remedy="give its genome with -f/--fasta")
    return kind, *read_regions(stream, reference, columns, signal, labelled=labelled, choice=choice)


def _kind(stream: io.BufferedReader) -> Kind:
    """Return the kind of an input by its first lines; an input of no other kind is a table."""
    if stream.peek(1).startswith(_PARQUET):
        return "parquet"
    if is_json_lines(stream):
        return "table"
    try:
        kind = sniff_format(stream)
    except UserError:
        refuse_foreign(stream)
        return "table"
    if kind == "vcf":
        remedy = "give a table, FASTA, BED or a folder of classes"
        raise UserError("is a VCF, which holds no sequences", at=stream.name, remedy=remedy)
    # A sequence and two whole numbers look like a region.
    return "table" if kind == "bed" and is_sequence(_first_word(stream)) else kind


def _first_word(stream: io.BufferedReader) -> str:
    lines = stream.peek(1).splitlines()
    words = (line.split()[0].decode(errors="replace") for line in lines if line.strip())
    return next((word for word in words if word not in ("track", "browser") and word[0] != "#"), "")


def _read_fasta(stream: io.BufferedReader, *, labelled: bool) -> Iterator[LabelledRecord]:
    """Read the records of a FASTA; the label follows the last `|` of the header, or a split follows it."""
    file = str(stream.name)
    for record in read_records(stream):
        name, label, split = _title(record, file) if labelled else (record.name, None, "")
        problem = "" if record.sequence else record.problem or "the sequence is empty"
        # by position, which takes half the time: reads are short, and many
        yield LabelledRecord(
            name, record.sequence, label, "", split, None, file, record.line, "line", record.status, problem
        )


def _title(record: FastaRecord, file: str) -> tuple[str, str, str]:
    """Return the name, the label and the split in a header."""
    *head, label = f"{record.name} {record.description}".split("|")
    if not head:
        remedy = "write >name|label, or give one FASTA per class as label=FILE"
        raise UserError(f"no label in {quote(record.name)}", at=file, line=record.line, remedy=remedy)
    split = ""
    if len(head) > 1 and is_split(label.strip()):
        split, label = split_name(label.strip()), head.pop()
    return ("|".join(head).split() or [""])[0], label.strip(), split


def _read_folder(folder: Path) -> Iterator[LabelledRecord]:
    """Read the sequences of a folder of classes, or of a folder of splits with such folders."""
    children = _folders(folder)
    splits = [path for path in children if path.name in _SPLIT_FOLDERS]
    if splits and len(splits) < len(children):
        others = abbreviate([path.name for path in children if path not in splits])
        raise UserError(f"has splits and also {others}", at=folder, remedy="keep other folders elsewhere")
    empty = True
    for split in splits or [folder]:
        for kind in _folders(split):
            for path in sorted(_texts(kind), key=lambda path: natural_key(path.name)):
                empty = False
                yield _one_sequence(path, kind.name, split_name(split.name) if splits else "")
    if empty:
        remedy = "a folder of labelled sequences has train/<class>/*.txt and test/<class>/*.txt"
        raise UserError("no sequences", at=folder, remedy=remedy)


def _folders(folder: Path) -> list[Path]:
    children = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(children, key=lambda path: natural_key(path.name))


def _texts(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name.endswith((".txt", ".txt.gz")))


def _one_sequence(path: Path, label: str, split: str) -> LabelledRecord:
    with open_binary(path) as stream:
        bases, status, problem = read_bases(b"".join(stream.read().split()))
    name = path.name.removesuffix(".gz").removesuffix(".txt")
    identity = "/".join(part for part in (split, label, name) if part)
    record = LabelledRecord(identity, bases, label, split=split, file=str(path), line=1)
    return replace(record, status=status, problem=problem)
