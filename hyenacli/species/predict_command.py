"""`hyena classify-species predict`: predict the species of contigs; its tables, and a FASTA per species.

S species, W windows of a contig.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rich.progress import Progress

from hyenacli import __version__, console
from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, abbreviate
from hyenacli.inference.batching import parse_batch_size
from hyenacli.inference.embedding_options import check_stride
from hyenacli.inference.prediction import prediction_options, value_names
from hyenacli.readers.records import check_input
from hyenacli.readers.text import open_binary
from hyenacli.settings_file import to_dict
from hyenacli.species.predict import Classified, Floats, classify, open_contigs, species_head
from hyenacli.species.settings import SpeciesPredictSettings
from hyenacli.training.run_directory import warn_unfinished
from hyenacli.writers.atomic import atomic_directory, check_directory
from hyenacli.writers.columns import Batch, Column, TableWriter
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna import load_model, model_sha256
from hyenadna.formats.load import locate

UNKNOWN, UNCLASSIFIED = "unknown", "unclassified"
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
    _check_words(config)
    shards = [resolve_shard(config.shard, table) for table in _tables(config)]
    _check_outputs(config, shards)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    locate(config.model)
    for shard in shards:
        shard.clear()
    with ExitStack() as stack:
        stream = stack.enter_context(open_binary(config.input))
        keep_text = config.split_fasta is not None
        contigs, facts = open_contigs(stream, config.input, shards[0].shard, keep_text=keep_text)
        set_threads(config.threads)
        model = load_model(config.model).to(device)
        head = species_head(model, config.model)
        warn_unfinished(Path(config.model))
        rc = head.rc if config.rc == "auto" else config.rc == "mean"
        options = prediction_options(head, rc=rc, window=config.window, stride=config.stride)
        width, _ = options.windows(model.config, model.longest_input)
        species = value_names(head)
        log.info("model: %s, read in windows of %s bases", ", ".join(species), f"{width:,}")
        summary = _Summary(
            stack.enter_context(console.progress("{task.completed} bases", "{task.fields[speed]} bases/s"))
        )
        predicted = classify(
            model,
            contigs,
            options,
            min_length=config.min_length,
            batch_size=batch_size,
            precision=precision,
            on_progress=summary.advance,
        )
        table = SpeciesTable(species, config.threshold, config.top)
        provenance = {"model_sha256": model_sha256(model), "strands": "mean of both" if rc else "one"} | facts
        writers = _open_outputs(config, shards, table, provenance, stack)
        for contig in predicted:
            for write in writers:
                write(contig)
            summary.add(contig, table.prediction(contig))
    summary.report(shards[0].describe())
    for shard in shards:
        merge_if_last(shard)


def _tables(config: SpeciesPredictSettings) -> list[Path]:
    return [config.output] if config.per_window is None else [config.output, config.per_window]


def _table_type(config: SpeciesPredictSettings, table: Path) -> str:
    return table_type(table, config.output_type if table is config.output else None, SCALAR_TABLES)


def _check_words(config: SpeciesPredictSettings) -> None:
    if config.window is not None:
        check_stride(config.window, config.stride)
    if config.force and config.split_fasta is None:
        raise UsageError("--force replaces the directory of --split-fasta", remedy="leave it out")


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
) -> list[Callable[[Classified], None]]:
    """Return a function per output that writes a contig; the outputs appear when the stack ends well."""

    def open_output(path: Path, shard: OutputShard, columns: Sequence[Column]) -> TableWriter:
        # The provenance of a table is what would make it again: nothing of the other outputs.
        settings = to_dict(replace(config, output=path, per_window=None, split_fasta=None, force=False))
        facts = {"hyena_version": __version__, **provenance, "settings": settings}
        return stack.enter_context(open_table(shard.target, _table_type(config, path), columns, facts))

    contigs = open_output(config.output, shards[0], table.columns())
    writers: list[Callable[[Classified], None]] = [lambda contig: contigs.write(table.rows(contig))]
    if config.per_window is not None:
        windows = open_output(config.per_window, shards[1], table.window_columns())
        writers.append(lambda contig: windows.write(table.window_rows(contig)) if contig.windows else None)
    if config.split_fasta is not None:
        copy = stack.enter_context(open_split(config.split_fasta, table.species, force=config.force))
        writers.append(lambda contig: copy(table.prediction(contig), contig.contig.text))
    return writers


class _Summary:
    """Counts of a run: a progress bar while windows are read, and a line at the end."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("classifying", total=None, speed="")
        self._start = time.monotonic()
        self._predictions: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._bases = 0

    def advance(self, bases: int) -> None:
        """Show that a window was read."""
        speed = self._bar.tasks[0].completed / (time.monotonic() - self._start)
        self._bar.update(self._task, advance=bases, speed=f"{speed:,.0f}")

    def add(self, contig: Classified, prediction: str) -> None:
        """Count a contig."""
        self._statuses[contig.status] += 1
        self._bases += contig.n_bases
        if prediction:
            self._predictions[prediction] += 1

    def report(self, destination: str) -> None:
        """Log how many contigs of each species were predicted, and how many were not, by status."""
        seconds = time.monotonic() - self._start
        done = self._statuses.pop("OK", 0)
        species = abbreviate(
            (f"{count:,} {name}" for name, count in self._predictions.most_common()), limit=12
        )
        failed = "".join(f", {count:,} {status}" for status, count in self._statuses.most_common())
        contigs = console.counted(done, "contig") + (f" ({species})" if species else "")
        counts = f"{contigs}{failed}: {console.counted(self._bases, 'base')}"
        log.info("classified %s in %.1f s, %s", counts, seconds, destination)
        console.event(
            "classify-species",
            contigs=done,
            predictions=dict(self._predictions),
            failed=dict(self._statuses),
            bases=self._bases,
            seconds=round(seconds, 3),
        )


@dataclass(frozen=True)
class SpeciesTable:
    """The layout of the tables of contigs and of windows.

    Attributes:
        species: their names, in the order of the probabilities.
        threshold: a less probable species is not named.
        top: number of species in the column `top`, with their probabilities; None for no such column.
    """

    species: tuple[str, ...]
    threshold: float = 0.0
    top: int | None = None

    def predictions(self, p_WS: Floats) -> list[str]:
        """Return the likeliest species of each row, or `unknown`.

        >>> SpeciesTable(("human", "mouse"), 0.7).predictions(np.array([[0.6, 0.4], [0.3, 0.7]]))
        ['unknown', 'mouse']
        """
        best_W = p_WS.argmax(axis=1).tolist()
        return [
            self.species[best] if p_S[best] >= self.threshold else UNKNOWN
            for best, p_S in zip(best_W, p_WS, strict=True)
        ]

    def prediction(self, contig: Classified) -> str:
        """Return the prediction for a contig; "" unless its status is OK."""
        return "" if contig.p is None else self.predictions(contig.p[None])[0]

    def columns(self) -> list[Column]:
        """Return the columns of the table of contigs."""
        return [
            *(Column("id", str), Column("length", int), Column("n_windows", int), Column("n_bases", int)),
            *(Column("status", str), Column("prediction", str), Column("probability", float, digits=_DIGITS)),
            *([Column("top", str)] if self.top else []),
            *self._probabilities(),
        ]

    def rows(self, contig: Classified) -> Batch:
        """Return the row of a contig."""
        p_S = np.full(len(self.species), np.nan) if contig.p is None else contig.p
        row: dict[str, list[str] | list[int] | list[float]] = {
            "id": [contig.contig.name],
            "length": [len(contig.contig.sequence)],
            "n_windows": [len(contig.windows)],
            "n_bases": [contig.n_bases],
            "status": [contig.status],
            "prediction": [self.prediction(contig)],
            "probability": [float(p_S.max())],
        }
        if self.top:
            row["top"] = ["" if contig.p is None else self._top(contig.p, self.top)]
        return row | {column.name: [p] for column, p in zip(self._probabilities(), p_S.tolist(), strict=True)}

    def window_columns(self) -> list[Column]:
        """Return the columns of the table of windows."""
        window = (Column("id", str), Column("start", int), Column("end", int))
        return [*window, Column("prediction", str), *self._probabilities()]

    def window_rows(self, contig: Classified) -> Batch:
        """Return a row for each window of a contig that has windows."""
        assert contig.window_p is not None  # noqa: S101  (internal invariant)
        starts_W, ends_W = np.array(contig.windows).T
        row = {
            "id": [contig.contig.name] * len(contig.windows),
            "start": starts_W,
            "end": ends_W,
            "prediction": self.predictions(contig.window_p),
        }
        columns = self._probabilities()
        return row | {column.name: contig.window_p[:, i] for i, column in enumerate(columns)}

    def _probabilities(self) -> list[Column]:
        return [Column(f"p_{name}", float, digits=_DIGITS) for name in self.species]

    def _top(self, p_S: Floats, count: int) -> str:
        order = np.argsort(-p_S, kind="stable")[:count].tolist()
        return ",".join(f"{self.species[i]}:{p_S[i]:.4g}" for i in order)


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
