"""`hyena dependency-map`: which bases the predictions of a model depend on."""

from contextlib import ExitStack
from typing import Any

import numpy as np

from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.evaluation.map_plot import draw_map
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.decay import Decay, write_decay
from hyenacli.inference.dependency import MEASURES, DependencyMap, MapOptions, dependency_maps
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.inputs import SequenceInput
from hyenacli.tracks.settings import DependencyMapSettings
from hyenacli.writers.arrays import ArrayWriter, check_arrays_type, open_arrays
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.output_shards import OutputShard, merge_if_last, refuse_shared_stdout, resolve_shard
from hyenacli.writers.provenance import COORDINATES, provenance_of
from hyenacli.writers.tables import table_type
from hyenacli.writers.tracks import TRACKS, open_track, track_input
from hyenadna import load_model
from hyenadna.formats.load import locate


def run(config: DependencyMapSettings) -> None:
    """Check the arguments, then the input, then the outputs; load the model, write maps and pictures.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    batch_size = parse_batch_size(config.batch_size)
    track_kind, outputs = _check(config)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    locate(config.model)
    options = MapOptions(config.measure, config.symmetrize, config.max_length)
    with ExitStack() as stack:
        inputs = SequenceInput.of(config, "map", **track_input(track_kind)).open(stack, outputs[0].shard)
        model = load_model(config.model).to(device)
        warn_of_labels(model.config, config.model)
        axes = "rows are substituted bases, columns those whose prediction changes"
        provenance = provenance_of(config, model, axes=axes, coordinates=COORDINATES) | inputs.shard
        arrays = stack.enter_context(open_arrays(outputs[0].target, provenance))
        track = None
        if config.influence is not None and track_kind is not None:
            track = stack.enter_context(open_track(outputs[1].target, track_kind, inputs.contigs, provenance))
        answers = dependency_maps(model, inputs.records, options, batch_size=batch_size, precision=precision)
        summary = RunSummary(
            "dependency-map", "mapping", "mapped", too_long="map a part of it, or raise --max-length"
        )
        index, decay = _Index(), Decay() if config.decay or config.decay_plot else None
        first = outputs[0].shard.part(inputs.shard["shard"]["records"]).start if outputs[0].shard else 0
        for answer in summary.watch(answers, inputs.total):
            index.add(answer)
            if answer.values_LL is not None:
                arrays.write(f"map_{first + index.count - 1}", answer.values_LL)
                if decay is not None:
                    decay.add(answer.values_LL)
                if track is not None:
                    track.write(answer.record.chrom, answer.record.start, answer.influence())
                _draw(config, answer, first + index.count)
        index.write(arrays)
    if decay is not None:
        write_decay(decay, model, config.decay, config.decay_plot)
    summary.report(outputs[0].describe())
    for output in outputs:
        merge_if_last(output)


def _check(config: DependencyMapSettings) -> tuple[str | None, list[OutputShard]]:
    """Check the options that need no input; return the type of the track, and what this process writes."""
    check_arrays_type(config.output)
    track_kind = None if config.influence is None else table_type(config.influence, None, tuple(TRACKS))
    if config.decay is not None:
        table_type(config.decay, None)
    require_suffix(config.decay_plot, ".svg", "the plot is an SVG")
    refuse_shared_stdout(config.influence, config.decay)
    check_naming(config.contig_style, config.contig_aliases, config.fasta, config.circular)
    outputs = [resolve_shard(config.shard, path) for path in (config.output, config.influence) if path]
    if outputs[0].shard is not None and (config.decay or config.decay_plot):
        what = "a shard has only a part of the maps"
        raise UsageError(what, at="--decay", remedy="leave it out, or map all in one process")
    inputs_read = config.input, config.fasta, config.contig_aliases
    for output in outputs:
        output.check(*inputs_read)
        output.clear()
    for path in (config.decay, config.decay_plot):
        if path is not None:
            ensure_writable(path, *inputs_read, outputs=(config.output, config.influence))
    return track_kind, outputs


class _Index:
    """Names, positions, statuses and bases of the records, which become arrays at the end."""

    def __init__(self) -> None:
        self.count = 0
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("id", "chrom", "start", "end", "strand", "status", "sequence")
        }

    def add(self, answer: DependencyMap) -> None:
        self.count += 1
        sequence = "" if answer.values_LL is None else answer.sequence
        for name, values in self._columns.items():
            values.append(sequence if name == "sequence" else getattr(answer.record, name))

    def write(self, arrays: ArrayWriter) -> None:
        for name, values in self._columns.items():
            kind = np.int64 if name in ("start", "end") else np.str_
            arrays.write(name, np.array(values, dtype=kind))


def _draw(config: DependencyMapSettings, answer: DependencyMap, number: int) -> None:
    if config.plot is None or answer.values_LL is None:
        return
    record = answer.record
    span = f"{record.chrom}_{record.start + 1}-{record.end}".replace("/", "_")
    config.plot.mkdir(parents=True, exist_ok=True)
    path = config.plot / f"{number}_{span}.{config.plot_type}"
    where = f"{record.chrom}:{record.start + 1:,}-{record.end:,}"
    title = where if record.id in (record.chrom, where.replace(",", "")) else f"{record.id}, {where}"
    measure = MEASURES[config.measure]
    draw_map(path, answer.values_LL, answer.sequence, start=record.start, title=title, measure=measure)
