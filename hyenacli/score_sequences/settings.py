"""Settings of `hyena score-sequences`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class ScoreSequencesSettings(
    options.ModelOptions,
    options.RecordTableOptions,
    options.RegionOptions,
    options.FeatureOptions,
    options.CircularOptions,
    options.ColumnOptions,
    options.WindowOptions,
    options.ShardOptions,
):
    """Score how likely a model finds sequences, in bits per base: 2 is guessing, less is more likely.

    INPUT is FASTA, FASTQ, a table with sequences, a BED (with -f) or - for stdin; -r gives regions of -f
    instead. Each base is predicted from those before it, on both strands. With --background, each sequence
    gets its quantile among sequences of a genome: near 1, it looks unlike them.

    OUT is .tsv(.gz), .csv, .parquet, .jsonl or .npz.

    Examples:
        hyena score-sequences contigs.fa -m run --background genome.fa -o scores.tsv
        hyena score-sequences peaks.bed -f genome.fa.gz -m run -o scores.parquet
        hyena score-sequences genes.gff3 -f genome.fa.gz --feature CDS -m run -o -
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="FASTA, FASTQ, table or BED (plain or gzip), - for stdin.", metavar="INPUT"),
    ] = None
    rc: Annotated[
        Literal["mean", "none"],
        typer.Option(help="mean: read both strands; none: the forward strand only, at half the cost."),
    ] = "mean"
    flank: Annotated[
        int,
        typer.Option(
            help="Bases of the genome read as context on each side of a region, not counted.",
            min=0,
        ),
    ] = 0
    background: Annotated[
        Path | None,
        typer.Option(
            help="FASTA to compare with, such as the genome the model was trained on: adds the column "
            "quantile.",
            metavar="FASTA",
        ),
    ] = None
    background_windows: Annotated[
        int,
        typer.Option(
            help="Random windows of the background to compare with, about as long as the sequence (64 to "
            "8,192 bases); 0: its whole records.",
            min=0,
        ),
    ] = 200
    seed: Annotated[int, typer.Option(help="Seed of the random windows.", min=0)] = 0
