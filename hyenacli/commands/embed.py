"""`hyena embed`: one vector per region or sequence."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyenacli import __version__, console
from hyenacli.config import EmbedConfig
from hyenacli.console import log
from hyenacli.errors import UsageError
from hyenacli.settings_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import BufferedReader

    from hyenacli.score.embed import Embedded
    from hyenacli.score.shards import Shard, Share
    from hyenacli.score.stretches import Stretch
    from hyenacli.writers.tables import Column


# A file of vectors per base that is larger is announced.
_LARGE = 1 << 30


def run(config: EmbedConfig) -> None:
    """Check the arguments, then the input, then the output; load the model and write the table.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.readers.contigs import parse_style
    from hyenacli.score.batch_size import parse_batch_size
    from hyenacli.score.recipe import make_recipe
    from hyenacli.score.shards import choose_share, join_by_the_last
    from hyenacli.writers.atomic import ensure_writable
    from hyenacli.writers.merge import merge_shards
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
    parse_style(config.contig_style)
    share = choose_share(config.shard, config.output)
    ensure_writable(share.target, config.input, config.fasta, config.contig_aliases)

    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenadna.layouts.locate import locate

    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    locate(config.model)
    with ExitStack() as stack:
        records = _open_input(config, share, stack)

        from hyenacli.score.embed import embed
        from hyenacli.score.embed_table import embedding_columns, embedding_record, embedding_rows
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
        tally = _Tally()
        with open_table(share.target, kind, columns, provenance) as table:
            for answer in tally.watch(answers, records.total):
                table.write(rows(answer, columns))
    tally.report(share)
    if join_by_the_last(share, merge_shards):
        log.info("joined all shards, to %s", config.output)


def _output_type(config: EmbedConfig, *, per_base: bool) -> str:
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
    from hyenacli.score.embed_table import per_base_bytes

    size = per_base_bytes(bases or 0, columns, kind)
    if size > _LARGE:
        log.warning(
            "%s will take about %.1f GiB: a vector for each of %s bases", target, size / 2**30, f"{bases:,}"
        )


@dataclass(frozen=True, slots=True)
class _Input:
    """What is to be embedded.

    Attributes:
        stretches: the records.
        total: how many, where it is known.
        bases: of all regions together, where it is known.
        shard: what the output says where this is a part of an input, under "shard".
    """

    stretches: "Iterable[Stretch]"
    total: int | None = None
    bases: int | None = None
    shard: dict[str, Any] = field(default_factory=dict)


def _open_input(config: EmbedConfig, share: "Share", stack: ExitStack) -> _Input:
    """The records of the input, checked as far as they can be without a model."""
    from hyenacli.readers.streams import open_binary, sniff_format

    if config.input is None:
        if config.region is None:
            raise UsageError("nothing to embed", remedy="name an INPUT, or regions with -r")
        if config.fasta is None:
            raise UsageError("-r names regions of a genome", remedy="give the genome with -f/--fasta")
        return _regions(config, config.fasta, None, share.shard, stack)
    if config.region is not None:
        raise UsageError("-r stands instead of an INPUT", remedy="give one of them")
    if share.whole is not None and str(config.input) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")
    stream = stack.enter_context(open_binary(config.input))
    kind = sniff_format(stream, otherwise="bed" if config.fasta else None)
    if kind == "fasta":
        return _sequences(config, stream, share.shard)
    if kind == "vcf":
        raise UsageError("is a VCF", at=stream.name, remedy="embed takes BED or FASTA")
    if config.fasta is None:
        raise UsageError("is a BED", at=stream.name, remedy="give its genome with -f/--fasta")
    return _regions(config, config.fasta, stream, share.shard, stack)


def _sequences(config: EmbedConfig, stream: "BufferedReader", shard: "Shard | None") -> _Input:
    from hyenacli.readers.fasta import read_fasta
    from hyenacli.score.shards import survey_fasta
    from hyenacli.score.stretches import stretches_of_records

    if config.fasta is not None or config.flank:
        raise UsageError(
            "is a FASTA, whose sequences are embedded whole",
            at=stream.name,
            remedy="leave out -f and --flank, or give regions as BED",
        )
    records = read_fasta(stream)
    if shard is not None and config.input is not None:
        count, sha256 = survey_fasta(config.input)
        part = shard.part(count)
        own = islice(records, part.start, part.stop)
        return _Input(stretches_of_records(own), len(part), shard=shard.describe(count, sha256))
    # The first record shows whether this is FASTA at all, before a model is loaded.
    return _Input(stretches_of_records(chain([next(records)], records)))


def _regions(
    config: EmbedConfig, fasta: Path, bed: "BufferedReader | None", shard: "Shard | None", stack: ExitStack
) -> _Input:
    from hyenacli.genome.region import Region
    from hyenacli.readers.contigs import parse_style, read_aliases
    from hyenacli.readers.genome_file import Genome
    from hyenacli.readers.regions import load_regions
    from hyenacli.score.shards import fingerprint
    from hyenacli.score.stretches import OK, stretches_of_regions

    aliases = read_aliases(config.contig_aliases) if config.contig_aliases else {}
    genome = stack.enter_context(Genome(fasta))
    regions: list[tuple[Region, Region | None, str]]
    if bed is None:
        parsed = [Region.parse(text, genome.lengths) for text in config.region or ()]
        regions = [(region, region, OK) for region in parsed]
    else:
        loaded = load_regions(bed, genome, parse_style(config.contig_style), aliases)
        regions = [(one.record.region, one.region, one.status) for one in loaded]
    about = {}
    if shard is not None:
        sha256 = fingerprint((repr(named) for named, _, _ in regions), genome.lengths)
        about, part = shard.describe(len(regions), sha256), shard.part(len(regions))
        regions = regions[part.start : part.stop]
    bases = sum(len(region) for _, region, _ in regions if region is not None)
    return _Input(stretches_of_regions(regions, genome, config.flank), len(regions), bases, about)


def _provenance(config: EmbedConfig, sha256: str, layers: tuple[int, ...]) -> dict[str, Any]:
    """What a table must say about itself: how it was made, and how to make it again."""
    return {
        "hyena_version": __version__,
        "model_sha256": sha256,
        "layers": layers,
        "coordinates": "start and end are 0-based, half-open",
        "settings": to_dict(config),
    }


class _Tally:
    """Counts of a run: a progress bar while answers come, one line when the table is there."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.bases = 0
        self.start = time.monotonic()

    def watch(self, answers: "Iterator[Embedded]", total: int | None) -> "Iterator[Embedded]":
        """Pass answers on, and show how far it is; `total` where the number of records is known."""
        with console.progress("{task.completed} records", "{task.fields[speed]} bases/s") as bar:
            task = bar.add_task("embedding", total=total, speed="")
            for answer in answers:
                yield answer
                self.statuses[answer.stretch.status] += 1
                self.bases += len(answer.stretch) if answer.vectors is not None else 0
                bar.update(task, advance=1, speed=f"{self.bases / (time.monotonic() - self.start):,.0f}")

    def report(self, share: "Share") -> None:
        """Say what was done and what could not be."""
        seconds = time.monotonic() - self.start
        done = self.statuses.pop("OK", 0)
        failed = "".join(f", {count:,} {status}" for status, count in self.statuses.most_common())
        counts = f"{done:,} records{failed}: {self.bases:,} bases"
        log.info("embedded %s in %.1f s, %s", counts, seconds, share.describe())
        console.event(
            "embed", records=done, failed=dict(self.statuses), bases=self.bases, seconds=round(seconds, 3)
        )
