"""`hyena models`: list, inspect, convert, verify and publish models."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import typer

import hyenadna
from hyenacli.console import event, log
from hyenacli.errors import UserError
from hyenacli.inference.filters import write_filters
from hyenacli.terminal_tables import print_table
from hyenacli.tools.doctor import measure_speed
from hyenacli.tools.settings import (
    ConvertSettings,
    DownloadSettings,
    InfoSettings,
    ListSettings,
    PushSettings,
    VerifySettings,
)
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.tables import SCALAR_TABLES, table_type
from hyenadna import PRESETS, HyenaDNA


class PublishedModel(NamedTuple):
    """What a user chooses a published model by.

    Attributes:
        megabytes: of its files on the Hub.
        times_tiny: time to read sequence once on a CPU, in windows of the whole context, against tiny-1k's.
        memory_gib: of the process.
        purpose: what to choose it for.
    """

    megabytes: float
    times_tiny: float
    memory_gib: float
    purpose: str


PUBLISHED_MODELS = {
    "tiny-1k": PublishedModel(1.8, 1.0, 0.3, "first tries; short sequences; fine-tuning on a CPU"),
    "tiny-1k-d256": PublishedModel(6.6, 3.4, 0.4, "short sequences, where tiny-1k is not good enough"),
    "tiny-16k": PublishedModel(2.5, 1.1, 0.4, "genes and regions up to 16 kb on a CPU"),
    "small-32k": PublishedModel(16.3, 6.4, 0.9, "variants and embeddings: the default choice"),
    "medium-160k": PublishedModel(56.9, 16.0, 0.8, "long context; fine-tuning wants a GPU"),
    "medium-450k": PublishedModel(112.6, 16.5, 1.5, "longer context; wants a GPU"),
    "large-1m": PublishedModel(218.2, 17.0, 2.8, "a million bases at once; wants a GPU"),
}
_COLUMNS = ("model", "context", "parameters", "download_mb", "s_per_mb", "memory_gib", "choose_it_for")
_EXPLANATION = """\
All were trained on the human reference genome (hg38); the licence of the weights is BSD-3-Clause.
s_per_mb: seconds to read 1,000,000 bases once on the CPU of this machine, as busy as it is now. tiny-1k was
timed; the others are multiples of it, measured for small-32k, medium-160k and large-1m, else estimated.
memory_gib: of the process. An example: both strands of 1,000 genes of 2,000 bases are 4,000,000 bases.
Use one with -m MODEL; `hyena models download MODEL --to DIR` fetches one for a machine without internet.
For other species: `hyena pretrain` on your genome, or fine-tune one of these."""


def show_list(_settings: ListSettings) -> None:
    """Time the smallest model, print the table of published models, and log what its columns mean."""
    speed = next(measure_speed(torch.device("cpu"), "float32"))
    rows = []
    for name, config in PRESETS.items():
        with torch.device("meta"):  # shapes without memory: the count is the model's own
            parameters = HyenaDNA(config).n_parameters
        model = PUBLISHED_MODELS[name]
        seconds = max(1, round(model.times_tiny * 1e6 / speed.tokens_per_second))
        row = (parameters, model.megabytes, seconds, model.memory_gib, model.purpose)
        rows.append((f"hyenadna-{name}", config.context, *row))
    print_table(_COLUMNS, rows)
    log.info("%s", _EXPLANATION)


def download(settings: DownloadSettings) -> None:
    """Download a model, and log where it is.

    Raises:
        UserError: the output directory is a file.
        ModelError: as `hyenadna.download`.
    """
    if settings.to is not None and settings.to.exists() and not settings.to.is_dir():
        raise UserError("is a file", at=settings.to, remedy="choose another directory")
    folder = hyenadna.download(*hyenadna.parse_hub_name(settings.name), settings.to)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    log.info("%s: %.1f MB, complete and checked by hash", folder, size / 1e6)
    log.info("use it with -m %s", settings.name if settings.to is None else folder)
    event("download", model=settings.name, folder=str(folder), bytes=size)


def info(settings: InfoSettings) -> None:
    """Print the description of a model, or how far its filters reach; see `hyenadna.describe`.

    Raises:
        UserError: the model cannot be read, or a file cannot be written.
    """
    if settings.filters is not None or settings.filters_plot is not None:
        _filters(settings)
        return
    facts = hyenadna.describe(settings.model).to_dict()
    if settings.json:
        typer.echo(json.dumps(facts, indent=2))
        return
    print_table(("field", "value"), _flat(facts | facts.pop("config")))


def _filters(settings: InfoSettings) -> None:
    """Write the table and the picture of the filters, and print a row per layer."""
    table, plot = settings.filters, settings.filters_plot
    if table is not None:
        table_type(table, None, SCALAR_TABLES)
        ensure_writable(table)
    require_suffix(plot, ".svg", "the plot is an SVG")
    if plot is not None:
        ensure_writable(plot)
    rows = write_filters(hyenadna.load_model(settings.model), table, plot)
    if str(table) != "-":
        titles = ("layer", "half_mass median", "half_mass max", "mass_99 median", "mass_99 max")
        print_table(titles, rows)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the facts as rows, those of inner tables under dotted names."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            yield prefix + key, "yes" if value else "no"
        elif isinstance(value, list | tuple):
            yield prefix + key, ", ".join(map(str, value)) or "none"
        else:
            yield prefix + key, "none" if value is None else value


def convert(settings: ConvertSettings) -> None:
    """Convert a model.

    Raises:
        UserError: the output directory is not empty, or as `hyenadna.convert`.
    """
    out = settings.output
    if out.is_dir() and any(out.iterdir()) and not settings.force:
        raise UserError(
            "is not empty", at=out, remedy="choose another directory, or replace a model with --force"
        )
    hyenadna.convert(settings.model, out, settings.to, drop_head=settings.drop_head)


def verify(settings: VerifySettings) -> None:
    """Check a model and print a row per check; the exit code is 1 if any failed."""
    checks = hyenadna.verify(hyenadna.load_model(settings.model))
    rows = [("PASS" if check.passed else "FAIL", check.name, check.detail) for check in checks]
    print_table(("result", "check", "detail"), rows)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def push(settings: PushSettings) -> None:
    """Upload the Hugging Face export of a model, and log where it is.

    Raises:
        ModelError: as `hyenadna.convert` and `hyenadna.upload`.
    """
    hyenadna.check_upload(settings.name)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        hyenadna.convert(settings.model, folder, "hf", drop_head=settings.drop_head, repository=settings.name)
        address = hyenadna.upload(folder, settings.name, private=settings.private)
    log.info("uploaded to %s", address)
    log.info("use it with -m %s", settings.name)
    event("push", model=settings.model, address=address)
