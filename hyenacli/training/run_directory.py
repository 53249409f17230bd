"""A run directory: who may write into it, config.yaml, and run.json."""

import datetime as dt
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hyenacli import __version__, console, settings_file
from hyenacli.distributed import barrier, current_ranks
from hyenacli.errors import UsageError, UserError
from hyenacli.readers.labelled import split_label_prefix
from hyenacli.training.settings import TrainingOptions
from hyenacli.writers.atomic import unwritable_error

Fingerprints = Sequence[dict[str, str | int]]
_RUN_FILES = ("run.json", "config.yaml")
# Settings that may differ when a run is resumed: they change no number of the training except how dropout is
# drawn and how sums are rounded.
_MAY_CHANGE = {
    *("output", "resume", "force", "threads", "device", "eval_every", "save_every", "keep", "tensorboard"),
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
# Written last by a run of labels or species.
METRICS = "metrics.json"


def open_run(settings: TrainingOptions, inputs: Fingerprints, device: torch.device, **facts: Any) -> None:
    """Create the directory with run.json and config.yaml; of a resumption, check that it is the same run.

    Args:
        settings: of the verb.
        inputs: fingerprints of the input files.
        device: of the model.
        facts: further entries of run.json.

    Raises:
        UserError: as `prepare_run_directory` and `check_resumable`.
    """
    if current_ranks().first:
        prepare_run_directory(settings.output, resume=settings.resume, force=settings.force)
        if settings.resume:
            check_resumable(settings.output, settings, inputs)
        else:
            write_record(
                settings.output,
                inputs=inputs,
                seed=settings.seed,
                device=str(device),
                dtype=settings.dtype,
                world_size=current_ranks().world_size,
                **facts,
            )
            write_config(settings.output, settings)  # last: its presence means that there is a run
    barrier()


def check_run_directory(path: Path, *, resume: bool, force: bool) -> None:
    """Check that a run may write into a directory, before any work and without touching it.

    Args:
        path: the run directory.
        resume: continue in a directory that holds a run.
        force: replace what the directory holds, provided that a run wrote it.

    Raises:
        UsageError: both resume and force.
        UserError: the path is a file, the directory is not empty and neither resume nor force is set, or
            force is set and no run wrote it.
    """
    if resume and force:
        raise UsageError("--resume continues a run and --force deletes it", remedy="give one of them")
    if path.exists() and not path.is_dir():
        raise UserError("is a file, a run needs a directory", at=path, remedy="choose another name")
    run_files = [(path / name).is_file() for name in _RUN_FILES]
    if resume and not all(run_files):
        raise UserError("holds no run to resume", at=path, remedy="start one without --resume")
    if not resume and path.exists() and any(path.iterdir()):
        if not force:
            remedy = "add --resume or --force, or choose another"
            raise UserError("the directory is not empty", at=path, remedy=remedy)
        if not any(run_files):
            remedy = "remove it yourself"
            raise UserError("holds no run of this tool, so --force leaves it alone", at=path, remedy=remedy)


def prepare_run_directory(path: Path, *, resume: bool, force: bool) -> None:
    """Create a run directory with its parents; `force` removes what it holds.

    Raises:
        UsageError, UserError: as `check_run_directory`, or the directory cannot be made.
    """
    check_run_directory(path, resume=resume, force=force)
    if force and path.exists() and any(path.iterdir()):
        # renamed first: an interrupted deletion must not leave half a run under the run's name
        removed = path.resolve().with_name(f".{path.resolve().name}.{os.getpid()}.removed")
        path.resolve().rename(removed)
        shutil.rmtree(removed)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_error(error, path) from error


def write_config(run: Path, settings: Any) -> None:
    """Write config.yaml, which `--config` reads back, without --resume and --force."""
    import yaml

    _replace(run / "config.yaml", yaml.safe_dump(_portable(settings), sort_keys=False))


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
        UserError: they differ; the message names what does.
    """
    now = {key: value for key, value in _portable(settings).items() if value is not None}
    earlier = settings_file.read_yaml(run / "config.yaml", list(settings_file.to_dict(settings)))
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
    if (run / "config.yaml").is_file() and not (run / METRICS).is_file():
        console.log.warning("%s: training has not ended: this is its best model so far, not calibrated", run)


def changed_inputs(run: Path, inputs: Fingerprints) -> list[str]:
    """Describe how the contents of `inputs` differ from those of the files that a run has read."""
    before = json.loads((run / "run.json").read_text())["inputs"]
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
    write_json(run / "run.json", record)


def add_to_record(run: Path, **facts: Any) -> None:
    """Add facts to run.json."""
    path = run / "run.json"
    write_json(path, json.loads(path.read_text()) | facts)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file in one operation; a number that is not finite becomes null."""
    _replace(path, json.dumps(console.finite(record), indent=2, default=str) + "\n")


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)
