"""`hyena classify-species predict`: predict the species of contigs; its tables, and a FASTA per species.

S species, W windows of a contig.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hyenacli import __version__
from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import probabilities
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.embedding_options import EmbeddingOptions, check_stride
from hyenacli.inference.experts import Experts, join_predictions, open_experts
from hyenacli.inference.prediction import Predicted, predict, prediction_options, value_names
from hyenacli.readers.records import OK, SequenceRecord, check_input, started, warn_of_unusable
from hyenacli.readers.sequences import FastaRecord, read_fasta
from hyenacli.readers.shards import Shard, survey_fasta
from hyenacli.readers.text import open_binary, source_name
from hyenacli.settings_file import to_dict
from hyenacli.species.settings import SpeciesPredictSettings
from hyenacli.training.run_directory import warn_unfinished
from hyenacli.writers.atomic import atomic_directory, check_directory
from hyenacli.writers.columns import Batch, Column, TableWriter
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna import HyenaDNA, load_model, model_sha256
from hyenadna.config import HeadConfig
from hyenadna.formats.load import locate

UNKNOWN, UNCLASSIFIED, TOO_SHORT = "unknown", "unclassified", "TOO_SHORT"
_SUFFIX = ".fa"
_DIGITS = 7
# As UTF-8 a letter has up to four bytes, and a file's name at most 255.
_MAX_NAME = 60


def run(config: SpeciesPredictSettings) -> None:
    """Check the arguments, then the outputs, then the input; load the model and write its predictions.

    Raises:
        UserError: bad input, an output that cannot be written, or a model whose outputs are not species.
    """
    batch_size = parse_batch_size(config.batch_size)
    if config.window is not None:
        check_stride(config.window, config.stride)
    if config.force and config.split_fasta is None:
        raise UsageError("--force replaces the directory of --split-fasta", remedy="leave it out")
    shards = [
        resolve_shard(config.shard, table, multiqc=config.multiqc and table is config.output)
        for table in _tables(config)
    ]
    _check_outputs(config, shards)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    folder = locate(config.model).config.parent
    for shard in shards:
        shard.clear()
    with ExitStack() as stack:
        stream = stack.enter_context(open_binary(config.input, allow_empty=True))
        keep_text = config.split_fasta is not None
        contigs, facts = open_contigs(stream, config.input, shards[0].shard, keep_text=keep_text)
        set_threads(config.threads)
        model = load_model(config.model).to(device)
        head = species_head(model, config.model)
        warn_unfinished(Path(config.model))
        rc = head.rc if config.rc == "auto" else config.rc == "mean"
        circles = _circles(config)
        options = species_options(head, rc=rc, window=config.window, stride=config.stride)
        width, _ = options.windows(model.config, model.longest_input)
        table = SpeciesTable(head, config.threshold, config.top)
        experts = open_experts(folder)
        log.info("model: %s, read in windows of %s bases", ", ".join(table.species), f"{width:,}")
        predicted = classify(
            model,
            contigs,
            options,
            experts,
            min_length=config.min_length,
            circles=circles,
            batch_size=batch_size,
            precision=precision,
        )
        provenance = {"model_sha256": model_sha256(model), "strands": "mean of both" if rc else "one"} | facts
        writers = _open_outputs(config, shards, table, provenance, stack)
        summary = RunSummary("classify-species", "classifying", "classified", "contig")
        predictions: Counter[str] = Counter()
        absent = set(circles)

        def written() -> Iterator[Predicted]:
            for contig, answer in predicted:
                absent.discard(contig.name)
                for write in writers:
                    write(answer, contig.text)
                yield answer

        for answer in summary.watch(written(), None):
            predictions.update([table.prediction(answer)] * (answer.logits is not None))
    if absent and shards[0].shard is None:
        log.warning("--circular: no contig %s", abbreviate(sorted(absent)))
    names = abbreviate((f"{count:,} {name}" for name, count in predictions.most_common()), limit=12)
    details = f" ({names})" * bool(names)
    summary.report(shards[0].describe(), details, predictions=dict(predictions))
    shards[0].write_statuses(summary.verb, summary.statuses)
    for shard in shards:
        merge_if_last(shard)


def _circles(config: SpeciesPredictSettings) -> frozenset[str]:
    names = (name.strip() for name in (config.circular or "").split(","))
    return frozenset(name for name in names if name)


def _tables(config: SpeciesPredictSettings) -> list[Path]:
    return [config.output] if config.per_window is None else [config.output, config.per_window]


def _table_type(config: SpeciesPredictSettings, table: Path) -> str:
    return table_type(table, config.output_type if table is config.output else None, SCALAR_TABLES)


def _check_outputs(config: SpeciesPredictSettings, shards: Sequence[OutputShard]) -> None:
    """Raise UserError where an output cannot be written, or is also another file of the command."""
    for table, shard in zip(_tables(config), shards, strict=True):
        _table_type(config, table)
        check_input(config.input, None, several_processes=shard.whole is not None)
        shard.check(config.input)
    if len({table.resolve() for table in _tables(config)}) < len(shards):
        raise UsageError("is the output already", at="--per-window", remedy="name another file")
    folder = config.split_fasta
    if folder is None:
        return
    if shards[0].shard is not None:
        raise UsageError(
            "writes one directory, and shards would write one each",
            at="--split-fasta",
            remedy="leave it out, or read the input in one process",
        )
    for file in (config.input, *_tables(config)):
        if str(file) != "-" and file.resolve().is_relative_to(folder.resolve()):
            what = f"{file} lies in this directory, which is written whole"
            raise UsageError(what, at=folder, remedy="choose another directory")
    check_directory(folder, _SUFFIX, force=config.force)


def _open_outputs(
    config: SpeciesPredictSettings,
    shards: Sequence[OutputShard],
    table: "SpeciesTable",
    provenance: dict[str, Any],
    stack: ExitStack,
) -> list[Callable[[Predicted, bytes], None]]:
    """Return a function per output that writes a contig; the outputs appear when the stack ends well."""

    def open_output(path: Path, shard: OutputShard, columns: Sequence[Column]) -> TableWriter:
        # The provenance of a table is what would make it again: nothing of the other outputs.
        settings = to_dict(replace(config, output=path, per_window=None, split_fasta=None, force=False))
        facts = {"hyena_version": __version__, **provenance, "settings": settings}
        return stack.enter_context(open_table(shard.target, _table_type(config, path), columns, facts))

    contigs = open_output(config.output, shards[0], table.columns())
    writers: list[Callable[[Predicted, bytes], None]] = [
        lambda answer, _text: contigs.write(table.rows(answer))
    ]
    if config.per_window is not None:
        windows = open_output(config.per_window, shards[1], table.window_columns())
        writers.append(
            lambda answer, _text: windows.write(table.window_rows(answer)) if answer.windows else None
        )
    if config.split_fasta is not None:
        copy = stack.enter_context(open_split(config.split_fasta, table.species, force=config.force))
        writers.append(lambda answer, text: copy(table.prediction(answer), text))
    return writers


def open_contigs(
    stream: io.BufferedReader, source: Path, shard: Shard | None = None, *, keep_text: bool = False
) -> tuple[Iterator[FastaRecord], dict[str, Any]]:
    """Open the contigs of a FASTA; return them, and the facts of a shard, under "shard", for the output.

    Args:
        stream: the FASTA.
        source: its path, to count the records of a shard.
        shard: the part to read.
        keep_text: whether records keep their text.

    Raises:
        UsageError: as `survey_fasta`.
        UserError: the file does not begin like FASTA, or the first record cannot be read; errors of later
            records are raised when they are read.
    """
    contigs = read_fasta(stream, keep_text=keep_text)
    if shard is None:
        return warn_of_unusable(started(contigs, source_name(stream)), source_name(stream)), {}
    count, sha256 = survey_fasta(source)
    part = shard.part(count)
    chosen = warn_of_unusable(islice(contigs, part.start, part.stop), source_name(stream))
    return chosen, shard.describe(count, sha256)


def species_head(model: HyenaDNA, name: object = None) -> HeadConfig:
    """Return the head of a model, whose outputs are species.

    Args:
        model: the model.
        name: its name in messages.

    Raises:
        UserError: it has no head, or the head's outputs are not named classes of whole sequences.
    """
    head = model.config.head
    classes = ("binary", "multiclass")
    if head is not None and head.task in classes and head.level == "sequence" and head.labels:
        return head
    if head is None:
        what = "the model has no head, so it knows no species"
    elif head.level != "sequence":
        what = "the model predicts each base by itself, and no species"
    elif head.task not in classes:
        what = f"the model's head is for {head.task}, and not for one of several species"
    else:
        what = f"the {head.n_outputs} classes of the model have no names, so they are no species"
    raise UserError(what, at=name, remedy="train one with `hyena classify-species train`")


def species_options(
    head: HeadConfig, *, rc: bool, window: int | None = None, stride: int | None = None
) -> EmbeddingOptions:
    """Return the options with which species are predicted: as `prediction_options`, windows averaged."""
    return replace(prediction_options(head, rc=rc, window=window, stride=stride), average=True)


def classify(
    model: HyenaDNA,
    contigs: Iterable[FastaRecord],
    options: EmbeddingOptions,
    experts: Experts | None = None,
    *,
    min_length: int,
    circles: Collection[str] = (),
    max_bytes: int = 1 << 26,
    **how: Any,
) -> Iterator[tuple[FastaRecord, Predicted]]:
    """Predict the species of contigs, in their order; see `predict`.

    Args:
        model: with a head as of `species_head`, in eval mode, on the device to use.
        contigs: the records.
        options: from `species_options`.
        experts: joins the model.
        min_length: bases below which a contig is TOO_SHORT.
        circles: names of contigs whose windows go on across the end, beside those that a file calls circular.
        max_bytes: size of the contigs that may wait for the end of a batch.
        how: `batch_size` and `precision` of `predict`.
    """

    def numbered() -> Iterator[tuple[int, FastaRecord]]:
        size = 0
        for contig in contigs:
            size += len(contig.sequence) + len(contig.text)
            yield size // max_bytes, contig

    # the end of a pass completes its last batch, however few windows the contigs of many bytes have
    for _, group in groupby(numbered(), key=itemgetter(0)):
        members = [contig for _, contig in group]
        answers = predict(model, (_record(c, min_length, circles) for c in members), options, **how)
        yield from zip(members, join_predictions(answers, experts), strict=True)


def _record(contig: FastaRecord, min_length: int, circles: Collection[str]) -> SequenceRecord:
    record = SequenceRecord.of_sequence(contig.name, contig.sequence, contig.status)
    record = replace(record, circular=contig.circular or contig.name in circles)
    short = record.status == OK and len(record) < min_length
    return replace(record, status=TOO_SHORT, bases=b"") if short else record


@dataclass(frozen=True)
class SpeciesTable:
    """The layout of the tables of contigs and of windows.

    Attributes:
        head: its outputs are species.
        threshold: a less probable species is not named.
        top: number of species in the column `top`, with their probabilities; None for no such column.
    """

    head: HeadConfig
    threshold: float = 0.0
    top: int | None = None

    @property
    def species(self) -> tuple[str, ...]:
        """Their names, in the order of the probabilities."""
        return value_names(self.head)

    def prediction(self, answer: Predicted) -> str:
        """Return the likeliest species of a contig, or `unknown`; "" unless its status is OK."""
        return "" if answer.logits is None else self._named(self._shares(answer.logits[None]))[0]

    def columns(self) -> list[Column]:
        """Return the columns of the table of contigs."""
        return [
            *(Column("id", str), Column("length", int), Column("n_windows", int), Column("n_bases", int)),
            *(Column("status", str), Column("prediction", str), Column("probability", float, digits=_DIGITS)),
            *([Column("top", str)] if self.top else []),
            *self._probabilities(),
        ]

    def rows(self, answer: Predicted) -> Batch:
        """Return the row of a contig."""
        p_S = np.full(len(self.species), np.nan)
        if answer.logits is not None:
            p_S = self._shares(answer.logits[None])[0]
        row: dict[str, list[str] | list[int] | list[float]] = {
            "id": [answer.record.id],
            "length": [len(answer.record)],
            "n_windows": [len(answer.windows)],
            "n_bases": [answer.n_bases],
            "status": [answer.record.status],
            "prediction": [self.prediction(answer)],
            "probability": [float(p_S.max())],
        }
        if self.top:
            order = np.argsort(-p_S, kind="stable")[: self.top].tolist()
            likeliest = ",".join(f"{self.species[i]}:{p_S[i]:.4g}" for i in order)
            row["top"] = ["" if answer.logits is None else likeliest]
        return row | {column.name: [p] for column, p in zip(self._probabilities(), p_S.tolist(), strict=True)}

    def window_columns(self) -> list[Column]:
        """Return the columns of the table of windows."""
        window = (Column("id", str), Column("start", int), Column("end", int))
        return [*window, Column("prediction", str), *self._probabilities()]

    def window_rows(self, answer: Predicted) -> Batch:
        """Return a row for each window of a contig that has windows."""
        assert answer.window_logits is not None  # noqa: S101  (internal invariant)
        p_WS = self._shares(answer.window_logits)
        starts_W, ends_W = np.array(answer.windows).T
        row = {
            "id": [answer.record.id] * len(answer.windows),
            "start": starts_W,
            "end": ends_W,
            "prediction": self._named(p_WS),
        }
        return row | {column.name: p_WS[:, i] for i, column in enumerate(self._probabilities())}

    def _shares(self, logits_WC: Floats) -> Floats:
        return probabilities(self.head.task, logits_WC)

    def _named(self, p_WS: Floats) -> list[str]:
        best_W, names = p_WS.argmax(axis=1).tolist(), (*self.species, UNKNOWN)
        return [names[i if p_S[i] >= self.threshold else -1] for i, p_S in zip(best_W, p_WS, strict=True)]

    def _probabilities(self) -> list[Column]:
        return [Column(f"p_{name}", float, digits=_DIGITS) for name in self.species]


@contextmanager
def open_split(
    target: Path, species: Sequence[str], *, force: bool
) -> Iterator[Callable[[str, bytes], None]]:
    """Open a directory with a FASTA per prediction; yield a function that takes a prediction and a record.

    The directory appears, whole, when the context ends well, with a file for each prediction that occurs.

    Args:
        target: the directory.
        species: every possible prediction but `unknown` and "" (none).
        force: replace the contents of the directory.

    Raises:
        UserError: as `atomic_directory`.
    """
    names = file_names(species)
    with atomic_directory(target, _SUFFIX, force=force) as folder, ExitStack() as stack:
        files: dict[str, BinaryIO] = {}

        def write(prediction: str, text: bytes) -> None:
            if prediction not in files:
                files[prediction] = stack.enter_context((folder / names[prediction]).open("wb"))
            files[prediction].write(text)

        yield write


def file_names(species: Sequence[str]) -> dict[str, str]:
    """Return the file of each prediction, also `unknown` and "" (none): all different on any file system.

    >>> file_names(["E. coli", "e_coli", "unclassified"])  # doctest: +NORMALIZE_WHITESPACE
    {'': 'unclassified.fa', 'unknown': 'unknown.fa', 'E. coli': 'E_coli.fa', 'e_coli': 'e_coli_2.fa',
     'unclassified': 'unclassified_2.fa'}
    """
    stems = {"": UNCLASSIFIED, UNKNOWN: UNKNOWN}
    taken = set(stems.values())
    for name in species:
        if name in stems:
            continue
        base = re.sub(r"[^\w+-]+", "_", name)[:_MAX_NAME].strip("_-") or "species"
        number, stem = 1, base
        while stem.casefold() in taken:
            number += 1
            stem = f"{base}_{number}"
        stems[name] = stem
        taken.add(stem.casefold())
    return {name: f"{stem}{_SUFFIX}" for name, stem in stems.items()}
