"""Settings of `hyena models`, `hyena doctor` and `hyena merge`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class MergeSettings(options.Settings):
    """Join the outputs of --shard 1/n to n/n into the file that one process would have written.

    Each shard records which part it is, so their order and names do not matter. Missing, duplicate or
    differing shards (another model, input or setting) are an error.

    Examples:
        hyena merge peaks.*.parquet -o peaks.parquet
        hyena merge scored.1.vcf.gz scored.2.vcf.gz -o scored.vcf.gz
        hyena merge predictions.*.tsv -o predictions.tsv
    """

    shards: Annotated[list[Path], typer.Argument(help="All shards of one run.", metavar="SHARD")]
    output: options.TableOutput


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(options.Settings):
    """Check this machine: what it has, whether its results are right, and how fast it is.

    Inference, long inputs and training gradients on every device, in every precision, are compared with the
    definition of the model in float64, and the definition with stored numbers. The exit code is 1 if any
    result is wrong.

    Examples:
        hyena doctor
        hyena doctor --device cpu
        hyena doctor --json
    """

    device: Annotated[
        str | None,
        typer.Option(
            help="Check only this device: auto, cpu, cuda, cuda:N or mps; default all.",
            metavar="DEVICE",
            autocompletion=options.complete_device,
        ),
    ] = None
    no_speed: Annotated[bool, typer.Option("--no-speed", help="Do not measure speed.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False
    threads: options.Threads = None


@dataclass(frozen=True, kw_only=True)
class CacheListSettings(options.Settings):
    """List the genomes in the cache, with their size.

    The cache is HYENA_CACHE, or else hyena under XDG_CACHE_HOME, or else ~/.cache/hyena.

    Examples:
        hyena cache list
    """


@dataclass(frozen=True, kw_only=True)
class CacheCleanSettings(options.Settings):
    """Remove all genomes from the cache; a command that needs one reads its FASTA again.

    Examples:
        hyena cache clean
    """


Source = Annotated[
    str,
    typer.Argument(
        help="Model: a directory or file in any HyenaDNA checkpoint format, a run directory, or a hub name.",
        metavar="MODEL",
        autocompletion=options.complete_model,
    ),
]


DropHead = Annotated[
    bool, typer.Option(help="Leave out the prediction head, which not every format can hold.")
]


@dataclass(frozen=True, kw_only=True)
class ListSettings(options.Settings):
    """List the published models, and what each is for.

    The first column is what -m takes. Without the prefix hyenadna- it is the name of the same architecture
    with fresh weights, for --preset.

    Examples:
        hyena models list
    """


@dataclass(frozen=True, kw_only=True)
class DownloadSettings(options.Settings):
    """Download a published model, and check it by hash.

    An interrupted download continues where it stopped when the command is repeated. Without --to, the model
    goes into the cache of the Hugging Face hub, where -m NAME finds it without the network.

    Examples:
        hyena models download hyenadna-small-32k
        hyena models download hyenadna-small-32k --to small-32k
        hyena models download org/name@main --to model
    """

    name: Annotated[
        str,
        typer.Argument(
            help="Name as `hyena models list` shows it, or org/name, or org/name@revision.",
            metavar="NAME",
            autocompletion=options.complete_model,
        ),
    ]
    to: Annotated[
        Path | None,
        typer.Option(
            help="Directory to write, which -m then takes on any machine; default the cache.", metavar="DIR"
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class InfoSettings(options.Settings):
    """Describe a model: checkpoint format, architecture, size, context, head, and hash of its weights.

    --filters says how far back the model can look: for every long filter, the bases that have half and 99 %
    of its absolute sum.

    Examples:
        hyena models info hyenadna-tiny-1k
        hyena models info run --json
        hyena models info run --filters filters.tsv --filters-plot filters.svg
    """

    model: Source
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False
    filters: Annotated[
        Path | None,
        typer.Option(
            help="Write a row for every filter of every layer; the suffix sets the type of table.",
            metavar="TABLE",
        ),
    ] = None
    filters_plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the share of the filters within a distance, by layer, as SVG.", metavar="FILE.svg"
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(options.Settings):
    """Convert a model to another checkpoint format without loss; it is an error if the format cannot hold it.

    Examples:
        hyena models convert weights.ckpt out --to native
        hyena models convert run out --to hf
        hyena models convert lora-run merged --to native
    """

    model: Source
    output: Annotated[Path, typer.Argument(help="Directory to write.", metavar="OUT")]
    to: Annotated[
        Literal["native", "hf", "multimolecule", "official"],
        typer.Option(help="Checkpoint format to write."),
    ]
    drop_head: DropHead = False
    force: options.Force = False


@dataclass(frozen=True, kw_only=True)
class VerifySettings(options.Settings):
    """Check a model: all weights present and finite, causal, and computed as the architecture is defined.

    Prints one line per check; the exit code is 1 if any failed.

    Examples:
        hyena models verify out
        hyena models verify weights.ckpt
        hyena models verify hyenadna-tiny-1k
    """

    model: Source


@dataclass(frozen=True, kw_only=True)
class PushSettings(options.Settings):
    """Upload a model to the Hugging Face Hub, as `hyena models convert --to hf` writes it, with its card.

    It needs the extra hub, and a token with write access: HF_TOKEN, or what `hf auth login` keeps. A model
    that the repository has already is replaced.

    Examples:
        hyena models push run org/name --private
        hyena models push run org/name
    """

    model: Source
    name: Annotated[
        str, typer.Argument(help="Repository as org/name; created if it does not exist.", metavar="ORG/NAME")
    ]
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository private; an existing one must be so.")
    ] = False
    drop_head: DropHead = False
