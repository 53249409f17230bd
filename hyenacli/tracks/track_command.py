"""`hyena track`: a number for every base of regions or of a genome."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli import __version__, console
from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.genome.contigs import check_naming
from hyenacli.genome.region import Region
from hyenacli.inference.base_tracks import LETTERS, PieceTrack, Tiles, base_tracks
from hyenacli.inference.batching import parse_batch_size
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.regions import Reference, ResolvedRegion, load_regions, open_reference, parse_regions
from hyenacli.readers.shards import fingerprint
from hyenacli.settings_file import to_dict
from hyenacli.tracks.hub import write_hub
from hyenacli.tracks.settings import TrackSettings
from hyenacli.writers.arrays import open_arrays
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.tables import table_type
from hyenacli.writers.tracks import TRACKS, open_track
from hyenadna import HyenaDNA, load_model, model_sha256
from hyenadna.formats.load import locate

_MAX_DEFAULT_WINDOW = 8192
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
        tiles = _tiles(config, model)
        total = sum(tiles.count(region) for region in regions)
        pieces: Iterator[Region] = (piece for region in regions for piece in tiles.pieces(region))
        metadata: dict[str, Any] = {}
        if (shard := outputs[0].shard) is not None:
            digest = fingerprint((repr(region) for region in regions), reference.genome.lengths)
            metadata, part = shard.describe(total, digest), shard.part(total)
            pieces, total = islice(pieces, part.start, part.stop), len(part)
        provenance = _provenance(config, tiles, model_sha256(model)) | metadata
        write = _open(config, outputs, kind, regions, reference.genome.lengths, provenance, stack)
        tracks = base_tracks(
            model,
            reference.genome,
            pieces,
            tiles,
            config.strand,
            batch_size=batch_size,
            precision=precision,
        )
        _write_all(tracks, total, write, outputs[0])
    for output in outputs:
        merge_if_last(output)
    if config.hub is not None and config.assembly is not None:
        write_hub(config.hub, config.assembly, paths, config.value, config.strand)


def _check(config: TrackSettings) -> str:
    """Check the options that need no file, and return the type of the output."""
    kind = table_type(config.output, None, (*TRACKS, "npz"))
    if (config.input is None) == (not (config.region or config.all_contigs)) or (
        config.region and config.all_contigs
    ):
        raise UsageError("no regions, or several kinds", remedy="give a BED as INPUT, or -r, or --all")
    if kind == "npz" and (config.shard is not None or config.hub is not None):
        raise UsageError("an npz has no shards and no hub", at=config.output, remedy="write .bw")
    if config.hub is not None and config.assembly is None:
        raise UsageError("a hub is of a genome", at="--hub", remedy="name it, as --assembly hg38")
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


def _open(
    config: TrackSettings,
    outputs: list[OutputShard],
    kind: str,
    regions: list[Region],
    lengths: dict[str, int],
    provenance: dict[str, Any],
    stack: ExitStack,
) -> Write:
    """Open the outputs, and return a function that writes a piece to them."""
    if kind == "npz":
        arrays = stack.enter_context(open_arrays(config.output, provenance))
        return _RegionArrays(arrays, regions, config.value).write
    contigs = {region.contig: lengths[region.contig] for region in regions}
    writers = [
        stack.enter_context(open_track(output.target, kind, contigs, provenance)) for output in outputs
    ]

    def write(track: PieceTrack) -> None:
        for writer, values_L in zip(writers, track.values(config.value), strict=True):
            writer.write(track.piece.contig, track.piece.start, values_L)

    return write


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


def _write_all(tracks: Iterator[PieceTrack], total: int, write: Write, output: OutputShard) -> None:
    """Write the pieces, show the progress, and log how many bases have a number."""
    start, bases, without = time.monotonic(), 0, 0
    with console.Progress("tracking", total, "tiles") as progress:
        for number, track in enumerate(tracks, 1):
            write(track)
            bases += len(track.piece)
            without += int(np.isnan(track.log_p_LV[:, 0]).sum())
            progress.update(number, f"{bases / max(1e-9, time.monotonic() - start):,.0f} bases/s")
    seconds = time.monotonic() - start
    details = f", {without:,} of them without a number" if without else ""
    log.info(
        "tracked %s%s in %.1f s, %s", console.counted(bases, "base"), details, seconds, output.describe()
    )
    console.event("track", bases=bases, without_number=without, tiles=total, seconds=round(seconds, 3))


def _provenance(config: TrackSettings, tiles: Tiles, sha256: str) -> dict[str, Any]:
    """Return what shards and arrays say about how they were made."""
    return {
        "hyena_version": __version__,
        "model_sha256": sha256,
        "tile_bases": tiles.step,
        "tile_context": tiles.context,
        "settings": to_dict(config),
    }
