"""Settings of `hyena pretrain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options
from hyenacli.options import DATA, DISTRIBUTED, OUTPUT, TRAINING

MODEL = "Model"


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Pretrain a HyenaDNA model on genomes, by predicting the next base of windows drawn uniformly.

    The run directory gets checkpoints, metrics.csv and report.html, which sets the loss beside Markov models
    of order 0 to 8 fitted to the same bases.

    Example: hyena pretrain genome.fa.gz -o run --preset tiny-1k --valid-contigs chr21,chr22
    """

    fasta: Annotated[
        list[Path], typer.Argument(help="Genome FASTA files (plain, bgzip or gzip).", metavar="FASTA")
    ]
    output: options.RunDirectory
    intervals: Annotated[
        Path | None,
        typer.Option(
            help="BED whose column 4 says train, valid or test: only these intervals are read.",
            metavar="BED",
            rich_help_panel=DATA,
        ),
    ] = None
    valid_contigs: Annotated[
        str | None,
        typer.Option(
            help="Contigs held out for evaluation, comma-separated.", metavar="NAMES", rich_help_panel=DATA
        ),
    ] = None
    test_contigs: Annotated[
        str | None,
        typer.Option(
            help="Contigs never trained on nor evaluated on here.", metavar="NAMES", rich_help_panel=DATA
        ),
    ] = None
    valid_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the bases held out, in blocks; default 0.05 where no contigs or intervals are "
            "named.",
            min=0.0,
            max=0.5,
            rich_help_panel=DATA,
        ),
    ] = None
    genome_weights: Annotated[
        str | None,
        typer.Option(
            help="How the FASTA files share the windows, in their order: with 2,1 the first gets two thirds. "
            "Default: by their bases.",
            metavar="W,W,...",
            rich_help_panel=DATA,
        ),
    ] = None
    rc_augment: Annotated[
        bool,
        typer.Option(
            "--rc-augment", help="Read half the windows as reverse complement.", rich_help_panel=DATA
        ),
    ] = False
    soft_mask_weight: Annotated[
        float,
        typer.Option(
            help="Weight in the training loss of soft-masked (lower-case) bases, mostly repeats; held-out "
            "loss counts all alike.",
            min=0.0,
            max=1.0,
            rich_help_panel=DATA,
        ),
    ] = 1.0
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that read windows ahead; default 2 on CUDA, else 0.",
            min=0,
            rich_help_panel=DATA,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            help="Architecture, by default tiny-1k; `hyena models list` shows them.",
            rich_help_panel=MODEL,
        ),
    ] = None
    d_model: Annotated[
        int | None, typer.Option(help="Width, instead of the preset's.", min=1, rich_help_panel=MODEL)
    ] = None
    n_layer: Annotated[
        int | None, typer.Option(help="Layers, instead of the preset's.", min=1, rich_help_panel=MODEL)
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(help="Context in bases, instead of the preset's.", min=8, rich_help_panel=MODEL),
    ] = None
    window_shift: Annotated[
        float | None,
        typer.Option(
            help="Floor of the filters' decay window; default 0.05 as all published inference code, "
            "0 as the published training code.",
            min=0.0,
            rich_help_panel=MODEL,
        ),
    ] = None
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Start from this model's weights instead of fresh ones.",
            metavar="MODEL",
            rich_help_panel=MODEL,
        ),
    ] = None
    max_steps: options.MaxSteps = 1000
    global_batch_size: options.GlobalBatchSize = 32
    micro_batch_size: options.MicroBatchSize = "auto"
    length_warmup: options.LengthWarmup = None
    activation_checkpointing: options.ActivationCheckpointing = "auto"
    lr: Annotated[float, typer.Option(help="Peak learning rate.", min=0.0, rich_help_panel=TRAINING)] = 6e-4
    min_lr: Annotated[
        float | None,
        typer.Option(help="Learning rate at the end; default a tenth of --lr.", rich_help_panel=TRAINING),
    ] = None
    lr_warmup_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of linear warm-up; default 1 % of --max-steps, at least 10.",
            min=0,
            rich_help_panel=TRAINING,
        ),
    ] = None
    weight_decay: Annotated[
        float,
        typer.Option(help="Weight decay, except of the filter network.", min=0.0, rich_help_panel=TRAINING),
    ] = 0.1
    grad_clip: options.GradClip = 1.0
    eval_every: options.EvalEvery = None
    eval_windows: Annotated[
        int, typer.Option(help="Held-out windows per evaluation.", min=1, rich_help_panel=OUTPUT)
    ] = 128
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints; default as --eval-every.", min=1, rich_help_panel=OUTPUT
        ),
    ] = None
    keep: options.Keep = 2
    tensorboard: options.TensorBoard = False
    nproc_per_node: options.ProcessesPerNode = None
    context_parallel: Annotated[
        int,
        typer.Option(
            help="Processes that share every window, each holding a part of its positions: for windows "
            "beyond one device's memory. Divides the number of processes and the model's width.",
            min=1,
            rich_help_panel=DISTRIBUTED,
        ),
    ] = 1
    resume: options.Resume = False
    force: options.Force = False
    seed: options.Seed = 0
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
