"""Settings of `hyena finetune`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options
from hyenacli.options import DATA, MODEL, OUTPUT, TRAINING

SPLITS = "Splits"


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Adapt a model to labelled sequences, and say how well it does on those held out.

    DATA is a table (csv, tsv, Parquet) with the columns sequence and label, a FASTA with headers
    `>name|label`, one FASTA per class as `label=FILE`, a BED with -f, or a folder train/CLASS/*.txt,
    test/CLASS/*.txt.

    The run directory gets the best model by the validation split, metrics.json with bootstrap intervals,
    predictions and report.html. `hyena predict` applies it.

    Example: hyena finetune enhancers.csv -m pretrained -o run --epochs 10
    """

    data: Annotated[
        list[str],
        typer.Argument(help="Labelled sequences; several inputs are joined.", metavar="DATA"),
    ]
    model: options.AdaptedModel
    output: options.RunDirectory
    task: Annotated[
        str,
        typer.Option(
            help="What labels mean; auto tells by what they are.",
            metavar="auto|binary|multiclass|multilabel|regression",
            rich_help_panel=DATA,
        ),
    ] = "auto"
    level: Annotated[
        str,
        typer.Option(
            help="A label for each sequence, or one for each of its bases (`0011`, `0,0,1,1`).",
            metavar="sequence|nucleotide",
            rich_help_panel=DATA,
        ),
    ] = "sequence"
    sequence_column: options.SequenceColumn = "sequence"
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column with labels; default label. Repeatable, or a pattern (`profile_*`) or range "
            "(7-925): several columns are several labels.",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = None
    id_column: options.IdColumn = None
    fasta: Annotated[
        Path | None,
        typer.Option("-f", "--fasta", help="Genome of a BED.", metavar="FASTA", rich_help_panel=DATA),
    ] = None
    bedgraph: Annotated[
        Path | None,
        typer.Option(
            help="Numbers of the bases of a BED's regions: labels at level nucleotide.",
            metavar="FILE",
            rich_help_panel=DATA,
        ),
    ] = None
    contig_style: options.ContigStyle = "auto"
    contig_aliases: options.ContigAliases = None
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Most bases of a training sequence; default what the model takes, with --method icl beside "
            "demonstrations. Of longer ones each epoch reads another window, at level nucleotide all "
            "windows; predictions pool all windows. With --method icl both read the middle.",
            min=1,
            rich_help_panel=DATA,
        ),
    ] = None
    valid: Annotated[
        list[str] | None,
        typer.Option(
            help="File to choose the model by, instead of a share of DATA; repeatable.",
            metavar="FILE",
            rich_help_panel=SPLITS,
        ),
    ] = None
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="File to test on; repeatable. It has no part in any choice.",
            metavar="FILE",
            rich_help_panel=SPLITS,
        ),
    ] = None
    split_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says train, valid or test; default `split` where there is one.",
            metavar="NAME",
            rich_help_panel=SPLITS,
        ),
    ] = None
    valid_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of DATA to choose the model by, where no validation data are named; default 0.1.",
            min=0.0,
            max=0.9,
            rich_help_panel=SPLITS,
        ),
    ] = None
    test_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of DATA to test on, where no test data are named; default 0.1, or none where any "
            "split is named.",
            min=0.0,
            max=0.9,
            rich_help_panel=SPLITS,
        ),
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column whose values splits keep together, such as chrom of a BED.",
            metavar="NAME",
            rich_help_panel=SPLITS,
        ),
    ] = None
    valid_groups: Annotated[
        str | None,
        typer.Option(
            help="Groups, or contigs of a BED, to choose the model by, comma-separated.",
            metavar="NAMES",
            rich_help_panel=SPLITS,
        ),
    ] = None
    test_groups: Annotated[
        str | None,
        typer.Option(
            help="Groups, or contigs of a BED, to test on.", metavar="NAMES", rich_help_panel=SPLITS
        ),
    ] = None
    folds: Annotated[
        int | None,
        typer.Option(
            help="Cross-validation: so many runs, each tested on another part of DATA.",
            min=3,
            rich_help_panel=SPLITS,
        ),
    ] = None
    method: Annotated[
        str,
        typer.Option(
            help="full: all weights. head: a linear head on features computed once. lora, soft-prompt: small "
            "additions to a frozen model, and a head. icl: labels as tokens after demonstrations.",
            metavar="full|head|lora|soft-prompt|icl",
            rich_help_panel=MODEL,
        ),
    ] = "full"
    solver: Annotated[
        str,
        typer.Option(
            help="For --method head: adamw trains as the other methods; sklearn fits in seconds.",
            metavar="adamw|sklearn",
            rich_help_panel=MODEL,
        ),
    ] = "adamw"
    pool: options.Pool = "mean"
    lora_rank: options.LoraRank = None
    lora_alpha: options.LoraAlpha = None
    prompt_tokens: options.PromptTokens = None
    shots: Annotated[
        int | None,
        typer.Option(
            help="Demonstrations of each class before a sequence, with --method icl; default 2.",
            min=0,
            rich_help_panel=MODEL,
        ),
    ] = None
    embed_dropout: options.EmbedDropout = None
    resid_dropout: options.ResidDropout = None
    rc_augment: Annotated[
        bool,
        typer.Option(
            "--rc-augment",
            help="Train on the reverse complement of half the sequences, chosen anew in each epoch.",
            rich_help_panel=TRAINING,
        ),
    ] = False
    class_weights: Annotated[
        str,
        typer.Option(
            help="balanced gives rare classes the weight of frequent ones in the loss.",
            metavar="none|balanced",
            rich_help_panel=TRAINING,
        ),
    ] = "none"
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Times through the training data; default 100, for soft-prompt 20, for icl 1.",
            min=0,
            rich_help_panel=TRAINING,
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many evaluations without a better one; default 10, for soft-prompt 2.",
            min=1,
            rich_help_panel=TRAINING,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b",
            "--batch-size",
            help="Sequences per optimizer step, over all processes; default 128, for soft-prompt 16, for "
            "icl 2.",
            min=1,
            rich_help_panel=TRAINING,
        ),
    ] = None
    micro_batch_size: options.MicroBatchSize = "auto"
    activation_checkpointing: options.ActivationCheckpointing = "auto"
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate; default 6e-4, for head 1e-2, for lora and soft-prompt 1e-3, "
            "for icl 1e-4.",
            min=0.0,
            rich_help_panel=TRAINING,
        ),
    ] = None
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Default 0.1, for soft-prompt and icl 0.", min=0.0, rich_help_panel=TRAINING),
    ] = None
    grad_clip: options.GradClip = 1.0
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Values to try, as lr=1e-4,6e-4; keys lr, weight-decay, embed-dropout, resid-dropout. "
            "Repeatable: all combinations. The validation split chooses, of every fold for itself.",
            metavar="KEY=V,V,...",
            rich_help_panel=TRAINING,
        ),
    ] = None
    seeds: Annotated[
        int,
        typer.Option(help="Runs with so many seeds, from --seed on.", min=1, rich_help_panel=TRAINING),
    ] = 1
    eval_every: Annotated[
        int | None,
        typer.Option(help="Steps between evaluations; default an epoch.", min=1, rich_help_panel=OUTPUT),
    ] = None
    rc: options.PredictRc = "none"
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Scale the head so that probabilities fit the validation split best (temperature).",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    no_baseline: options.NoBaseline = False
    predictions: Annotated[
        str,
        typer.Option(
            help="Type of the table of predictions.", metavar="tsv|tsv.gz|parquet", rich_help_panel=OUTPUT
        ),
    ] = "tsv"
    keep: options.Keep = 1
    tensorboard: options.TensorBoard = False
    nproc_per_node: options.ProcessesPerNode = None
    resume: options.Resume = False
    force: options.Force = False
    seed: options.Seed = 0
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
