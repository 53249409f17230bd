"""Settings of `hyena embed`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """Embed regions of a genome, or whole sequences: one vector per region, in input order.

    INPUT is a BED (with -f), a FASTA or - for stdin; instead of it, -r names regions of -f. By default the
    vector is the mean over the region's bases of the last layer after the final norm.

    OUT is .parquet, .tsv, .tsv.gz, .npz or .h5ad, or, with --pool none, .h5 in half precision. Under torchrun
    each process writes its own shard beside OUT, and the one that ends last joins them.

    Example: hyena embed peaks.bed -f genome.fa.gz -m run -o peaks.parquet
    """

    input: Annotated[
        Path | None, typer.Argument(help="BED or FASTA (plain or gzip), - for stdin.", metavar="INPUT")
    ] = None
    model: options.Model
    output: options.TableOutput
    fasta: options.Genome = None
    region: options.Regions = None
    output_type: options.OutputType = None
    pool: Annotated[
        str,
        typer.Option(
            help="mean, last, max, center:N (mean of the N central bases) or none (a row per base).",
            metavar="POOL",
        ),
    ] = "mean"
    layer: Annotated[
        str,
        typer.Option(
            help="-1: last, after the final norm; K: after block K (1-based); all: every block and -1.",
            metavar="-1|K|all",
        ),
    ] = "-1"
    flank: Annotated[
        int,
        typer.Option(
            help="Bases of genome read on each side as context, up to the contig's end; they are not pooled. "
            "The model reads left to right, so those after the region matter only with --rc.",
            min=0,
        ),
    ] = 0
    rc: Annotated[
        str,
        typer.Option(
            help="Also read the reverse complement, and take the mean of both or concatenate them.",
            metavar="none|mean|concat",
        ),
    ] = "none"
    stranded: options.Stranded = False
    window: Annotated[
        int | None,
        typer.Option(
            help="Cut longer regions into windows of this many bases; default the model's length.", min=1
        ),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(
            help="Bases from one window's start to the next; default the window. Where windows overlap, a "
            "base counts once, from the window in which it has the most bases before it.",
            min=1,
        ),
    ] = None
    contig_style: options.ContigStyle = "auto"
    contig_aliases: options.ContigAliases = None
    shard: options.Shard = None
    batch_size: options.BatchSize = "auto"
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
