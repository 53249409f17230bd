"""A run directory: one process at a time writes into it; config.yaml, run.json, and what --resume checks."""

import datetime as dt
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hyenacli import __version__, console, settings_file
from hyenacli.distributed import barrier, current_ranks
from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.readers.labelled import split_label_prefix
from hyenacli.state_files import file_sha256, read_sealed, remove, remove_leftovers, seal, sole_writer
from hyenacli.training.settings import TrainingOptions
from hyenacli.writers.atomic import atomic_path, unwritable_error
from hyenacli.writers.multiqc import CURVES, NUMBERS

Fingerprints = Sequence[dict[str, str | int]]
_LOCK, _LOG = ".lock", "log.jsonl"
# METRICS is written last by a run of labels or species.
CONFIG, RECORD, METRICS = "config.yaml", "run.json", "metrics.json"
# All that runs write. --force removes run.json last, so that what is left of a run is known as such.
_OWN = (
    *(CONFIG, METRICS, "checkpoints", "trials", "tensorboard", "metrics.csv", _LOG, "report.html"),
    *(CURVES, NUMBERS),
    *("splits.bed", "predictions.tsv", "predictions.parquet", RECORD),
)
_REMEDY = "start anew with --force, or from this run's model into another directory"
# Settings that may differ when a run is resumed: they change no number of the training except how dropout is
# drawn and how sums are rounded.
_MAY_CHANGE = {
    *("output", "resume", "force", "threads", "device", "eval_every", "save_every", "keep", "tensorboard"),
    "multiqc",
    # a file that has moved is identified by its contents
    *("fasta", "intervals", "data", "valid", "test", "bedgraph", "species", "species_file"),
    *("workers", "nproc_per_node", "context_parallel", "micro_batch_size", "activation_checkpointing"),
}
# Settings that are paths; _NAMES may instead be names of presets or hub models.
_PATHS = {
    "output",
    "fasta",
    "intervals",
    "data",
    "valid",
    "test",
    "bedgraph",
    "contig_aliases",
    "model",
    "init_from",
    "species",
    "species_file",
}
_NAMES = {"model", "init_from"}


@contextmanager
def reserve_run(settings: TrainingOptions) -> Iterator[None]:
    """Hold the run directory of a verb, from before anything is read until its report is written.

    The first rank creates the directory and holds its lock, which ends with the process. A directory that
    nothing was written to is removed again.

    Raises:
        UsageError: both --resume and --force.
        UserError: the path is a file or not writable, another process holds the directory, there is a run and
            neither --resume nor --force is given, or files of these names but no run.
    """
    path = settings.output
    if settings.resume and settings.force:
        raise UsageError("--resume continues a run and --force deletes it", remedy="give one of them")
    if path.exists() and not path.is_dir():
        raise UserError("is a file, a run needs a directory", at=path, remedy="choose another name")
    if not current_ranks().first:
        yield
        return
    remove_leftovers(path.resolve())
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / _LOCK).touch()
    except OSError as error:
        raise unwritable_error(error, path) from error
    try:
        with sole_writer(path / _LOCK, path):
            _check_contents(path, resume=settings.resume, force=settings.force)
            yield
    finally:
        with suppress(OSError):
            path.rmdir()


def _check_contents(path: Path, *, resume: bool, force: bool) -> None:
    """Check that a run may write into a directory; files that no run writes do not count."""
    # log.jsonl is appended to, and may be what --log-json writes
    present = [name for name in _OWN if name != _LOG and os.path.lexists(path / name)]
    # run.json alone: an earlier start ended before there was a run
    if not present or (resume and (CONFIG in present or present == [RECORD])):
        return
    if not {CONFIG, RECORD} & set(present):
        what = (
            f"holds {abbreviate(present)}, but no run of this tool: neither --resume nor --force touches it"
        )
        raise UserError(what, at=path, remedy="remove it yourself, or choose another directory")
    if resume:
        what = f"holds {abbreviate(present)}, but no {CONFIG} to resume with"
        raise UserError(what, at=path, remedy="restore it, or start anew with --force")
    if not force:
        what = f"the directory holds {abbreviate(present)} of an earlier run"
        raise UserError(what, at=path, remedy="add --resume or --force, or choose another")


def open_run(settings: TrainingOptions, inputs: Fingerprints, device: torch.device, **facts: Any) -> None:
    """Write run.json and config.yaml; of a resumption, check that it is the same run.

    Args:
        settings: of the verb; `force` removes what an earlier run wrote, and nothing else.
        inputs: fingerprints of the input files.
        device: of the model.
        facts: further entries of run.json.

    Raises:
        UserError: as `check_resumable`.
    """
    run = settings.output
    if current_ranks().first:
        if settings.force and any((run / name).is_file() for name in (CONFIG, RECORD)):
            for name in _OWN:
                remove_leftovers(run / name)
                remove(run / name)
        run.mkdir(parents=True, exist_ok=True)
        if settings.resume and (run / CONFIG).is_file():
            check_resumable(run, settings, inputs)
        else:
            config = _config_text(settings)
            write_record(
                run,
                inputs=inputs,
                config_sha256=hashlib.sha256(config.encode()).hexdigest(),
                seed=settings.seed,
                device=str(device),
                dtype=settings.dtype,
                world_size=current_ranks().world_size,
                **facts,
            )
            with atomic_path(run / CONFIG) as draft:  # last: its presence means that there is a run
                draft.write_bytes(config.encode())
    barrier()


def _config_text(settings: Any) -> str:
    """Return the text of config.yaml, which `--config` reads back, without --resume and --force."""
    import yaml

    text: str = yaml.safe_dump(_portable(settings), sort_keys=False)
    return text


def _portable(settings: Any) -> dict[str, Any]:
    """Return settings with absolute paths, without --resume and --force."""
    values = settings_file.to_dict(settings)
    for key in ("resume", "force"):
        values.pop(key)
    return {key: _absolute(key, value) for key, value in values.items()}


def _absolute(key: str, value: Any) -> Any:
    """Return a path, or the path in `label=path`, as an absolute one if `key` is of paths."""
    if isinstance(value, list):
        return [_absolute(key, item) for item in value]
    if value is None or key not in _PATHS:
        return value
    if key == "species":  # NAME=FASTA[,FASTA...]
        name, _, files = value.partition("=")
        paths = (os.path.expanduser(file.strip()) for file in files.split(",") if file.strip())  # noqa: PTH111
        return f"{name.strip()}={','.join(str(Path(path).absolute()) for path in paths)}"
    label, source = split_label_prefix(value)
    path = Path(str(source))
    absolute = str(path.absolute() if str(path) != "-" and (key not in _NAMES or path.exists()) else source)
    return absolute if label is None else f"{label}={absolute}"


def check_resumable(run: Path, settings: Any, inputs: Fingerprints) -> None:
    """Check that a resumption has the settings and the data of the run.

    Args:
        run: the run directory.
        settings: of the resumption.
        inputs: fingerprints of the input files as they are now.

    Raises:
        UserError: they differ, and the message names what does; or config.yaml is damaged or was edited.
    """
    if file_sha256(run / CONFIG) != read_json(run / RECORD).get("config_sha256"):
        raise UserError(
            f"is damaged, or was edited: its contents do not fit their hash in {RECORD}",
            at=run / CONFIG,
            remedy="restore it from a copy, or start anew with --force",
        )
    now = {key: value for key, value in _portable(settings).items() if value is not None}
    earlier = settings_file.read_yaml(run / CONFIG, list(settings_file.to_dict(settings)))
    differing = [
        f"{key} was {earlier.get(key, 'not given')}, is {now.get(key, 'not given')}"
        for key in sorted((set(earlier) | set(now)) - _MAY_CHANGE)
        if earlier.get(key) != now.get(key)
    ]
    differing += changed_inputs(run, inputs)
    if differing:
        raise UserError(
            f"cannot resume: {'; '.join(differing)}",
            at=run,
            remedy="give the settings of config.yaml, or start another run from this one's model",
        )


def warn_unfinished(run: Path) -> None:
    """Warn of a run directory of labels or species whose training has not ended."""
    if (run / CONFIG).is_file() and not (run / METRICS).is_file():
        console.log.warning("%s: training has not ended: this is its best model so far, not calibrated", run)


def changed_inputs(run: Path, inputs: Fingerprints) -> list[str]:
    """Describe how the contents of `inputs` differ from those of the files that a run has read.

    Raises:
        UserError: run.json is missing or damaged.
    """
    before = read_json(run / RECORD)["inputs"]
    differing = []
    if len(before) != len(inputs):
        differing.append(f"{len(before)} input files were read, now {len(inputs)}")
    return differing + [
        f"{new['path']} has other contents than {Path(str(old['path'])).name} had"
        for old, new in zip(before, inputs, strict=False)
        if old["sha256"] != new["sha256"]
    ]


def write_record(run: Path, *, inputs: Fingerprints, **facts: Any) -> None:
    """Write run.json: command line, versions, inputs and the facts of the verb."""
    record = {
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": {
            "hyena": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "safetensors", "pysam")},
        },
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "inputs": inputs,
        **facts,
    }
    write_json(run / RECORD, record)


def add_to_record(run: Path, **facts: Any) -> None:
    """Add facts to run.json."""
    write_json(run / RECORD, read_json(run / RECORD) | facts)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file that ends in its hash; a number that is not finite becomes null."""
    plain = json.loads(json.dumps(console.finite(record), default=str))
    with atomic_path(path) as draft:
        draft.write_text(seal(plain, readable=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, without its hash.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_sealed(path, _REMEDY)
