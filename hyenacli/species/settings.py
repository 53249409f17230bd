"""Settings of `hyena classify-species`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options
from hyenacli.adaptation.settings import AdaptationOptions
from hyenacli.options import DATA, MODEL, OUTPUT, TRAINING
from hyenacli.training.settings import StepOptions


@dataclass(frozen=True, kw_only=True)
class SpeciesPredictSettings(options.PredictionOptions, options.RecordTableOptions, options.CircularOptions):
    """Predict which species each contig comes from, among those the model was trained on.

    INPUT is a FASTA or - for stdin. Each contig is read in evenly spaced windows that cover all its bases, on
    both strands unless --rc says otherwise; windows that are more than half N are left out. The
    log-probabilities of its windows are averaged and normalised again: the probabilities of the contig, the
    same for its reverse complement. Where `train` has joined other models on longer pieces, a contig that
    reaches them is read in such pieces instead, and their log-probabilities are averaged. The model can only
    name species it was trained on, whatever the contig is; the shorter the contig, the less certain the
    prediction. Any classifier of `hyena finetune` is taken too: its classes are then the species.

    OUT is .tsv(.gz), .csv, .jsonl, .parquet or .npz with a row per contig in input order: id, length,
    n_windows, n_bases (of the windows, each counted once), status, prediction, probability (of the likeliest
    species) and p_SPECIES for each. A contig without a prediction has no values and another status than OK:
    EMPTY, BAD_LETTER (not a nucleotide), TOO_SHORT (below --min-length) or N_CONTENT (all its windows are
    left out). Under torchrun each process writes a shard beside OUT, and the last to finish joins them.

    Examples:
        hyena classify-species predict contigs.fa.gz -m run -o species.tsv --threshold 0.7
        hyena classify-species predict contigs.fa.gz -m run -o top3.tsv --top 3
        hyena classify-species predict - -m run -o - --per-window windows.tsv
    """

    input: Annotated[
        Path, typer.Argument(help="FASTA of contigs (plain or gzip), - for stdin.", metavar="INPUT")
    ]
    min_length: Annotated[
        int, typer.Option(help="Shorter contigs get the status TOO_SHORT.", min=1, metavar="BASES")
    ] = 500
    threshold: Annotated[
        float,
        typer.Option(
            help="Predict `unknown` if the likeliest species is less probable than this, for contigs and "
            "windows; 0: never. `evaluate --threshold` measures the effect.",
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the directory of --split-fasta holds.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class SpeciesTrainSettings(StepOptions, AdaptationOptions, options.CircularOptions):
    """Train a model to classify windows of genomes by species.

    SPECIES.yaml has a line for each species and its files: `human: hg38.fa`, `mouse: [a.fa, b.fa]`, or
    `pig: {fasta: pig.fa, valid: [chr1], test: [chr5]}`; or use --species. All species are drawn equally
    often, their windows uniformly over all bases. Whole contigs are held out, or blocks if a species has too
    few contigs. Sequence that the splits share is reported.

    The run directory gets the model that is best on the validation windows, calibrated on them,
    metrics.json, report.html and splits.bed, which lists what is held out. A warning names contigs that two
    species or splits share, and held-out splits with more than 5 % of their 31-mers in the training split.

    Examples:
        hyena classify-species train --species human=hg38.fa --species mouse=mm10.fa -m pretrained -o run
        hyena classify-species train species.yaml -m hyenadna-small-32k -o run --experts markov
        hyena classify-species train species.yaml -m pretrained -o run --resume
    """

    species_file: Annotated[
        Path | None, typer.Argument(help="YAML of species and their FASTA files.", metavar="SPECIES.yaml")
    ] = None
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
            help="Hold out the same chromosomes as the paper: 1, 3, 12, 13 to validate, 5, 7, 9, 10, 11 to "
            "test; Y of some species, M and unplaced contigs are left out. For human, lemur, mouse, pig, "
            "hippo, goat, sheep, gorilla, orangutan and chimpanzee; valid and test in SPECIES.yaml win.",
            rich_help_panel=DATA,
        ),
    ] = False
    valid_fraction: Annotated[
        float,
        typer.Option(
            help="Share of each genome to choose the best model with.", min=0.0, max=0.5, rich_help_panel=DATA
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
            help="Draw half of the training windows from the reverse strand: contigs have no strand.",
            rich_help_panel=TRAINING,
        ),
    ] = True
    rc: Annotated[
        Literal["none", "mean"],
        typer.Option(
            help="mean: predict from both strands, so that the strand a contig is written in makes no "
            "difference; none: from one. Stored with the model.",
            rich_help_panel=OUTPUT,
        ),
    ] = "mean"
    method: Annotated[
        Literal["full", "head", "lora", "soft-prompt"],
        typer.Option(
            help="full: train all weights; head: train a linear head on a frozen model; lora, soft-prompt: "
            "train small additions to a frozen model, and a head.",
            rich_help_panel=MODEL,
        ),
    ] = "full"
    experts: Annotated[
        Literal["auto", "kmers", "markov", "none"],
        typer.Option(
            help="Join the model with Markov models (order 6, 8, 10) of all training bases of each species "
            "and the linear k-mer model that it is compared with, weighted by the validation windows, and "
            "again by pieces of 4, 16 ... windows for contigs that long: kmers or markov that one always, "
            "none neither, auto what predicts these windows best.",
            rich_help_panel=MODEL,
        ),
    ] = "auto"
    eval_windows: Annotated[
        int, typer.Option(help="Windows of each species per evaluation.", min=1, rich_help_panel=OUTPUT)
    ] = 64


@dataclass(frozen=True, kw_only=True)
class SpeciesEvaluateSettings(options.ComputeOptions, options.TableOutputOptions):
    """Measure the accuracy of a species model by window length, on the held-out windows of its run.

    Lengths beyond the model's window are read in several windows and pooled, as `predict` does.

    For each length: accuracy with its bootstrap interval, the share of windows that reach --threshold and
    the accuracy on these, precision and recall of each species, and how many windows of one species were
    predicted as another (human_as_mouse); beside it the accuracy of the network alone where others join it,
    of the Markov models alone, and of a linear model of k-mers fitted to at most 4,000 training windows of
    the same length, each with how far the model is above it, and the paired interval of that. Windows do not
    overlap. Runs in one process only.

    Examples:
        hyena classify-species evaluate run --lengths 256,1024 --plot lengths.svg
        hyena classify-species evaluate run -o accuracy.tsv
        hyena classify-species evaluate run --threshold 0.7
    """

    run: Annotated[Path, typer.Argument(help="Run of `hyena classify-species train`.", metavar="RUN")]
    output: options.TableOutput = Path("-")
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Window lengths in bases, as 1024,4096; default 256, 1024 ... up to the model's window, and "
            "the lengths of pieces that long contigs are read in.",
            metavar="L,L,...",
        ),
    ] = None
    split: Annotated[Literal["valid", "test"], typer.Option(help="Split whose windows are read.")] = "test"
    windows: Annotated[int, typer.Option(help="Windows of each species and length.", min=1)] = 200
    threshold: Annotated[
        float,
        typer.Option(
            help="Probability threshold of `predict`: report the share of windows that reach it, and the "
            "accuracy on these.",
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
