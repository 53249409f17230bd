"""Settings of `hyena embed`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options
from hyenacli.options import OUTPUT


@dataclass(frozen=True, kw_only=True)
class EmbedSettings(
    options.ModelOptions,
    options.RecordTableOptions,
    options.RegionOptions,
    options.FeatureOptions,
    options.ColumnOptions,
    options.CircularOptions,
    options.WindowOptions,
    options.ShardOptions,
):
    """Embed regions of a genome, or whole sequences: one vector per region, in input order.

    INPUT is a BED, GFF, GTF, GenBank or EMBL (with -f), FASTA, FASTQ, a table with a column of sequences, a
    folder of sequences, or - for stdin; -r gives regions of -f instead. By default the vector is the mean
    over the region's bases of the last layer after the final norm.

    OUT is .parquet, .tsv(.gz), .csv, .jsonl, .npz or .h5ad, or, with --pool none, .h5 in half precision.
    Under torchrun each process writes a shard beside OUT, and the last to finish joins them.

    A base in overlapping windows counts once, from the window with the most bases before it.

    Examples:
        hyena embed peaks.bed -f genome.fa.gz -m run -o peaks.parquet
        hyena embed genes.gff3 -f genome.fa.gz --feature gene -m hyenadna-small-32k -o genes.h5ad
        hyena embed contigs.fa.gz -m run -o contigs.npz --rc mean --shard 1/8
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="BED, annotation, FASTA, FASTQ, table or folder; - for stdin.", metavar="INPUT"),
    ] = None
    pool: Annotated[
        str,
        typer.Option(
            help="mean, last, max, center:N (mean of the N central bases) or none (a row per base).",
            metavar="POOL",
            autocompletion=options.completing("mean", "last", "max", "center:", "none"),
        ),
    ] = "mean"
    layer: Annotated[
        str,
        typer.Option(
            help="-1: last, after the final norm; K: after block K (1-based); all: every block and -1.",
            metavar="-1|K|all",
            autocompletion=options.completing("all"),
        ),
    ] = "-1"
    flank: Annotated[
        int,
        typer.Option(
            help="Bases of the genome read as context on each side of a region, not pooled. The model reads "
            "left to right: bases after the region change nothing unless --rc is set.",
            min=0,
        ),
    ] = 0
    rc: Annotated[
        Literal["none", "mean", "concat"],
        typer.Option(
            help="Also read the reverse complement: take the mean of both vectors, or concatenate them.",
        ),
    ] = "none"
    map: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the vectors in two dimensions, a point per record: .svg, or .html with names of "
            "the points and a table.",
            metavar="FILE",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    color_by: Annotated[
        str | None,
        typer.Option(
            help="Column of OUT, attribute of features or column of a table that colours the map: the ten "
            "most frequent texts, or numbers. It is also predicted from the vectors, and from k-mers.",
            metavar="COLUMN",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    map_method: Annotated[
        Literal["pca", "tsne", "umap"],
        typer.Option(
            help="pca: the two directions of most variance. tsne, umap: neighbours stay neighbours; umap "
            "needs the package umap-learn.",
            rich_help_panel=OUTPUT,
        ),
    ] = "pca"
