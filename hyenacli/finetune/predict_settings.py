"""Settings of `hyena predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Predict with a fine-tuned model: for sequences, for regions of a genome, or for each of their bases.

    INPUT is a table (csv, tsv or Parquet) with a column of sequences, a FASTA, a folder of sequences, a BED
    (with -f) or - for stdin; instead of it, -r names regions of -f. Labels are not needed.

    OUT is .tsv, .tsv.gz, .parquet or .npz: a row per record in input order, or, from a model that predicts
    every base, a row per base. For regions and FASTA, such a model also writes .bedgraph or .bedgraph.gz;
    what could not be predicted is not in it. Under torchrun each process writes its own shard beside OUT,
    and the one that ends last joins them.

    What is longer than the model is read in windows. Every base counts once, with its state from the window
    in which it has the most bases before it, and all are pooled as those of a short sequence are. A model
    that reads demonstrations (`hyena finetune --method icl`) reads the middle only.

    Example: hyena predict peaks.bed -f genome.fa.gz -m run -o predictions.tsv
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="Table, FASTA, folder or BED (plain or gzip), - for stdin.", metavar="INPUT"),
    ] = None
    model: options.Model
    output: options.TableOutput
    fasta: options.Genome = None
    region: options.Regions = None
    output_type: options.OutputType = None
    sequence_column: options.SequenceColumn = "sequence"
    id_column: options.IdColumn = None
    track: Annotated[
        str | None,
        typer.Option(
            help="Which output a bedGraph shows, by its class or name; default the only one, and of two "
            "classes the second.",
            metavar="NAME",
        ),
    ] = None
    rc: Annotated[
        str,
        typer.Option(
            help="Predict from one strand, or the mean over both; auto is what the model was fine-tuned for.",
            metavar="auto|none|mean",
        ),
    ] = "auto"
    stranded: options.Stranded = False
    window: Annotated[
        int | None,
        typer.Option(
            help="Cut longer sequences into windows of this many bases; default the --max-length of the "
            "fine-tuning, or else the model's length.",
            min=1,
        ),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(help="Bases from one window's start to the next; default the window.", min=1),
    ] = None
    contig_style: options.ContigStyle = "auto"
    contig_aliases: options.ContigAliases = None
    shard: options.Shard = None
    batch_size: options.BatchSize = "auto"
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
