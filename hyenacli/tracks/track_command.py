"""`hyena track`: a number for every base of regions or of a genome."""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli import console
from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.genome.contigs import check_naming
from hyenacli.genome.region import Region
from hyenacli.inference.base_tracks import LETTERS, PieceTrack, Tiles, base_tracks
from hyenacli.inference.batching import make_budget, parse_batch_size
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.genome import Genome
from hyenacli.readers.genome_cache import signature
from hyenacli.readers.regions import Reference, ResolvedRegion, load_regions, open_reference, parse_regions
from hyenacli.readers.shards import Shard, fingerprint
from hyenacli.tracks.hub import write_hub
from hyenacli.tracks.settings import TrackSettings
from hyenacli.writers.arrays import open_arrays
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.parts import open_parts
from hyenacli.writers.provenance import provenance_of
from hyenacli.writers.tables import table_type
from hyenacli.writers.tracks import TRACKS, open_track
from hyenadna import HyenaDNA, load_model
from hyenadna.formats.load import locate

_MAX_DEFAULT_WINDOW = 8192
# Tiles of a part that an interrupted run keeps.
PART_TILES = 512
Write = Callable[[PieceTrack], None]


def run(config: TrackSettings) -> None:
    """Check the arguments, then the regions, then the outputs; load the model and write the tracks.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    batch_size = parse_batch_size(config.batch_size)
    kind = _check(config)
    paths = _paths(config.output, kind, config.value)
    outputs = [resolve_shard(config.shard, path) for path in paths]
    for output in outputs:
        output.check(config.input, config.fasta, config.contig_aliases)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    locate(config.model)
    for output in outputs:
        output.clear()
    with ExitStack() as stack:
        naming = config.contig_style, config.contig_aliases
        reference = stack.enter_context(open_reference(config.fasta, *naming))
        regions = _regions(config, reference)
        model = load_model(config.model).to(device)
        warn_of_labels(model.config, config.model)
        job = _Job(config, reference.genome, regions, model, batch_size, precision)
        job.run(kind, paths, outputs)
    log.info("%s, %s", job.summary(), outputs[0].describe())
    joined = [merge_if_last(output) for output in outputs]
    # of several processes, the one that joins the last file: the others may end before there is any
    ends = outputs[-1].whole is None or joined[-1]
    if ends and config.hub is not None and config.assembly is not None:
        write_hub(config.hub, config.assembly, paths, config.value, config.strand)


def _check(config: TrackSettings) -> str:
    """Check the options that need no file, and return the type of the output."""
    kind = table_type(config.output, None, (*TRACKS, "npz"))
    if (config.input is None) == (not (config.region or config.all_contigs)) or (
        config.region and config.all_contigs
    ):
        raise UsageError("no regions, or several kinds", remedy="give a BED as INPUT, or -r, or --all")
    if config.resume and (kind == "npz" or config.shard is not None or str(config.output) == "-"):
        remedy = "leave it out; take more shards to lose less, or write a .bw or bedGraph without --shard"
        raise UsageError("a shard, an npz and stdout are written anew", at="--resume", remedy=remedy)
    if kind == "npz" and (config.shard is not None or config.hub is not None):
        raise UsageError("an npz has no shards and no hub", at=config.output, remedy="write .bw")
    if config.value == "logo" and str(config.output) == "-":
        raise UsageError(
            "a logo is four tracks", at="-o -", remedy="name a file: OUT.A.bw and so on are made"
        )
    if config.hub is not None and config.assembly is None:
        raise UsageError("a hub is of a genome", at="--hub", remedy="name it, as --assembly hg38")
    if config.assembly is not None and config.hub is None:
        raise UsageError("is the genome of a hub", at="--assembly", remedy="add --hub FOLDER")
    if config.hub is not None and config.shard is not None:
        remedy = "leave it out; a run in one process, or under torchrun, writes it"
        raise UsageError("a hub shows whole tracks, not shards", at="--hub", remedy=remedy)
    if config.hub is not None and kind != "bw":
        raise UsageError("a hub shows bigWigs", at="--hub", remedy="write .bw")
    check_naming(config.contig_style, config.contig_aliases, config.fasta)
    return kind


def _paths(output: Path, kind: str, value: str) -> list[Path]:
    """Return the files: one, or one of each letter of a logo."""
    if value != "logo" or kind == "npz":
        return [output]
    stem = output.name[: -len(kind) - 1]
    return [output.with_name(f"{stem}.{letter}.{kind}") for letter in LETTERS]


def _regions(config: TrackSettings, reference: Reference) -> list[Region]:
    """Return the regions on the genome in the order of a bigWig, each base in one of them."""
    if config.all_contigs:
        lengths = reference.genome.lengths
        return [Region(name, 0, lengths[name]) for name in sorted(lengths) if lengths[name]]
    resolved: list[ResolvedRegion]
    if config.input is not None:
        resolved = load_regions(config.input, reference)
    else:
        resolved = parse_regions(config.region or [], reference)
    failed = [record for record in resolved if record.region is None]
    for record in failed[:5]:
        log.warning("%s: %s, left out", record.record.region, record.problem)
    if len(failed) > 5:
        log.warning("%d more regions are left out", len(failed) - 5)
    merged: list[Region] = []
    regions = [record.region for record in resolved if record.region is not None]
    for region in sorted(regions, key=lambda region: (region.contig, region.start)):
        last = merged[-1] if merged else None
        if last is not None and last.contig == region.contig and region.start < last.end:
            merged[-1] = Region(last.contig, last.start, max(last.end, region.end))
        else:
            merged.append(Region(region.contig, region.start, region.end))
    return merged


def _tiles(config: TrackSettings, model: HyenaDNA) -> Tiles:
    """Return the grid; a window of the model holds a tile and the context before it.

    Raises:
        UsageError: the model takes no such window, or the context fills it.
    """
    limit = min(model.config.context, model.longest_input)
    window = config.window or min(limit, _MAX_DEFAULT_WINDOW)
    if window > limit:
        what = f"the model takes at most {limit:,} bases, not {window:,}"
        raise UsageError(what, at="--window", remedy="choose a smaller window")
    context = window // 8 if config.context is None else config.context
    if context >= window:
        what = f"a context of {context:,} leaves no base of a window of {window:,}"
        raise UsageError(what, at="--context", remedy="choose a smaller one")
    return Tiles(window - context, context)


class _RegionArrays:
    """An array of each region, written when its last piece is there."""

    def __init__(self, arrays: Any, regions: list[Region], value: str) -> None:
        self._arrays, self._value = arrays, value
        self._rest = iter(list(enumerate(regions)))
        self._current, self._parts = next(self._rest, None), list[Any]()
        arrays.write("chrom", np.array([region.contig for region in regions], dtype=np.str_))
        arrays.write("start", np.array([region.start for region in regions], dtype=np.int64))
        arrays.write("end", np.array([region.end for region in regions], dtype=np.int64))

    def write(self, track: PieceTrack) -> None:
        assert self._current is not None  # noqa: S101  (pieces are of the regions)
        number, region = self._current
        self._parts.append(np.stack(track.values(self._value), axis=1))
        if track.piece.end == region.end:
            values = np.concatenate(self._parts)
            self._arrays.write(f"track_{number}", values if values.shape[1] > 1 else values[:, 0])
            self._current, self._parts = next(self._rest, None), []


class _Job:
    """The tiles of regions, computed and written.

    Args:
        config: what is computed, and where it goes.
        genome: the bases.
        regions: in the order of a bigWig.
        model: on the device to use.
        batch_size: windows per forward pass; None derives it from the free memory.
        precision: entered around every forward pass.
    """

    def __init__(
        self,
        config: TrackSettings,
        genome: Genome,
        regions: list[Region],
        model: HyenaDNA,
        batch_size: int | None,
        precision: AbstractContextManager[Any],
    ) -> None:
        self._config, self._genome, self._regions, self._model = config, genome, regions, model
        budget = make_budget(batch_size, model.config.d_model, 0, next(model.parameters()).device)
        self._how: dict[str, Any] = {"budget": budget, "precision": precision}
        self._tiles = _tiles(config, model)
        self._firsts = [0, *accumulate(map(self._tiles.count, regions))]
        self._total = self._firsts.pop()
        self._digest = fingerprint(map(repr, regions), genome.lengths)
        self._contigs = {region.contig: genome.lengths[region.contig] for region in regions}
        tiles = {"tile_bases": self._tiles.step, "tile_context": self._tiles.context}
        self._provenance = provenance_of(config, model, **tiles)
        self._start, self._done, self._bases, self._without = time.monotonic(), 0, 0, 0
        self._kept = 0  # tiles of an interrupted run

    def run(self, kind: str, paths: list[Path], outputs: list[OutputShard]) -> None:
        """Write the tracks: a shard of them, all at once, or in parts that survive an interruption."""
        shard, config = outputs[0].shard, self._config
        targets = [output.target for output in outputs]
        count = -(-self._total // PART_TILES)
        with console.Progress("tracking", self._total, "tiles") as self._progress:
            if kind == "npz":
                with open_arrays(config.output, self._provenance) as arrays:
                    self._write(_RegionArrays(arrays, self._regions, config.value).write, range(self._total))
            elif shard is not None:
                self._write_shard(kind, targets, shard)
            elif str(config.output) == "-" or (count < 2 and not config.resume):
                self._write_tracks(kind, targets, range(self._total), {})
            else:
                # a genome that was corrected in place gives other numbers
                genome = list(signature(config.fasta)[:2])
                provenance = self._provenance | {"input_sha256": self._digest, "genome": genome}
                with open_parts(paths, max(1, count), provenance, resume=config.resume) as parts:
                    for part in parts.shards():
                        if parts.complete(part):
                            self._kept += len(part.part(self._total))
                        else:
                            self._write_shard(kind, parts.files(part), part)
        facts = {"bases": self._bases, "without_number": self._without, "tiles": self._done}
        console.event("track", **facts, seconds=round(time.monotonic() - self._start, 3))

    def summary(self) -> str:
        """Describe how many bases have a number."""
        details = f", {self._without:,} of them without a number" if self._without else ""
        if self._kept:
            details += f", beside {console.counted(self._kept, 'tile')} of the interrupted run"
        seconds = time.monotonic() - self._start
        return f"tracked {console.counted(self._bases, 'base')}{details} in {seconds:.1f} s"

    def _write_shard(self, kind: str, targets: list[Path], shard: Shard) -> None:
        self._write_tracks(kind, targets, shard.part(self._total), shard.describe(self._total, self._digest))

    def _write_tracks(self, kind: str, targets: list[Path], part: range, metadata: dict[str, Any]) -> None:
        with ExitStack() as stack:
            provenance = self._provenance | metadata
            tracks = [open_track(target, kind, self._contigs, provenance) for target in targets]
            writers = [stack.enter_context(track) for track in tracks]

            def write(track: PieceTrack) -> None:
                for writer, values_L in zip(writers, track.values(self._config.value), strict=True):
                    writer.write(track.piece.contig, track.piece.start, values_L)

            self._write(write, part)

    def _pieces(self, part: range) -> Iterator[Region]:
        """Yield some of the tiles of all regions."""
        begin, end = bisect_right(self._firsts, part.start), bisect_left(self._firsts, part.stop)
        for number in range(max(0, begin - 1), end):
            first = self._firsts[number]
            numbers = slice(max(0, part.start - first), part.stop - first)
            yield from self._tiles.pieces(self._regions[number], numbers)

    def _write(self, write: Write, part: range) -> None:
        """Compute and write some of the tiles, and show the progress."""
        pieces, strand = self._pieces(part), self._config.strand
        for track in base_tracks(self._model, self._genome, pieces, self._tiles, strand, **self._how):
            write(track)
            self._done += 1
            self._bases += len(track.piece)
            self._without += int(np.isnan(track.log_p_LV[:, 0]).sum())
            speed = self._bases / max(1e-9, time.monotonic() - self._start)
            self._progress.update(self._kept + self._done, f"{speed:,.0f} bases/s")
