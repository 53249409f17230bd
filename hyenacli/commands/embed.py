"""`hyena embed`: one vector per region or sequence."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyenacli import __version__, console
from hyenacli.config import EmbedConfig
from hyenacli.console import log
from hyenacli.errors import UsageError
from hyenacli.settings_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader

    from hyenacli.readers.contigs import ContigStyle
    from hyenacli.score.embed import Embedded
    from hyenacli.score.stretches import Stretch


def run(config: EmbedConfig) -> None:
    """Check the arguments, then the input, then the output; load the model and write the table.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.score.batch_size import parse_batch_size
    from hyenacli.score.recipe import make_recipe
    from hyenacli.writers.atomic import ensure_writable
    from hyenacli.writers.tables import open_table, table_type

    recipe = make_recipe(
        pool=config.pool,
        layer=config.layer,
        rc=config.rc,
        stranded=config.stranded,
        window=config.window,
        stride=config.stride,
    )
    batch_size = parse_batch_size(config.batch_size)
    table_type(config.output, config.output_type)
    _contig_style(config)
    with ExitStack() as stack:
        records = _open_input(config, stack)
        ensure_writable(config.output)

        from hyenacli.devices import autocast, resolve_device, set_threads
        from hyenacli.score.embed import embed
        from hyenacli.score.embed_table import embedding_columns, embedding_rows
        from hyenadna import load_model, model_sha256

        device = resolve_device(config.device)
        precision = autocast(device, config.dtype)
        set_threads(config.threads)
        model = load_model(config.model).to(device)
        answers = embed(model, records.stretches, recipe, batch_size=batch_size, precision=precision)
        layers = recipe.layers(model.config)
        columns = embedding_columns(layers, recipe.width(model.config))
        provenance = _provenance(config, model_sha256(model), layers)
        tally = _Tally()
        with open_table(config.output, config.output_type, columns, provenance) as table:
            for answer in tally.watch(answers, records.total):
                table.write(embedding_rows(answer, columns))
        tally.report(config.output)


@dataclass(frozen=True, slots=True)
class _Input:
    """What is to be embedded, and how many records that is where it is known."""

    stretches: "Iterable[Stretch]"
    total: int | None


def _open_input(config: EmbedConfig, stack: ExitStack) -> _Input:
    """The records of the input, checked as far as they can be without a model."""
    from hyenacli.readers.streams import open_binary, sniff_format

    if config.input is None:
        if config.region is None:
            raise UsageError("nothing to embed", remedy="name an INPUT, or regions with -r")
        if config.fasta is None:
            raise UsageError("-r names regions of a genome", remedy="give the genome with -f/--fasta")
        return _regions(config, config.fasta, None, stack)
    if config.region is not None:
        raise UsageError("-r stands instead of an INPUT", remedy="give one of them")
    stream = stack.enter_context(open_binary(config.input))
    kind = sniff_format(stream, otherwise="bed" if config.fasta else None)
    if kind == "fasta":
        return _sequences(config, stream)
    if kind == "vcf":
        raise UsageError("is a VCF", at=stream.name, remedy="embed takes BED or FASTA")
    if config.fasta is None:
        raise UsageError("is a BED", at=stream.name, remedy="give its genome with -f/--fasta")
    return _regions(config, config.fasta, stream, stack)


def _sequences(config: EmbedConfig, stream: "BufferedReader") -> _Input:
    from hyenacli.readers.fasta import read_fasta
    from hyenacli.score.stretches import stretches_of_records

    if config.fasta is not None or config.flank:
        raise UsageError(
            "is a FASTA, whose sequences are embedded whole",
            at=stream.name,
            remedy="leave out -f and --flank, or give regions as BED",
        )
    records = read_fasta(stream)
    # The first record shows whether this is FASTA at all, before a model is loaded.
    return _Input(stretches_of_records(chain([next(records)], records)), None)


def _regions(config: EmbedConfig, fasta: Path, bed: "BufferedReader | None", stack: ExitStack) -> _Input:
    from hyenacli.genome.region import Region
    from hyenacli.readers.contigs import read_aliases
    from hyenacli.readers.genome_file import Genome
    from hyenacli.readers.regions import load_regions
    from hyenacli.score.stretches import OK, stretches_of_regions

    aliases = read_aliases(config.contig_aliases) if config.contig_aliases else {}
    genome = stack.enter_context(Genome(fasta))
    regions: list[tuple[Region, Region | None, str]]
    if bed is None:
        parsed = [Region.parse(text, genome.lengths) for text in config.region or ()]
        regions = [(region, region, OK) for region in parsed]
    else:
        loaded = load_regions(bed, genome, _contig_style(config), aliases)
        regions = [(one.record.region, one.region, one.status) for one in loaded]
    return _Input(stretches_of_regions(regions, genome, config.flank), len(regions))


def _contig_style(config: EmbedConfig) -> "ContigStyle":
    if config.contig_style not in ("auto", "exact"):
        raise UsageError(
            f"unknown style '{config.contig_style}'", at="--contig-style", remedy="use auto or exact"
        )
    return "auto" if config.contig_style == "auto" else "exact"


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

    def report(self, output: Path) -> None:
        """Say what was done and what could not be."""
        seconds = time.monotonic() - self.start
        done = self.statuses.pop("OK", 0)
        failed = "".join(f", {count:,} {status}" for status, count in self.statuses.most_common())
        where = "stdout" if str(output) == "-" else output
        counts = f"{done:,} records{failed}: {self.bases:,} bases"
        log.info("embedded %s in %.1f s, to %s", counts, seconds, where)
        console.event(
            "embed", records=done, failed=dict(self.statuses), bases=self.bases, seconds=round(seconds, 3)
        )
