"""What a run directory says about how it came to be: config.yaml and run.json."""

import datetime as dt
import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from hyenacli import __version__, settings_file
from hyenacli.data.store import fingerprint
from hyenacli.errors import UserError

# Settings that may differ between a run and its resumption: they change no number of the training.
_MAY_CHANGE = {"output", "resume", "force", "threads", "device", "eval_every", "save_every", "keep"}


def write_config(run: Path, settings: Any) -> None:
    """Write config.yaml, which `--config` reads back; --resume and --force are not of the run."""
    values = settings_file.to_dict(settings)
    for key in ("resume", "force"):
        values.pop(key)
    import yaml

    _replace(run / "config.yaml", yaml.safe_dump(values, sort_keys=False))


def check_resumable(run: Path, settings: Any) -> None:
    """Refuse to resume another run: other settings or other data.

    Raises:
        UserError: naming what differs.
    """
    now = {key: value for key, value in settings_file.to_dict(settings).items() if value is not None}
    earlier = settings_file.read_yaml(run / "config.yaml", list(settings_file.to_dict(settings)))
    differing = [
        f"{key} was {earlier.get(key)}, is {now.get(key)}"
        for key in sorted((set(earlier) | set(now)) - _MAY_CHANGE)
        if earlier.get(key) != now.get(key)
    ]
    differing += [
        f"{entry['path']} has other contents"
        for entry in read_record(run)["inputs"]
        if fingerprint(Path(entry["path"])) != entry
    ]
    if differing:
        raise UserError(
            f"cannot resume: {'; '.join(differing)}", at=run, remedy=f"use --config {run / 'config.yaml'}"
        )


def read_record(run: Path) -> dict[str, Any]:
    """run.json of a run directory."""
    record: dict[str, Any] = json.loads((run / "run.json").read_text())
    return record


def write_record(run: Path, *, inputs: Iterable[Path], **facts: Any) -> None:
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
        "inputs": [fingerprint(path) for path in inputs],
        **facts,
    }
    _replace(run / "run.json", json.dumps(record, indent=2, default=str) + "\n")


def add_to_record(run: Path, **facts: Any) -> None:
    """Add facts to run.json."""
    _replace(run / "run.json", json.dumps(read_record(run) | facts, indent=2, default=str) + "\n")


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)
