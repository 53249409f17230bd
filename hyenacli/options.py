"""Options that several verbs share, as base dataclasses of their settings: each flag is declared once.

A verb's settings are a frozen dataclass that inherits the blocks it needs; `verbs.Verb` makes its command
line of the fields. Only typer is imported here, so that `hyena --help` stays fast.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from hyenacli import settings_file
from hyenacli.errors import UsageError, UserError, check_word

# Panels of the help, in their order.
DATA, SPLITS, MODEL, TRAINING = "Data", "Splits", "Model", "Training"
OUTPUT, DISTRIBUTED, GENERAL = "Evaluation and output", "Several devices", "General"
PANELS = (DATA, SPLITS, MODEL, TRAINING, OUTPUT, DISTRIBUTED, GENERAL)

# Models with published weights, and architectures for --preset; here because importing them loads torch.
PRESETS = ("tiny-1k", "tiny-1k-d256", "tiny-16k", "small-32k", "medium-160k", "medium-450k", "large-1m")
MODELS = tuple(f"hyenadna-{preset}" for preset in PRESETS)


def completing(*words: str, listed: bool = False) -> Callable[[str], list[str]]:
    """Return what completes a value to one of `words`; if `listed`, also the last of several, by commas.

    Where no word begins so, the shell completes a path.

    >>> completing("llr", "site", listed=True)("llr,s")
    ['llr,site']
    """

    def complete(incomplete: str) -> list[str]:
        before, last = "", incomplete
        if listed:
            before, comma, last = incomplete.rpartition(",")
            before += comma
        return [before + word for word in words if word.startswith(last)]

    return complete


complete_device = completing("auto", "cpu", "cuda", "mps")
complete_model = completing(*MODELS)


# Options that some verbs give another default than the block they stand in, or take alone.
TableOutput = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="Output file, `-` for stdout; its suffix sets the type.", metavar="OUT"
    ),
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "-r",
        "--region",
        help="Only this region, 1-based (chr1:101-200; chr1:101 runs to the contig's end); repeatable.",
        metavar="REGION",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what the output directory holds.")]
NoBaseline = Annotated[
    bool,
    typer.Option(
        "--no-baseline",
        help="Do not fit the linear k-mer model that results are compared with.",
        rich_help_panel=OUTPUT,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "-@", "--threads", help="CPU threads; default all.", min=1, metavar="N", rich_help_panel=GENERAL
    ),
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every verb's settings.

    Raises:
        UsageError: a field whose type is a `Literal` has another word.
    """

    def __post_init__(self) -> None:
        """Check the words, for settings that do not come through the command line."""
        for field in fields(self):
            words, value = literal_words(field.type), getattr(self, field.name)
            if words and value is not None:
                check_word(f"--{field.name.replace('_', '-')}", value, words)


def literal_words(annotation: Any) -> tuple[str, ...]:
    """Return the words of a `Literal`, also inside `Annotated` or a union; none for another type.

    >>> literal_words(Annotated[Literal["a", "b"] | None, "help"])
    ('a', 'b')
    """
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return arguments
    return tuple(word for argument in arguments for word in literal_words(argument))


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Settings):
    """Where and in which precision a model runs."""

    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps.",
            metavar="DEVICE",
            autocompletion=complete_device,
            rich_help_panel=GENERAL,
        ),
    ] = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            help="Precision of matrix products; FFT, softmax and residuals are always float32.",
            rich_help_panel=GENERAL,
        ),
    ] = "float32"
    threads: Threads = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ComputeOptions):
    """The model a verb applies."""

    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            help="Model: a directory or file in any HyenaDNA checkpoint format, a run directory, or a hub "
            "name.",
            metavar="MODEL",
            autocompletion=complete_model,
        ),
    ]
    batch_size: Annotated[
        str,
        typer.Option(
            "-b",
            "--batch-size",
            help="Sequences or windows per forward pass; auto: as many as fit in memory.",
            metavar="N|auto",
            autocompletion=completing("auto"),
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class TableOutputOptions(Settings):
    """The table a verb writes."""

    output: TableOutput
    output_type: Annotated[
        str | None,
        typer.Option(
            "-O",
            "--output-type",
            help="Output type, whatever the suffix of OUT; stdout takes text: tsv, or vcf for variants.",
            metavar="TYPE",
            autocompletion=completing("tsv", "csv", "parquet"),  # what every verb writes
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RecordTableOptions(TableOutputOptions):
    """The table of a verb that gives each record a status."""

    multiqc: Annotated[
        bool,
        typer.Option(
            "--multiqc",
            help="Also write OUT.hyena_mqc.json, which MultiQC shows: the records by status.",
            rich_help_panel=GENERAL,
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check the words, and that the sample in MultiQC's report has a name.

        Raises:
            UsageError: the output is stdout, and `multiqc` is set.
        """
        super().__post_init__()
        if self.multiqc and str(self.output) == "-":
            raise UsageError("stdout has no name for a report", at="--multiqc", remedy="name a file with -o")


@dataclass(frozen=True, kw_only=True)
class ShardOptions(Settings):
    """The part of the input that this process reads."""

    shard: Annotated[
        str | None,
        typer.Option(
            help="Read only the i-th of n equal parts of the input, i from 1; `hyena merge` joins the "
            "outputs.",
            metavar="i/n",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ContigNameOptions(Settings):
    """How contig names of an input are matched with those of the genome."""

    contig_style: Annotated[
        Literal["auto", "exact"],
        typer.Option(help="auto: chr1 also matches 1, and chrM matches MT; exact: names must be equal."),
    ] = "auto"
    contig_aliases: Annotated[
        Path | None,
        typer.Option(
            help="File of two columns: a contig's name in the input, and its name in the FASTA.",
            metavar="FILE",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CircularOptions(Settings):
    """Contigs that are circles."""

    circular: Annotated[
        str | None,
        typer.Option(
            help="Contigs of the genome that are circles (chrM, plasmids, bacteria), comma-separated: what "
            "is read there goes on across the end. So are those that a GenBank or EMBL file calls circular.",
            metavar="CONTIG[,...]",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class GenomeOptions(ContigNameOptions):
    """A genome, and regions of it."""

    fasta: Annotated[
        Path | None,
        typer.Option("-f", "--fasta", help="Genome FASTA (plain, bgzip or gzip).", metavar="FASTA"),
    ] = None
    region: Regions = None


@dataclass(frozen=True, kw_only=True)
class RegionOptions(GenomeOptions):
    """Regions of a genome as input, each read on its strand."""

    stranded: Annotated[
        bool, typer.Option("--stranded", help="Read regions on the - strand as reverse complement.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Settings):
    """Features of a GFF3, GTF, GenBank or EMBL as regions."""

    feature: Annotated[
        str | None,
        typer.Option(
            help="Types of the features to read from a GFF3, GTF, GenBank or EMBL, as gene,CDS.",
            metavar="TYPE,...",
            rich_help_panel=DATA,
        ),
    ] = None
    id_attribute: Annotated[
        str | None,
        typer.Option(
            help="Attribute that names a feature; default ID, or of a GTF transcript_id (of genes gene_id).",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = None
    merge_parts: Annotated[
        Literal["exon", "none"],
        typer.Option(
            help="exon: the lines of one feature (a CDS) and the exons of a transcript are joined to one "
            "record, as it is transcribed. none: a row per line.",
            rich_help_panel=DATA,
        ),
    ] = "none"
    attributes: Annotated[
        str | None,
        typer.Option(
            help="Attributes of features to keep as columns, beside their type.",
            metavar="NAME,...",
            rich_help_panel=DATA,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ColumnOptions(Settings):
    """Columns of an input table."""

    sequence_column: Annotated[
        str,
        typer.Option(
            help="Column of a table with the sequences: a name, or a 1-based number.",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = "sequence"
    id_column: Annotated[
        str | None,
        typer.Option(
            help="Column with names of the records; default `id`, if the table has it.",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WindowOptions(Settings):
    """Windows of sequences that are longer than the model reads at once."""

    window: Annotated[
        int | None,
        typer.Option(
            help="Cut longer sequences into windows of this many bases; default the length that the model "
            "was fine-tuned on, or else the longest it takes.",
            min=1,
            metavar="BASES",
        ),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(
            help="Bases from the start of one window to the start of the next; default the window.",
            min=1,
            metavar="BASES",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(ModelOptions, WindowOptions, ShardOptions):
    """How a model with a head is applied."""

    rc: Annotated[
        Literal["auto", "none", "mean"],
        typer.Option(
            help="Predict from the forward strand, or from the mean of both; auto: as the model was trained "
            "for.",
        ),
    ] = "auto"


def _load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of this command line; runs before other options.

    Raises:
        UserError: naming the file, and the key that is unknown or whose value the option does not take.
    """
    if path is not None:
        known = {p.name: p for p in ctx.command.params if p.name and p.name not in NOT_IN_CONFIG}
        ctx.default_map = values = settings_file.read_yaml(path, list(known), as_text=True)
        for name, value in values.items():
            parameter = known[name]
            several = parameter.multiple or parameter.nargs == -1
            values[name] = texts = [value] if several and isinstance(value, str) else value
            if not isinstance(texts, list if several else str) or not all(isinstance(t, str) for t in texts):
                what = f"takes {'a list of values' if several else 'one value, no list or mapping'}"
                raise UserError(f"{name}: {what}", at=path, remedy="correct it")
            try:
                parameter.process_value(ctx, texts)
            except typer.BadParameter as error:
                what = error.message.removeprefix("Value error, ").rstrip(".")
                raise UserError(f"{name}: {what}", at=path, remedy="correct it") from error
    return path


# What a run logs, not what it computes: not part of a verb's settings.
RUN_OPTIONS: dict[str, tuple[Any, Any]] = {
    "config": (
        Annotated[
            Path | None,
            typer.Option(
                "--config",
                help="YAML file of settings; flags given here win.",
                metavar="FILE",
                is_eager=True,
                callback=_load_config,
                rich_help_panel=GENERAL,
            ),
        ],
        None,
    ),
    "print_config": (
        Annotated[
            bool,
            typer.Option(
                "--print-config", help="Print the settings as YAML and stop.", rich_help_panel=GENERAL
            ),
        ],
        False,
    ),
    "log_json": (
        Annotated[
            Path | None,
            typer.Option(
                "--log-json", help="Append events as JSON lines.", metavar="FILE", rich_help_panel=GENERAL
            ),
        ],
        None,
    ),
    "quiet": (
        Annotated[
            bool, typer.Option("-q", "--quiet", help="Warnings and errors only.", rich_help_panel=GENERAL)
        ],
        False,
    ),
    "verbose": (
        Annotated[
            bool, typer.Option("-v", "--verbose", help="Log debugging messages too.", rich_help_panel=GENERAL)
        ],
        False,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Traceback with every error.", rich_help_panel=GENERAL)],
        False,
    ),
}
NOT_IN_CONFIG = {*RUN_OPTIONS, "ctx", "help"}
