"""`hyena embed`: one vector per region or sequence."""

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hyenacli import __version__, console
from hyenacli.console import log
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError
from hyenacli.settings_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import BufferedReader

    from hyenacli.finetune.predict_settings import PredictSettings
    from hyenacli.inference.embedding import Embedded
    from hyenacli.inference.prediction import Predicted
    from hyenacli.readers.records import Input
    from hyenacli.readers.region_records import Reference
    from hyenacli.writers.columns import Column
    from hyenacli.writers.output_shards import OutputShard, Shard

Answer = TypeVar("Answer", "Embedded", "Predicted")

# A file of vectors per base that is larger is announced.
_LARGE = 1 << 30


def run(config: EmbedSettings) -> None:
    """Check the arguments, then the input, then the output; load the model and write the table.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.genome.contigs import check_naming
    from hyenacli.inference.batch_size import parse_batch_size
    from hyenacli.inference.embedding_options import make_recipe
    from hyenacli.writers.merge import merge_shards
    from hyenacli.writers.output_shards import merge_if_last, resolve_shard
    from hyenacli.writers.tables import open_table

    recipe = make_recipe(
        pool=config.pool,
        layer=config.layer,
        rc=config.rc,
        stranded=config.stranded,
        window=config.window,
        stride=config.stride,
    )
    batch_size = parse_batch_size(config.batch_size)
    kind = _output_type(config, per_base=recipe.pooling.per_base)
    check_naming(config.contig_style, config.contig_aliases, config.fasta)
    share = resolve_shard(config.shard, config.output)
    share.check(config.input, config.fasta, config.contig_aliases)

    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenadna.formats.locate import locate

    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    locate(config.model)
    share.clear()
    with ExitStack() as stack:
        records = _open_input(config, share, stack)

        from hyenacli.embed.table import embedding_columns, embedding_record, embedding_rows
        from hyenacli.inference.embedding import embed
        from hyenadna import load_model, model_sha256

        set_threads(config.threads)
        model = load_model(config.model).to(device)
        answers = embed(model, records.stretches, recipe, batch_size=batch_size, precision=precision)
        layers = recipe.layers(model.config)
        columns = embedding_columns(layers, recipe.width(model.config))
        if recipe.pooling.per_base:
            _warn_of_size(share.target, records.bases, columns, kind)
        provenance = _provenance(config, model_sha256(model), layers) | records.shard
        rows = embedding_record if kind == "h5" else embedding_rows
        tally = Tally("embed", "embedding", "embedded")
        with open_table(share.target, kind, columns, provenance) as table:
            for answer in tally.watch(answers, records.total):
                table.write(rows(answer, columns))
    tally.report(share)
    if merge_if_last(share, merge_shards):
        log.info("joined all shards, to %s", config.output)


def _output_type(config: EmbedSettings, *, per_base: bool) -> str:
    from hyenacli.writers.tables import table_type

    kind = table_type(config.output, config.output_type)
    if kind == "h5" and not per_base:
        raise UsageError(
            ".h5 holds a vector per base",
            at=config.output,
            remedy="add --pool none, or write .parquet or .h5ad",
        )
    return kind


def _warn_of_size(target: Path, bases: int | None, columns: "Sequence[Column]", kind: str) -> None:
    from hyenacli.embed.table import per_base_bytes

    size = per_base_bytes(bases or 0, columns, kind)
    if size > _LARGE:
        log.warning(
            "%s will take about %.1f GiB: a vector for each of %s bases", target, size / 2**30, f"{bases:,}"
        )


def _open_input(config: EmbedSettings, share: "OutputShard", stack: ExitStack) -> "Input":
    """The records of the input, checked as far as they can be without a model."""
    from hyenacli.readers.records import open_regions
    from hyenacli.readers.streams import open_binary, sniff_format

    if config.input is None:
        texts, fasta = regions_named(config, "embed")
        reference = open_reference(config, fasta, stack)
        return open_regions(texts, reference, flank=config.flank, shard=share.shard)
    check_input(config.input, config.region, share)
    stream = stack.enter_context(open_binary(config.input))
    kind = sniff_format(stream, otherwise="bed" if config.fasta else None)
    if kind == "fasta":
        return _sequences(config, stream, share.shard)
    if kind == "vcf":
        raise UsageError("is a VCF", at=stream.name, remedy="embed takes BED or FASTA")
    if config.fasta is None:
        raise UsageError("is a BED", at=stream.name, remedy="give its genome with -f/--fasta")
    reference = open_reference(config, config.fasta, stack)
    return open_regions(stream, reference, flank=config.flank, shard=share.shard)


def _sequences(config: EmbedSettings, stream: "BufferedReader", shard: "Shard | None") -> "Input":
    from hyenacli.readers.records import open_fasta

    if config.fasta is not None or config.flank:
        raise UsageError(
            "is a FASTA, whose sequences are embedded whole",
            at=stream.name,
            remedy="leave out -f and --flank, or give regions as BED",
        )
    return open_fasta(stream, config.input, shard)


def regions_named(config: "EmbedSettings | PredictSettings", verb: str) -> "tuple[Sequence[str], Path]":
    """The regions of the command line, and their genome; UsageError where one of them is not there."""
    if config.region is None:
        raise UsageError(f"nothing to {verb}", remedy="name an INPUT, or regions with -r")
    if config.fasta is None:
        raise UsageError("-r names regions of a genome", remedy="give the genome with -f/--fasta")
    return config.region, config.fasta


def check_input(source: Path, region: "Sequence[str] | None", share: "OutputShard") -> None:
    """Raise UsageError where an input has regions beside it, or is stdin that processes would share."""
    if region is not None:
        raise UsageError("-r stands instead of an INPUT", remedy="give one of them")
    if share.whole is not None and str(source) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")


def open_reference(config: "EmbedSettings | PredictSettings", fasta: Path, stack: ExitStack) -> "Reference":
    """The genome of regions, open until the stack ends."""
    from hyenacli.genome.contigs import parse_style, read_aliases
    from hyenacli.readers.genome_file import Genome
    from hyenacli.readers.region_records import Reference

    aliases = read_aliases(config.contig_aliases) if config.contig_aliases else {}
    return Reference(stack.enter_context(Genome(fasta)), parse_style(config.contig_style), aliases)


def _provenance(config: EmbedSettings, sha256: str, layers: tuple[int, ...]) -> dict[str, Any]:
    """What a table must say about itself: how it was made, and how to make it again."""
    return {
        "hyena_version": __version__,
        "model_sha256": sha256,
        "layers": layers,
        "coordinates": "start and end are 0-based, half-open",
        "settings": to_dict(config),
    }


class Tally:
    """Counts of a run: a progress bar while answers come, one line when the output is there.

    Args:
        verb: of the command, as embed.
        doing: what the bar says, as embedding.
        done: what the line says, as embedded.
    """

    def __init__(self, verb: str, doing: str, done: str) -> None:
        self.verb, self.doing, self.done = verb, doing, done
        self.statuses: Counter[str] = Counter()
        self.bases = 0
        self.start = time.monotonic()

    def watch(self, answers: "Iterable[Answer]", total: int | None) -> "Iterator[Answer]":
        """Pass answers on, and show how far it is; `total` where the number of records is known."""
        with console.progress("{task.completed} records", "{task.fields[speed]} bases/s") as bar:
            task = bar.add_task(self.doing, total=total, speed="")
            for answer in answers:
                yield answer
                self.statuses[answer.stretch.status] += 1
                self.bases += len(answer.stretch) if answer.n_bases else 0
                bar.update(task, advance=1, speed=f"{self.bases / (time.monotonic() - self.start):,.0f}")

    def report(self, share: "OutputShard") -> None:
        """Say what was done and what could not be."""
        seconds = time.monotonic() - self.start
        done = self.statuses.pop("OK", 0)
        failed = "".join(f", {count:,} {status}" for status, count in self.statuses.most_common())
        counts = f"{console.counted(done, 'record')}{failed}: {console.counted(self.bases, 'base')}"
        log.info("%s %s in %.1f s, %s", self.done, counts, seconds, share.describe())
        console.event(
            self.verb, records=done, failed=dict(self.statuses), bases=self.bases, seconds=round(seconds, 3)
        )
