"""`hyena attribute`: which bases a prediction, or a likelihood, rests on."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.console import counted, log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.evaluation.seqlets import Seqlet, find_seqlets
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.attribution import Attribution, AttributionOptions, attribute
from hyenacli.inference.attribution_targets import attribution_head, choose_score, is_likelihood
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.experts import load_experts
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.inference.prediction import prediction_options, readable_records
from hyenacli.readers.inputs import SequenceInput
from hyenacli.tracks.settings import AttributeSettings
from hyenacli.writers.arrays import check_arrays_type, open_arrays
from hyenacli.writers.atomic import atomic_path, ensure_writable, require_suffix
from hyenacli.writers.provenance import COORDINATES, provenance_of
from hyenacli.writers.tables import table_type
from hyenacli.writers.tracks import TRACKS, open_track, track_input
from hyenadna import HyenaDNA, load_model
from hyenadna.formats.load import locate

_FLANK = 512
# Below so many bases of shuffled sequences the rates of seqlets are coarse.
_FEW_BASES = 10_000
_MODISCO = {"ohe.npz": "one_hot", "attr.npz": "attributions"}


def run(config: AttributeSettings) -> None:
    """Check the arguments, then the input, then the outputs; load the model and write the attributions.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    batch_size = parse_batch_size(config.batch_size)
    track_kind = _check(config)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    locate(config.model)
    with ExitStack() as stack:
        more = {"flank": _FLANK if config.flank is None else config.flank, **track_input(track_kind)}
        inputs = SequenceInput.of(config, "attribute", **more).open(stack, None)
        model = load_model(config.model).to(device)
        reading = _reading(config, model)
        how: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
        score = choose_score(model, config.target, reading, config.model, **how)
        axes = "record, base (A, C, G, T), position on the + strand"
        provenance = provenance_of(config, model, axes=axes, coordinates=COORDINATES)
        track = None
        if config.track is not None and track_kind is not None:
            track = stack.enter_context(open_track(config.track, track_kind, inputs.contigs, provenance))
        options = AttributionOptions(
            config.method,
            config.max_length,
            config.references,
            config.null if config.seqlets else 0,
            config.seed,
        )
        answers = attribute(score, readable_records(inputs.records, reading), options, **how)
        advice = "raise --max-length; above the model's window only --method ism of a prediction goes"
        summary = RunSummary("attribute", "attributing", "attributed", too_long=advice)
        collected = []
        for answer in summary.watch(answers, inputs.total):
            collected.append(answer)
            if track is not None and answer.values_4L is not None:
                track.write(answer.record.chrom, answer.record.start, answer.observed())
        _write(config, collected, provenance)
    summary.report(f"to {config.output}")


def _reading(config: AttributeSettings, model: HyenaDNA) -> EmbeddingOptions:
    """Return the strands that are read, and how states are pooled.

    Raises:
        UserError: the model has a head whose predictions cannot be attributed.
        UsageError: a flank, which predictions do not read.
    """
    if is_likelihood(model, config.target):
        warn_of_labels(model.config, config.model)
        return EmbeddingOptions(rc="none" if config.rc == "none" else "mean", stranded=config.stranded)
    head = attribution_head(model, config.model)
    if config.flank is not None:
        what = "a prediction is of the region alone"
        raise UsageError(what, at="--flank", remedy="leave it out, or attribute --target likelihood")
    if (experts := load_experts(locate(config.model).config.parent)) is not None:
        log.info("attributions are of the network alone, without the %s beside it", experts.title)
    return prediction_options(
        head, rc=head.rc if config.rc == "auto" else config.rc == "mean", stranded=config.stranded
    )


def _check(config: AttributeSettings) -> str | None:
    """Check the options that need no input, and return the type of the track."""
    check_arrays_type(config.output)
    track_kind = None if config.track is None else table_type(config.track, None, tuple(TRACKS))
    check_naming(config.contig_style, config.contig_aliases, config.fasta)
    require_suffix(config.seqlets, ".bed", "seqlets are a BED")
    targets = [config.output, config.track, config.seqlets]
    if config.modisco is not None:
        config.modisco.mkdir(parents=True, exist_ok=True)
        targets += [config.modisco / name for name in _MODISCO]
    for target in targets:
        if target is not None:
            ensure_writable(target, config.input, config.fasta, config.contig_aliases)
    return track_kind


def _write(config: AttributeSettings, answers: list[Attribution], provenance: dict[str, Any]) -> None:
    """Write the arrays of all records, and those of TF-MoDISco, which has no use for records without any."""
    length = max((answer.n_bases for answer in answers), default=0)
    stacked = _stack(answers, length)
    columns: dict[str, NDArray[Any]] = {
        name: np.array([getattr(answer.record, name) for answer in answers], dtype=kind)
        for name, kind in (
            *(("id", np.str_), ("chrom", np.str_), ("start", np.int64), ("end", np.int64)),
            *(("strand", np.str_), ("status", np.str_)),
        )
    }
    columns["target"] = np.array([answer.target for answer in answers], dtype=np.str_)
    columns["score"] = np.array([answer.score for answer in answers], dtype=np.float64)
    with open_arrays(config.output, provenance) as arrays:
        for name, values in (stacked | columns).items():
            arrays.write(name, values)
    if config.modisco is not None:
        done = np.array([answer.n_bases > 0 for answer in answers], dtype=np.bool_)
        for file, name in _MODISCO.items():
            with open_arrays(config.modisco / file, provenance) as arrays:
                arrays.write("arr_0", stacked[name][done])
    if config.seqlets is not None:
        _write_seqlets(config.seqlets, [answer for answer in answers if answer.n_bases], config.fdr)


def _write_seqlets(path: Path, answers: list[Attribution], fdr: float) -> None:
    """Write a BED6 with three more columns: the sum of the attributions, the rate, and the bases."""
    null = [track for answer in answers for track in answer.null]
    bases = sum(len(track) for track in null)
    if bases < _FEW_BASES:
        log.warning("chance is judged by %s bases only; raise --null", f"{bases:,}")
    seqlets = find_seqlets([answer.observed() for answer in answers], null, fdr)
    with atomic_path(path) as draft, draft.open("w") as file:
        file.writelines(_bed_line(answers[seqlet.sequence], seqlet) for seqlet in seqlets)
    log.info("found %s at a false-discovery rate of %g, to %s", counted(len(seqlets), "seqlet"), fdr, path)


def _bed_line(answer: Attribution, seqlet: Seqlet) -> str:
    record = answer.record
    bases = record.bases[record.left + seqlet.start : record.left + seqlet.end].decode()
    span = f"{record.chrom}\t{record.start + seqlet.start}\t{record.start + seqlet.end}"
    score = round(1000 * (1 - seqlet.q))
    return f"{span}\t{record.id}\t{score}\t.\t{seqlet.score:.6g}\t{seqlet.q:.4g}\t{bases}\n"


def _stack(answers: list[Attribution], length: int) -> dict[str, NDArray[np.float32]]:
    """Return one-hot and attributions (N, 4, L), zeros beyond the end of a record."""
    arrays = {name: np.zeros((len(answers), 4, length), np.float32) for name in _MODISCO.values()}
    for i, answer in enumerate(answers):
        if answer.values_4L is not None:
            arrays["one_hot"][i, :, : answer.n_bases] = answer.one_hot()
            arrays["attributions"][i, :, : answer.n_bases] = answer.values_4L
    return arrays
