"""`hyena models`: list, inspect, convert and verify models."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import typer

import hyenadna
from hyenacli.errors import UserError
from hyenacli.terminal_tables import print_table
from hyenacli.tools.settings import ConvertSettings, InfoSettings, ListSettings, VerifySettings
from hyenadna import PRESETS, PUBLISHED_NAMES, HyenaDNA


def show_list(_settings: ListSettings) -> None:
    """Print the table of presets."""
    rows = []
    for name, config in PRESETS.items():
        with torch.device("meta"):  # shapes without memory: the count is the model's own
            parameters = HyenaDNA(config).n_parameters
        repository = f"LongSafari/{PUBLISHED_NAMES[name]}-hf"
        rows.append((name, config.d_model, config.n_layer, config.context, parameters, repository))
    print_table(("name", "d_model", "n_layer", "context", "parameters", "repository"), rows)


def info(settings: InfoSettings) -> None:
    """Print the description of a model; see `hyenadna.describe`."""
    facts = hyenadna.describe(settings.model).to_dict()
    if settings.json:
        typer.echo(json.dumps(facts, indent=2))
        return
    print_table(("field", "value"), _flat(facts | facts.pop("config")))


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
    hyenadna.convert(settings.model, out, settings.to)


def verify(settings: VerifySettings) -> None:
    """Check a model and print a row per check; the exit code is 1 if any failed."""
    checks = hyenadna.verify(hyenadna.load_model(settings.model))
    rows = [("PASS" if check.passed else "FAIL", check.name, check.detail) for check in checks]
    print_table(("result", "check", "detail"), rows)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
