"""Settings of `hyena finetune` and `hyena predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options
from hyenacli.adaptation.settings import AdaptationOptions
from hyenacli.options import DATA, MODEL, OUTPUT, SPLITS, TRAINING


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(
    AdaptationOptions, options.ColumnOptions, options.ContigNameOptions, options.FeatureOptions
):
    """Adapt a model to labelled sequences, and measure how well it predicts held-out ones.

    DATA is a table (csv, tsv, Parquet, JSON Lines) with the columns sequence and label, a FASTA with headers
    `>name|label` or `>name|label|train`, one FASTA per class as `label=FILE`, a BED with -f, or a folder
    train/CLASS/*.txt, test/CLASS/*.txt.

    The run directory gets the model that is best on the validation split, metrics.json with bootstrap
    intervals, predictions and report.html. `hyena predict` applies the model.

    Examples:
        hyena finetune enhancers.csv -m hyenadna-tiny-1k -o run --epochs 10
        hyena finetune peaks.bed -f genome.fa.gz -m pretrained -o run --method lora --rc-augment
        hyena finetune train.tsv --test test.tsv -m pretrained -o run --method head --folds 5
    """

    data: Annotated[
        list[str],
        typer.Argument(help="Labelled sequences; several inputs are joined.", metavar="DATA"),
    ]
    task: Annotated[
        Literal["auto", "binary", "multiclass", "multilabel", "regression"],
        typer.Option(
            help="What the labels are; auto infers it from them.",
            rich_help_panel=DATA,
        ),
    ] = "auto"
    level: Annotated[
        Literal["sequence", "nucleotide"],
        typer.Option(
            help="One label per sequence, or one per base (`0011`, `0,0,1,1`).",
            rich_help_panel=DATA,
        ),
    ] = "sequence"
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column with labels; default label. Repeat it, or give a pattern (`profile_*`) or a range "
            "(7-925), for several labels.",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = None
    fasta: Annotated[
        Path | None,
        typer.Option("-f", "--fasta", help="Genome FASTA of a BED.", metavar="FASTA", rich_help_panel=DATA),
    ] = None
    bedgraph: Annotated[
        Path | None,
        typer.Option(
            help="Labels of the bases of a BED's regions, as a bedGraph or bigWig: sets --level nucleotide. "
            "Bases without a number have no label.",
            metavar="FILE",
            rich_help_panel=DATA,
        ),
    ] = None
    valid: Annotated[
        list[str] | None,
        typer.Option(
            help="File to choose the best model with, instead of a share of DATA; repeatable.",
            metavar="FILE",
            rich_help_panel=SPLITS,
        ),
    ] = None
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="File to test on; repeatable. Nothing is chosen by it.",
            metavar="FILE",
            rich_help_panel=SPLITS,
        ),
    ] = None
    split_column: Annotated[
        str | None,
        typer.Option(
            help="Column with train, valid or test; default `split`, if the table has it.",
            metavar="NAME",
            rich_help_panel=SPLITS,
        ),
    ] = None
    valid_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of DATA to choose the best model with, if no validation data are given; default 0.1.",
            min=0.0,
            max=0.9,
            rich_help_panel=SPLITS,
        ),
    ] = None
    test_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of DATA to test on, if no test data are given; default 0.1, or 0 if any split is "
            "given.",
            min=0.0,
            max=0.9,
            rich_help_panel=SPLITS,
        ),
    ] = None
    split_by: Annotated[
        Literal["sequence", "similarity"],
        typer.Option(
            help="What stays in one split, where the tool makes it: equal sequences, or those that share "
            "31-mers, with each other or through others.",
            rich_help_panel=SPLITS,
        ),
    ] = "sequence"
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column of groups: rows of one group stay in one split, such as chrom of a BED.",
            metavar="NAME",
            rich_help_panel=SPLITS,
        ),
    ] = None
    valid_groups: Annotated[
        str | None,
        typer.Option(
            help="Groups, or contigs of a BED, to choose the best model with, comma-separated.",
            metavar="NAMES",
            rich_help_panel=SPLITS,
        ),
    ] = None
    test_groups: Annotated[
        str | None,
        typer.Option(
            help="Groups, or contigs of a BED, to test on, comma-separated.",
            metavar="NAMES",
            rich_help_panel=SPLITS,
        ),
    ] = None
    folds: Annotated[
        int | None,
        typer.Option(
            help="Cross-validation: this many runs, each tested on another part of DATA.",
            min=3,
            rich_help_panel=SPLITS,
        ),
    ] = None
    solver: Annotated[
        Literal["auto", "adamw", "sklearn"],
        typer.Option(
            help="For --method head: sklearn fits in seconds, adamw trains in steps as the other methods do; "
            "auto: sklearn for labels of sequences, unless a flag of steps, as --epochs, is given.",
            rich_help_panel=MODEL,
        ),
    ] = "auto"
    layers: Annotated[
        str | None,
        typer.Option(
            help="Keep this many of the model's layers, the first ones; default all. auto: the validation "
            "split chooses, for heads that scikit-learn fits, in as many passes.",
            metavar="N|auto",
            rich_help_panel=MODEL,
        ),
    ] = None
    # these two have a word more than in the other verbs
    pool: Annotated[
        Literal["mean", "last", "max", "auto"],
        typer.Option(
            help="How the states of the bases become one vector for the head. auto: the validation split "
            "chooses, for heads that scikit-learn fits, in three times the time.",
            rich_help_panel=MODEL,
        ),
    ] = "mean"  # type: ignore[assignment]
    rc: Annotated[
        Literal["auto", "none", "mean"],
        typer.Option(
            help="mean: predict from a sequence and its reverse complement; stored with the model. auto: "
            "none where a BED gives strands, and for labels of bases; for heads that scikit-learn fits the "
            "validation split chooses; else mean, trained with --rc-augment.",
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"  # type: ignore[assignment]
    experts: Annotated[
        Literal["auto", "kmers", "none"],
        typer.Option(
            help="Join the model with the linear k-mer model that it is compared with: kmers always, none "
            "never, auto where the validation split is predicted better.",
            rich_help_panel=MODEL,
        ),
    ] = "auto"
    shots: Annotated[
        int | None,
        typer.Option(
            help="Examples of each class before a sequence, with --method icl; default 2.",
            min=0,
            rich_help_panel=MODEL,
        ),
    ] = None
    class_weights: Annotated[
        Literal["none", "balanced"],
        typer.Option(
            help="balanced: rare classes weigh as much as frequent ones in the loss.",
            rich_help_panel=TRAINING,
        ),
    ] = "none"
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes through the training data; default 100 (full and lora on a CPU 10), for soft-prompt "
            "20, for icl 1.",
            min=0,
            rich_help_panel=TRAINING,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b",
            "--batch-size",
            help="Sequences per optimizer step, over all processes; default 128 (full and lora on a "
            "CPU 32), for soft-prompt 16, for icl 2.",
            min=1,
            rich_help_panel=TRAINING,
        ),
    ] = None
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Values to try, as lr=1e-4,6e-4; keys lr, weight-decay, embed-dropout, resid-dropout. If "
            "repeated, all combinations are tried. The validation split chooses, for each fold.",
            metavar="KEY=V,V,...",
            rich_help_panel=TRAINING,
        ),
    ] = None
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of runs, each with its own seed, from --seed on.", min=1, rich_help_panel=TRAINING
        ),
    ] = 1
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Scale the head so that probabilities fit the validation split best (temperature scaling).",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    predictions: Annotated[
        Literal["tsv", "tsv.gz", "parquet"],
        typer.Option(help="File type of the tables of predictions.", rich_help_panel=OUTPUT),
    ] = "tsv"


@dataclass(frozen=True, kw_only=True)
class PredictSettings(
    options.PredictionOptions,
    options.RecordTableOptions,
    options.RegionOptions,
    options.FeatureOptions,
    options.ColumnOptions,
):
    """Predict with a fine-tuned model: for sequences, for regions of a genome, or for each of their bases.

    INPUT is a table (csv, tsv, Parquet or JSON Lines) with a column of sequences, a FASTA, a folder of
    sequences, a BED (with -f) or - for stdin; -r gives regions of -f instead. Labels are not needed.

    OUT is .tsv(.gz), .csv, .jsonl, .parquet or .npz: a row per record in input order, or, from a model that
    predicts every base, a row per base. For regions and FASTA, such a model also writes .bedgraph or
    .bedgraph.gz, for regions .bw, all of which leave out what could not be predicted. Under torchrun each
    process writes a shard beside OUT, and the last to finish joins them.

    A sequence longer than the model takes is read in windows. Each base counts once, from the window with the
    most bases before it, and all are pooled together. A model of `hyena finetune --method icl` reads only the
    middle of such a sequence.

    Examples:
        hyena predict peaks.bed -f genome.fa.gz -m run -o predictions.tsv
        hyena predict sequences.fa -m run -o - --rc mean
        hyena predict genes.gff3 -f genome.fa.gz --feature gene -m run -o predictions.parquet
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="Table, FASTA, folder or BED (plain or gzip), - for stdin.", metavar="INPUT"),
    ] = None
    track: Annotated[
        str | None,
        typer.Option(
            help="Class or output of a bedGraph or bigWig; default the only one, or the second of two.",
            metavar="NAME",
        ),
    ] = None
