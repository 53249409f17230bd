"""`hyena models`: list, inspect, convert and verify models.

VERBS maps each sub-verb to (frozen dataclass of its arguments and options, "module:function" that runs it);
app.add_verb turns both into a command, as for every other verb.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hyenacli import options
from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.terminal_tables import print_table

if TYPE_CHECKING:
    from hyenadna.formats.configs import CheckpointFormat

FORMATS = ("native", "hf", "multimolecule", "official")

Source = Annotated[
    str,
    typer.Argument(
        help="Model: a directory or file in any HyenaDNA checkpoint format, a run directory, or a hub name.",
        metavar="MODEL",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ListSettings:
    """List the published architectures: width, layers, context in bases, trainable parameters, repository.

    Example: hyena models list
    """


@dataclass(frozen=True, kw_only=True)
class InfoSettings:
    """Say what a model is: checkpoint format, architecture, size, context, head, and the hash of its weights.

    Example: hyena models info hyenadna-tiny-1k
    """

    model: Source
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Rewrite a model in another checkpoint format, exactly; what the format cannot hold is an error.

    Example: hyena models convert weights.ckpt out --to native
    """

    model: Source
    output: Annotated[Path, typer.Argument(help="Directory to write.", metavar="OUT")]
    to: Annotated[str, typer.Option(help="Checkpoint format to write.", metavar="|".join(FORMATS))]
    force: options.Force = False


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """Load a model strictly and check its numbers: finite, causal, positions and convolution as defined.

    Prints one line per check; the exit code is 1 if any failed.

    Example: hyena models verify out
    """

    model: Source


def show_list(_settings: ListSettings) -> None:
    """Print the table of presets."""
    import torch

    from hyenadna import PRESETS, PUBLISHED_NAMES, HyenaDNA

    rows = []
    for name, config in PRESETS.items():
        with torch.device("meta"):  # shapes without memory: the count is the model's own
            parameters = HyenaDNA(config).n_parameters
        repository = f"LongSafari/{PUBLISHED_NAMES[name]}-hf"
        rows.append((name, config.d_model, config.n_layer, config.context, parameters, repository))
    print_table(("name", "d_model", "n_layer", "context", "parameters", "repository"), rows)


def info(settings: InfoSettings) -> None:
    """Print the facts of a model."""
    from hyenadna import describe

    facts = describe(settings.model).to_dict()
    if settings.json:
        typer.echo(json.dumps(facts, indent=2))
        return
    print_table(("field", "value"), (facts | facts.pop("config")).items())


def convert(settings: ConvertSettings) -> None:
    """Convert a model."""
    from hyenadna import convert as convert_model

    if settings.to not in FORMATS:
        raise UsageError(
            f"there is no checkpoint format {settings.to!r}",
            at="--to",
            remedy=nearest(settings.to, list(FORMATS)),
        )
    out = settings.output
    if out.is_dir() and any(out.iterdir()) and not settings.force:
        raise UserError(
            "is not empty", at=out, remedy="choose another directory, or replace a model with --force"
        )
    convert_model(settings.model, out, cast("CheckpointFormat", settings.to))


def verify(settings: VerifySettings) -> None:
    """Print what was checked; the exit code says whether all of it held."""
    from hyenadna import load_model
    from hyenadna import verify as verify_model

    checks = verify_model(load_model(settings.model))
    rows = [("PASS" if check.passed else "FAIL", check.name, check.detail) for check in checks]
    print_table(("result", "check", "detail"), rows)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


VERBS: dict[str, tuple[type, str]] = {
    "list": (ListSettings, "hyenacli.tools.models:show_list"),
    "info": (InfoSettings, "hyenacli.tools.models:info"),
    "convert": (ConvertSettings, "hyenacli.tools.models:convert"),
    "verify": (VerifySettings, "hyenacli.tools.models:verify"),
}
