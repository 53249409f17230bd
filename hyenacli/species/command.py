"""`hyena classify-species predict`: which species contigs come from."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyenacli import __version__, console
from hyenacli.console import log
from hyenacli.errors import UsageError, nearest
from hyenacli.genome.names import abbreviate
from hyenacli.readers.inputs import check_input
from hyenacli.settings_file import to_dict
from hyenacli.species.settings import SpeciesPredictSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import Progress

    from hyenacli.species.predict import Classified
    from hyenacli.species.table import SpeciesTable
    from hyenacli.writers.columns import Column, TableWriter
    from hyenacli.writers.output_shards import OutputShard

_RC = ("auto", "none", "mean")


def predict(config: SpeciesPredictSettings) -> None:
    """Check the arguments, then the outputs, then the input; load the model and write what it predicts.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.inference.batch_size import parse_batch_size
    from hyenacli.writers.output_shards import merge_if_last, resolve_shard

    batch_size = parse_batch_size(config.batch_size)
    _check_words(config)
    shares = [resolve_shard(config.shard, table) for table in _tables(config)]
    _check_outputs(config, shares)

    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenacli.readers.streams import open_binary
    from hyenadna.formats.locate import locate

    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    locate(config.model)
    for share in shares:
        share.clear()
    with ExitStack() as stack:
        from hyenacli.species.predict import classify, open_contigs, species_head

        stream = stack.enter_context(open_binary(config.input))
        splits = config.split_fasta is not None
        contigs, about = open_contigs(stream, config.input, shares[0].shard, keep_text=splits)

        from hyenacli.inference.prediction import prediction_options
        from hyenacli.inference.record_tables import value_names
        from hyenacli.species.table import SpeciesTable
        from hyenacli.training.run_metadata import warn_unfinished
        from hyenadna import load_model, model_sha256

        set_threads(config.threads)
        model = load_model(config.model).to(device)
        head = species_head(model, config.model)
        warn_unfinished(Path(config.model))
        rc = head.rc if config.rc == "auto" else config.rc == "mean"
        recipe = prediction_options(head, rc=rc, window=config.window, stride=config.stride)
        width, _ = recipe.windows(model.config, model.longest_input)
        log.info("model: %s, read in windows of %s bases", ", ".join(value_names(head)), f"{width:,}")
        tally = _Tally(
            stack.enter_context(console.progress("{task.completed} bases", "{task.fields[speed]} bases/s"))
        )
        answers = classify(
            model,
            contigs,
            recipe,
            min_length=config.min_length,
            batch_size=batch_size,
            precision=precision,
            on_progress=tally.read,
        )
        table = SpeciesTable(value_names(head), config.threshold, config.top)
        provenance = {"model_sha256": model_sha256(model), "strands": "mean of both" if rc else "one"} | about
        writers = _open_outputs(config, shares, table, provenance, stack)
        for answer in answers:
            for write in writers:
                write(answer)
            tally.add(answer, table.prediction(answer))
    tally.report(shares[0])
    for share in shares:
        merge_if_last(share)


def _tables(config: SpeciesPredictSettings) -> list[Path]:
    return [config.output] if config.per_window is None else [config.output, config.per_window]


def _table_type(config: SpeciesPredictSettings, table: Path) -> str:
    from hyenacli.writers.tables import SCALAR_TABLES, table_type

    return table_type(table, config.output_type if table is config.output else None, SCALAR_TABLES)


def _check_words(config: SpeciesPredictSettings) -> None:
    from hyenacli.inference.embedding_options import check_stride

    if config.rc not in _RC:
        raise UsageError(f"unknown choice '{config.rc}'", at="--rc", remedy=nearest(config.rc, list(_RC)))
    if config.window is not None:
        check_stride(config.window, config.stride)
    if config.force and config.split_fasta is None:
        raise UsageError("--force replaces the directory of --split-fasta", remedy="leave it out")


def _check_outputs(config: SpeciesPredictSettings, shares: "Sequence[OutputShard]") -> None:
    """Raise UserError where an output cannot be written, or stands in the way of another file."""
    from hyenacli.species.table import SUFFIX
    from hyenacli.writers.atomic import check_directory

    for table, share in zip(_tables(config), shares, strict=True):
        _table_type(config, table)
        check_input(config.input, None, several_processes=share.whole is not None)
        share.check(config.input)
    if len({table.resolve() for table in _tables(config)}) < len(shares):
        raise UsageError("is the output already", at="--per-window", remedy="name another file")
    folder = config.split_fasta
    if folder is None:
        return
    if shares[0].shard is not None:
        raise UsageError(
            "writes one directory, and shards would write one each",
            at="--split-fasta",
            remedy="leave it out, or read the input in one process",
        )
    for file in (config.input, *_tables(config)):
        if str(file) != "-" and file.resolve().is_relative_to(folder.resolve()):
            what = f"{file} lies in this directory, which is written whole"
            raise UsageError(what, at=folder, remedy="choose another directory")
    check_directory(folder, SUFFIX, force=config.force)


def _open_outputs(
    config: SpeciesPredictSettings,
    shares: "Sequence[OutputShard]",
    table: "SpeciesTable",
    provenance: dict[str, Any],
    stack: ExitStack,
) -> "list[Callable[[Classified], None]]":
    """What takes answers, one for each output; the outputs appear when the stack ends well."""
    from hyenacli.species.table import open_split
    from hyenacli.writers.tables import open_table

    def opened(path: Path, share: "OutputShard", columns: "Sequence[Column]") -> "TableWriter":
        # What a table says of itself is what would make it again: nothing of the other outputs.
        settings = to_dict(replace(config, output=path, per_window=None, split_fasta=None, force=False))
        about = {"hyena_version": __version__, **provenance, "settings": settings}
        return stack.enter_context(open_table(share.target, _table_type(config, path), columns, about))

    contigs = opened(config.output, shares[0], table.columns())
    writers: list[Callable[[Classified], None]] = [lambda answer: contigs.write(table.rows(answer))]
    if config.per_window is not None:
        windows = opened(config.per_window, shares[1], table.window_columns())
        writers.append(lambda answer: windows.write(table.window_rows(answer)) if answer.windows else None)
    if config.split_fasta is not None:
        copy = stack.enter_context(open_split(config.split_fasta, table.species, force=config.force))
        writers.append(lambda answer: copy(table.prediction(answer), answer.contig.text))
    return writers


class _Tally:
    """Counts of a run: a progress bar while windows are read, one line when the output is there.

    Args:
        bar: to show how far it is.
    """

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._task = bar.add_task("classifying", total=None, speed="")
        self._start = time.monotonic()
        self.predictions: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.bases = 0

    def read(self, bases: int) -> None:
        """Show that a window was read."""
        speed = self._bar.tasks[0].completed / (time.monotonic() - self._start)
        self._bar.update(self._task, advance=bases, speed=f"{speed:,.0f}")

    def add(self, answer: "Classified", prediction: str) -> None:
        """Count a contig."""
        self.statuses[answer.status] += 1
        self.bases += answer.n_bases
        if prediction:
            self.predictions[prediction] += 1

    def report(self, share: "OutputShard") -> None:
        """Say what was predicted and what could not be."""
        seconds = time.monotonic() - self._start
        done = self.statuses.pop("OK", 0)
        found = abbreviate((f"{count:,} {name}" for name, count in self.predictions.most_common()), limit=12)
        failed = "".join(f", {count:,} {status}" for status, count in self.statuses.most_common())
        contigs = console.counted(done, "contig") + (f" ({found})" if found else "")
        counts = f"{contigs}{failed}: {console.counted(self.bases, 'base')}"
        log.info("classified %s in %.1f s, %s", counts, seconds, share.describe())
        console.event(
            "classify-species",
            contigs=done,
            predictions=dict(self.predictions),
            failed=dict(self.statuses),
            bases=self.bases,
            seconds=round(seconds, 3),
        )
