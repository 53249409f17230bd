"""What a run directory says about how it came to be: config.yaml and run.json."""

import datetime as dt
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hyenacli import __version__, console, settings_file
from hyenacli.errors import UserError
from hyenacli.readers.labelled import split_label_prefix

# What may differ between a run and its resumption: it changes no number of the training but how dropout is
# drawn and how sums are rounded.
_MAY_CHANGE = {
    *("output", "resume", "force", "threads", "device", "eval_every", "save_every", "keep", "tensorboard"),
    # a file that has moved is known by its contents
    *("fasta", "intervals", "data", "valid", "test", "bedgraph", "species", "species_file"),
    *("workers", "nproc_per_node", "context_parallel", "micro_batch_size", "activation_checkpointing"),
}
# Paths, and those of them that may be names of something else.
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
# What a run of labels or species ends with.
METRICS = "metrics.json"


def write_config(run: Path, settings: Any) -> None:
    """Write config.yaml, which `--config` reads back; --resume and --force are not of the run."""
    import yaml

    _replace(run / "config.yaml", yaml.safe_dump(_portable(settings), sort_keys=False))


def _portable(settings: Any) -> dict[str, Any]:
    """Settings as they mean the same in any folder, without those that are not of the run."""
    values = settings_file.to_dict(settings)
    for key in ("resume", "force"):
        values.pop(key)
    return {key: _absolute(key, value) for key, value in values.items()}


def _absolute(key: str, value: Any) -> Any:
    """A path, or a `label=path`, in full where `key` has such."""
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
    whole = str(path.absolute() if str(path) != "-" and (key not in _NAMES or path.exists()) else source)
    return whole if label is None else f"{label}={whole}"


def check_resumable(run: Path, settings: Any, inputs: Sequence[dict[str, str | int]]) -> None:
    """Refuse to resume another run: other settings or other data.

    Args:
        run: its directory.
        settings: of the resumption.
        inputs: fingerprints of the input files as they are now.

    Raises:
        UserError: naming what differs.
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
            remedy="give everything as it was (config.yaml has it), or start another run from this one's "
            "model",
        )


def warn_unfinished(run: Path) -> None:
    """Say of a run directory of labels or species that its training has not ended, where it has not."""
    if (run / "config.yaml").is_file() and not (run / METRICS).is_file():
        console.log.warning("%s: training has not ended: this is its best model so far, not calibrated", run)


def changed_inputs(run: Path, inputs: Sequence[dict[str, str | int]]) -> list[str]:
    """What differs between the contents of the files that a run has read and those of `inputs`, in words."""
    before = read_record(run)["inputs"]
    differing = []
    if len(before) != len(inputs):
        differing.append(f"{len(before)} input files were read, now {len(inputs)}")
    return differing + [
        f"{new['path']} has other contents than {Path(str(old['path'])).name} had"
        for old, new in zip(before, inputs, strict=False)
        if old["sha256"] != new["sha256"]
    ]


def read_record(run: Path) -> dict[str, Any]:
    """run.json of a run directory."""
    record: dict[str, Any] = json.loads((run / "run.json").read_text())
    return record


def write_record(run: Path, *, inputs: Sequence[dict[str, str | int]], **facts: Any) -> None:
    """Write run.json: command line, versions, inputs and whatever facts the verb adds."""
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
    write_json(run / "run.json", read_record(run) | facts)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write JSON, in which a number that is not finite is null, in one operation."""
    _replace(path, json.dumps(console.finite(record), indent=2, default=str) + "\n")


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)
