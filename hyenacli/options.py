"""Every shared option once: the same flag, letter, help and bounds in every verb."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hyenacli import settings_file
from hyenacli.errors import UserError

GENERAL = "General"
DATA, MODEL, TRAINING = "Data", "Model and method", "Training"
OUTPUT, DISTRIBUTED = "Evaluation and output", "Several devices"

Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        help="Model: a directory or file in any HyenaDNA checkpoint format, a run directory, or a hub name.",
        metavar="MODEL",
    ),
]
Genome = Annotated[
    Path | None,
    typer.Option("-f", "--fasta", help="Genome FASTA (plain, bgzip or gzip).", metavar="FASTA"),
]
RunDirectory = Annotated[Path, typer.Option("-o", "--output", help="Run directory to write.", metavar="RUN")]
TableOutput = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="Output file, `-` for stdout; its suffix sets the type.", metavar="OUT"
    ),
]
OutputType = Annotated[
    str | None,
    typer.Option(
        "-O", "--output-type", help="Output type, whatever the suffix; stdout takes text.", metavar="TYPE"
    ),
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "-r",
        "--region",
        help="Only this region, 1-based (chr1:101-200; chr1:101 runs to the contig's end); repeatable.",
    ),
]
RegionsFile = Annotated[
    Path | None,
    typer.Option("-R", "--regions-file", help="Only the regions of this BED (0-based).", metavar="BED"),
]
ContigStyle = Annotated[
    str,
    typer.Option("--contig-style", help="auto maps chr1, 1 and chrM, MT on each other; exact does not."),
]
ContigAliases = Annotated[
    Path | None,
    typer.Option(
        "--contig-aliases",
        help="Two columns: a contig's name in the input, and in the FASTA.",
        metavar="FILE",
    ),
]
BatchSize = Annotated[
    str, typer.Option("-b", "--batch-size", help="Sequences per forward pass, or auto.", metavar="N|auto")
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", help="Only the i-th of n equal parts of the input (1-based).", metavar="i/n"),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what the output directory holds.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on from the last checkpoint in RUN.", rich_help_panel=OUTPUT),
]
SequenceColumn = Annotated[
    str,
    typer.Option(
        help="Column of a table with the sequences: a name, or a 1-based number.",
        metavar="NAME",
        rich_help_panel=DATA,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with names of the records; default `id` where there is one.",
        metavar="NAME",
        rich_help_panel=DATA,
    ),
]
MicroBatchSize = Annotated[
    str,
    typer.Option(
        help="Windows per forward pass; gradients are accumulated up to the whole batch. auto: as many as "
        "fit in device memory. Halved where memory runs out.",
        metavar="N|auto",
        rich_help_panel=TRAINING,
    ),
]
ActivationCheckpointing = Annotated[
    str,
    typer.Option(
        help="block: keep only the input of each block and compute it again for the gradient; auto: "
        "where memory would not do.",
        metavar="none|block|auto",
        rich_help_panel=TRAINING,
    ),
]
GradClip = Annotated[
    float, typer.Option(help="Largest gradient norm; 0 for any.", min=0.0, rich_help_panel=TRAINING)
]
Keep = Annotated[
    int, typer.Option(help="Checkpoints to keep besides the best.", min=1, rich_help_panel=OUTPUT)
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard", help="Also write RUN/tensorboard (extra `tensorboard`).", rich_help_panel=OUTPUT
    ),
]
ProcessesPerNode = Annotated[
    int | None,
    typer.Option(
        help="Start this many processes here, one per device, as torchrun would.",
        min=1,
        rich_help_panel=DISTRIBUTED,
    ),
]
Pool = Annotated[
    str,
    typer.Option(
        help="How bases become one vector for the head.", metavar="mean|last|max", rich_help_panel=MODEL
    ),
]
LoraRank = Annotated[
    int | None,
    typer.Option(help="Rank of LoRA's changes; default 8.", min=1, rich_help_panel=MODEL),
]
LoraAlpha = Annotated[
    float | None,
    typer.Option(help="LoRA's scale is alpha/rank; default twice the rank.", rich_help_panel=MODEL),
]
PromptTokens = Annotated[
    int | None,
    typer.Option(help="Vectors of a soft prompt; default 32.", min=1, max=32_768, rich_help_panel=MODEL),
]
EmbedDropout = Annotated[
    float | None,
    typer.Option(
        help="Dropout of the embedding; default the model's.", min=0.0, max=0.99, rich_help_panel=MODEL
    ),
]
ResidDropout = Annotated[
    float | None,
    typer.Option(
        help="Dropout of what blocks add; default the model's.", min=0.0, max=0.99, rich_help_panel=MODEL
    ),
]
PredictRc = Annotated[
    str,
    typer.Option(
        help="mean: predict from a sequence and its reverse complement; kept with the model.",
        metavar="none|mean",
        rich_help_panel=OUTPUT,
    ),
]
NoBaseline = Annotated[
    bool,
    typer.Option(
        "--no-baseline", help="Do not fit the linear k-mer model to compare with.", rich_help_panel=OUTPUT
    ),
]
LengthWarmup = Annotated[
    str | None,
    typer.Option(
        help="Start on shorter windows, at constant tokens per step: auto (lengths double from 64 on a "
        "third of the steps) or lengths with their steps, as 64:500,128:500.",
        metavar="auto|L:STEPS,...",
        rich_help_panel=TRAINING,
    ),
]
AdaptedModel = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        help="Model to adapt, or a preset such as tiny-1k for fresh weights.",
        metavar="MODEL",
    ),
]
MaxSteps = Annotated[int, typer.Option(help="Optimizer steps.", min=1, rich_help_panel=TRAINING)]
GlobalBatchSize = Annotated[
    int,
    typer.Option(help="Windows per optimizer step, over all processes.", min=1, rich_help_panel=TRAINING),
]
EvalEvery = Annotated[
    int | None,
    typer.Option(
        help="Steps between evaluations; default a tenth of the run.", min=1, rich_help_panel=OUTPUT
    ),
]
Stranded = Annotated[
    bool, typer.Option("--stranded", help="Read regions on the - strand as reverse complement.")
]
Device = Annotated[
    str,
    typer.Option(
        "--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE", rich_help_panel=GENERAL
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="float32 or bfloat16 (FFT, softmax and residuals stay float32).",
        metavar="DTYPE",
        rich_help_panel=GENERAL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("-@", "--threads", help="CPU threads; default all.", min=1, rich_help_panel=GENERAL),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", help="Seed of every random choice.", min=0, max=2**63 - 1, rich_help_panel=GENERAL
    ),
]


def _load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of this command line; runs before other options."""
    if path is not None:
        known = {p.name: p for p in ctx.command.params if p.name and p.name not in NOT_IN_CONFIG}
        ctx.default_map = values = settings_file.read_yaml(path, list(known))
        for name, value in values.items():
            try:
                known[name].process_value(ctx, value)
            except typer.BadParameter as error:
                raise UserError(f"{name}: {error.message}", at=path, remedy="correct it") from error
    return path


# How a run talks, not what it computes: not part of a verb's settings.
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
        Annotated[bool, typer.Option("-v", "--verbose", help="Say more.", rich_help_panel=GENERAL)],
        False,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Traceback with every error.", rich_help_panel=GENERAL)],
        False,
    ),
}
NOT_IN_CONFIG = {*RUN_OPTIONS, "ctx", "help"}
