"""Settings of `hyena classify-species`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options
from hyenacli.options import DATA, MODEL, OUTPUT, TRAINING


@dataclass(frozen=True, kw_only=True)
class SpeciesPredictSettings:
    """Tell which species each contig comes from, of those a model was trained on.

    INPUT is a FASTA or - for stdin. Each contig is read in windows that cover all its bases, the last one
    moved back to the contig's end; windows that are more than half N are left out. The log-probabilities of
    its windows are averaged, each weighted by the bases that no window before it has read, and normalised
    again: the probabilities of the contig. A species is the likeliest of those the model knows, whatever the
    contig is; the shorter the contig, the less sure.

    OUT is .tsv, .tsv.gz, .parquet or .npz with a row per contig in input order: id, length, n_windows,
    n_bases (of the windows, each counted once), status, prediction, probability (of the likeliest species)
    and p_SPECIES for each. What cannot be told has a status other than OK, and no values: EMPTY, TOO_SHORT
    (below --min-length) or N_CONTENT (all its windows are left out). Under torchrun each process writes
    its own shard beside OUT, and the one that ends last joins them.

    Example: hyena classify-species predict contigs.fa.gz -m run -o species.tsv --threshold 0.7
    """

    input: Annotated[
        Path, typer.Argument(help="FASTA of contigs (plain or gzip), - for stdin.", metavar="INPUT")
    ]
    model: options.Model
    output: options.TableOutput
    output_type: options.OutputType = None
    window: Annotated[
        int | None,
        typer.Option(
            help="Bases the model reads at once; default what it was trained on, or else its length.", min=1
        ),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(help="Bases from one window's start to the next; default the window.", min=1),
    ] = None
    min_length: Annotated[
        int, typer.Option(help="Shorter contigs are TOO_SHORT to tell.", min=1, metavar="BASES")
    ] = 500
    threshold: Annotated[
        float,
        typer.Option(
            help="Predict `unknown` where the likeliest species is less probable, for contigs and windows; "
            "0 for never. `evaluate --threshold` says what it costs.",
            min=0.0,
            max=1.0,
            metavar="P",
        ),
    ] = 0.0
    top: Annotated[
        int | None,
        typer.Option(
            help="Add a column `top` with the K likeliest species, as human:0.97,mouse:0.02.",
            min=1,
            metavar="K",
        ),
    ] = None
    per_window: Annotated[
        Path | None,
        typer.Option(
            help="Also write a table with a row per window read: id, start and end (0-based, half-open), "
            "prediction and p_SPECIES; the suffix sets the type.",
            metavar="FILE",
        ),
    ] = None
    split_fasta: Annotated[
        Path | None,
        typer.Option(
            help="Also copy each record, byte for byte, into DIR/SPECIES.fa, DIR/unknown.fa or, where the "
            "status is not OK, DIR/unclassified.fa; not in shards.",
            metavar="DIR",
        ),
    ] = None
    rc: Annotated[
        str,
        typer.Option(
            help="Read one strand, or average the log-probabilities of both; auto is what the model was "
            "trained for.",
            metavar="auto|none|mean",
        ),
    ] = "auto"
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the directory of --split-fasta holds.")
    ] = False
    shard: options.Shard = None
    batch_size: options.BatchSize = "auto"
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None


@dataclass(frozen=True, kw_only=True)
class SpeciesTrainSettings:
    """Train a model to tell species apart by windows of their genomes.

    SPECIES.yaml names them and their files, a line each: `human: hg38.fa`, `mouse: [a.fa, b.fa]`, or
    `pig: {fasta: pig.fa, valid: [chr1], test: [chr5]}`; --species says the same on the command line. Every
    species is drawn as often as every other, its windows uniformly over all its bases. Held out are whole
    contigs, or blocks where a species has too few, and what the splits share is reported.

    The run directory gets the best model by the validation windows, calibrated on them, metrics.json,
    report.html and splits.bed, which says what is held out. A warning tells of contigs that two species or
    splits share, and of held-out splits more than 5 % of whose 31-mers occur in what is trained on.

    Example: hyena classify-species train --species human=hg38.fa --species mouse=mm10.fa -m pretrained -o run
    """

    species_file: Annotated[
        Path | None, typer.Argument(help="YAML of species and their FASTA files.", metavar="SPECIES.yaml")
    ] = None
    model: options.AdaptedModel
    output: options.RunDirectory
    species: Annotated[
        list[str] | None,
        typer.Option(
            help="A species and its files; repeatable.", metavar="NAME=FASTA[,FASTA...]", rich_help_panel=DATA
        ),
    ] = None
    published_splits: Annotated[
        bool,
        typer.Option(
            "--published-splits",
            help="Hold out the chromosomes that the paper does: 1, 3, 12, 13 for validation, 5, 7, 9, 10, 11 "
            "to test; Y of some, M and what is not placed are left out. For human, lemur, mouse, pig, hippo, "
            "goat, sheep, gorilla, orangutan and chimpanzee; a species' own valid and test win.",
            rich_help_panel=DATA,
        ),
    ] = False
    valid_fraction: Annotated[
        float,
        typer.Option(
            help="Share of each genome to choose the model by.", min=0.0, max=0.5, rich_help_panel=DATA
        ),
    ] = 0.1
    test_fraction: Annotated[
        float, typer.Option(help="Share of each genome to test on.", min=0.0, max=0.4, rich_help_panel=DATA)
    ] = 0.1
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Bases of a window, in training and prediction; default the model's context.",
            min=8,
            rich_help_panel=DATA,
        ),
    ] = None
    rc_augment: Annotated[
        bool,
        typer.Option(
            "--rc-augment", help="Read half the windows as reverse complement.", rich_help_panel=DATA
        ),
    ] = False
    method: Annotated[
        str,
        typer.Option(
            help="full: all weights; head: a linear head on a frozen model; lora, soft-prompt: small "
            "additions to a frozen model, and a head.",
            metavar="full|head|lora|soft-prompt",
            rich_help_panel=MODEL,
        ),
    ] = "full"
    pool: options.Pool = "mean"
    lora_rank: options.LoraRank = None
    lora_alpha: options.LoraAlpha = None
    prompt_tokens: options.PromptTokens = None
    embed_dropout: options.EmbedDropout = None
    resid_dropout: options.ResidDropout = None
    max_steps: options.MaxSteps = 1000
    global_batch_size: options.GlobalBatchSize = 32
    micro_batch_size: options.MicroBatchSize = "auto"
    length_warmup: options.LengthWarmup = None
    activation_checkpointing: options.ActivationCheckpointing = "auto"
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate; default 6e-4, for head 1e-2, for lora and soft-prompt 1e-3.",
            min=0.0,
            rich_help_panel=TRAINING,
        ),
    ] = None
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Default 0.1, for soft-prompt 0.", min=0.0, rich_help_panel=TRAINING),
    ] = None
    grad_clip: options.GradClip = 1.0
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many evaluations without a better one; default never.",
            min=1,
            rich_help_panel=TRAINING,
        ),
    ] = None
    rc: options.PredictRc = "none"
    eval_every: options.EvalEvery = None
    eval_windows: Annotated[
        int, typer.Option(help="Windows of each species per evaluation.", min=1, rich_help_panel=OUTPUT)
    ] = 64
    no_baseline: options.NoBaseline = False
    keep: options.Keep = 1
    tensorboard: options.TensorBoard = False
    nproc_per_node: options.ProcessesPerNode = None
    resume: options.Resume = False
    force: options.Force = False
    seed: options.Seed = 0
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None


@dataclass(frozen=True, kw_only=True)
class SpeciesEvaluateSettings:
    """Accuracy of a species model by the length of what it reads, on the held-out windows of its own run.

    Lengths beyond the model's window are read in windows and pooled, as predict does.

    Per length: accuracy with its bootstrap interval, the share of windows that reach --threshold and the
    accuracy on these, the accuracy of a linear model of 6-mers fitted to at most 4,000 training windows of
    the same length, precision and recall of every species, and how many windows of each were taken for each
    (human_as_mouse). Windows do not overlap. One process does it all.

    Example: hyena classify-species evaluate run --lengths 256,1024 --plot lengths.svg
    """

    run: Annotated[Path, typer.Argument(help="Run of `hyena classify-species train`.", metavar="RUN")]
    output: options.TableOutput = Path("-")
    output_type: options.OutputType = None
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Bases of a window, as 1024,4096; default 256, 1024 ... up to the model's window.",
            metavar="L,L,...",
        ),
    ] = None
    split: Annotated[str, typer.Option(help="Which windows.", metavar="valid|test")] = "test"
    windows: Annotated[int, typer.Option(help="Windows of each species and length.", min=1)] = 200
    threshold: Annotated[
        float,
        typer.Option(
            help="As that of predict: the share of the windows it answers, and the accuracy on these.",
            min=0.0,
            max=1.0,
            metavar="P",
        ),
    ] = 0.0
    no_baseline: options.NoBaseline = False
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw accuracy against length into this SVG.", metavar="FILE.svg"),
    ] = None
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
