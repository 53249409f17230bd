"""Options of every verb that trains, as base dataclasses of their settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli.options import DISTRIBUTED, GENERAL, OUTPUT, TRAINING, ComputeOptions, Settings, completing

Keep = Annotated[
    int, typer.Option(help="Checkpoints to keep besides the best.", min=1, rich_help_panel=OUTPUT)
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ComputeOptions):
    """The run directory, and what every training run needs."""

    output: Annotated[Path, typer.Option("-o", "--output", help="Run directory to write.", metavar="RUN")]
    rc_augment: Annotated[
        bool,
        typer.Option(
            "--rc-augment",
            help="Train on the reverse complement of half the sequences, drawn anew each time.",
            rich_help_panel=TRAINING,
        ),
    ] = False
    micro_batch_size: Annotated[
        str,
        typer.Option(
            help="Sequences per forward pass; gradients are accumulated up to the batch. auto: as many as "
            "fit in device memory. Halved if memory runs out.",
            metavar="N|auto",
            autocompletion=completing("auto"),
            rich_help_panel=TRAINING,
        ),
    ] = "auto"
    activation_checkpointing: Annotated[
        Literal["none", "block", "auto"],
        typer.Option(
            help="block: store only the input of each block and recompute the rest for the gradient; "
            "auto: only if memory is short.",
            rich_help_panel=TRAINING,
        ),
    ] = "auto"
    grad_clip: Annotated[
        float,
        typer.Option(help="Largest gradient norm; 0: no limit.", min=0.0, rich_help_panel=TRAINING),
    ] = 1.0
    eval_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between evaluations; default a tenth of the run, of fine-tuning an epoch.",
            min=1,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    keep: Keep = 1
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also write RUN/tensorboard (extra `tensorboard`).", rich_help_panel=OUTPUT
        ),
    ] = False
    multiqc: Annotated[
        bool,
        typer.Option(
            "--multiqc",
            help="Also write RUN/hyena_{loss,metrics}_mqc.json, which MultiQC shows.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue from the last checkpoint in RUN.", rich_help_panel=OUTPUT),
    ] = False
    force: Annotated[
        bool, typer.Option("--force", help="Replace what RUN holds.", rich_help_panel=OUTPUT)
    ] = False
    nproc_per_node: Annotated[
        int | None,
        typer.Option(
            help="Start this many processes on this machine, one per device, as torchrun does.",
            min=1,
            rich_help_panel=DISTRIBUTED,
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(help="Seed of every random choice.", min=0, max=2**63 - 1, rich_help_panel=GENERAL)
    ] = 0


@dataclass(frozen=True, kw_only=True)
class StepOptions(Settings):
    """Length of a training run on windows of genomes."""

    max_steps: Annotated[int, typer.Option(help="Optimizer steps.", min=1, rich_help_panel=TRAINING)] = 1000
    global_batch_size: Annotated[
        int,
        typer.Option(help="Windows per optimizer step, over all processes.", min=1, rich_help_panel=TRAINING),
    ] = 32
    length_warmup: Annotated[
        str | None,
        typer.Option(
            help="Start on shorter windows, with the same number of tokens per step: auto (lengths double "
            "from 64, during the first third of the steps), or lengths with their steps, as 64:500,128:500.",
            metavar="auto|L:STEPS,...",
            autocompletion=completing("auto"),
            rich_help_panel=TRAINING,
        ),
    ] = None
