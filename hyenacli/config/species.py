"""Settings of `hyena classify-species`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class SpeciesPredictConfig:
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
            help="Predict `unknown` where the likeliest species is less probable; 0 for never.",
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
            "status is not OK, DIR/unclassified.fa.",
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
    force: options.Force = False
    shard: options.Shard = None
    batch_size: options.BatchSize = "auto"
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
