"""Settings of `hyena pretrain` and `hyena evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options
from hyenacli.options import DATA, DISTRIBUTED, MODEL, OUTPUT, TRAINING
from hyenacli.training.settings import Keep, StepOptions, TrainingOptions


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(StepOptions, TrainingOptions):
    """Pretrain a HyenaDNA model on genomes: predict the next base in windows drawn uniformly.

    The run directory gets checkpoints, metrics.csv and report.html, which compares the loss with Markov
    models of order 0 to 8 fitted to the same bases.

    Examples:
        hyena pretrain genome.fa.gz -o run --valid-contigs chr21,chr22
        hyena pretrain human.fa mouse.fa -o run --preset small-32k --rc-augment --nproc-per-node 8
        hyena pretrain genome.fa.gz -o run --init-from hyenadna-tiny-1k --lr 1e-4 --resume
    """

    fasta: Annotated[
        list[Path], typer.Argument(help="Genome FASTA files (plain, bgzip or gzip).", metavar="FASTA")
    ]
    intervals: Annotated[
        Path | None,
        typer.Option(
            help="BED with train, valid or test in column 4: only these intervals are read.",
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
            help="Contigs left out of training and evaluation.", metavar="NAMES", rich_help_panel=DATA
        ),
    ] = None
    valid_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the bases held out, in blocks; default 0.05 if no contigs or intervals are given.",
            min=0.0,
            max=0.5,
            rich_help_panel=DATA,
        ),
    ] = None
    genome_weights: Annotated[
        str | None,
        typer.Option(
            help="Share of the windows of each FASTA file, in their order: with 2,1 the first gets two "
            "thirds. Default: in proportion to their bases.",
            metavar="W,W,...",
            rich_help_panel=DATA,
        ),
    ] = None
    soft_mask_weight: Annotated[
        float,
        typer.Option(
            help="Weight of soft-masked (lower-case) bases, mostly repeats, in the training loss. The "
            "held-out loss weighs all bases equally.",
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
            help="Architecture; default tiny-1k. `hyena models list` shows all.",
            autocompletion=options.completing(*options.PRESETS),
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
            help="Floor of the filters' decay window; default 0.05, as in all published inference code; the "
            "published training code has 0.",
            min=0.0,
            rich_help_panel=MODEL,
        ),
    ] = None
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Start from this model's weights instead of random ones.",
            metavar="MODEL",
            autocompletion=options.complete_model,
            rich_help_panel=MODEL,
        ),
    ] = None
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
    eval_windows: Annotated[
        int, typer.Option(help="Held-out windows per evaluation.", min=1, rich_help_panel=OUTPUT)
    ] = 128
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints; default that of --eval-every.", min=1, rich_help_panel=OUTPUT
        ),
    ] = None
    keep: Keep = 2
    context_parallel: Annotated[
        int,
        typer.Option(
            help="Processes that share each window, for windows too long for one device: each holds a part "
            "of the positions. Must divide the number of processes and the width of the model.",
            min=1,
            rich_help_panel=DISTRIBUTED,
        ),
    ] = 1


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(options.ModelOptions, options.TableOutputOptions):
    """Measure loss, bits per base and perplexity of a model on held-out sequence, by context length.

    Windows of the longest length are spread evenly over the sequence and cut into windows of each shorter
    length, so that all lengths predict the same bases. N is never predicted. Choose contigs that the model
    was not trained on: the tool cannot check it. Runs in one process only, without torchrun.

    Examples:
        hyena evaluate genome.fa.gz -m run --contigs chr21,chr22 --plot context.svg
        hyena evaluate genome.fa.gz -m hyenadna-small-32k --lengths 1024,32768 -o perplexity.tsv
        hyena evaluate genome.fa.gz -m run --intervals splits.bed --split test
    """

    fasta: Annotated[
        list[Path], typer.Argument(help="Genome FASTA files (plain, bgzip or gzip).", metavar="FASTA")
    ]
    output: options.TableOutput = Path("-")
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Context lengths in bases, as 1024,4096; default 64, 256, 1024 ... up to the model's.",
            metavar="L,L,...",
        ),
    ] = None
    contigs: Annotated[
        str | None,
        typer.Option(help="Only these contigs, comma-separated; default all.", metavar="NAMES"),
    ] = None
    intervals: Annotated[
        Path | None,
        typer.Option(help="BED with train, valid or test in column 4; --split chooses.", metavar="BED"),
    ] = None
    split: Annotated[
        Literal["train", "valid", "test"] | None,
        typer.Option(help="Split of --intervals to read; default valid."),
    ] = None
    max_windows: Annotated[
        int, typer.Option(help="Largest number of windows of the longest length.", min=1)
    ] = 128
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw perplexity against context length into this SVG.", metavar="FILE.svg"),
    ] = None
