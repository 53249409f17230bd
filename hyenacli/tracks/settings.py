"""Settings of `hyena dependency-map`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class DependencyMapSettings(
    options.ModelOptions, options.GenomeOptions, options.CircularOptions, options.ColumnOptions
):
    """Map which bases of a region a model's predictions depend on.

    Every base is substituted by the three others. Row i, column j of a map is the largest change that this
    makes in the predicted odds of a base at j. Both strands are read: the forward one gives what lies after
    the substitution, the reverse one what lies before it.

    INPUT is a BED (with -f), a FASTA, a table with sequences or - for stdin; -r gives regions of -f instead.
    OUT is .npz or .h5.

    Example: hyena dependency-map -r chr1:1001-1200 -f genome.fa -m run -o maps.npz --plot maps
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="BED, FASTA or table (plain or gzip), - for stdin.", metavar="INPUT"),
    ] = None
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File of the maps, .npz or .h5.", metavar="OUT")
    ]
    measure: Annotated[
        Literal["log2odds", "logp"],
        typer.Option(help="What changes: log2 p/(1-p), or log p in nats."),
    ] = "log2odds"
    symmetrize: Annotated[
        Literal["none", "mean", "max"],
        typer.Option(
            help="none: rows are substituted bases, columns affected ones; else the mean or the larger of "
            "both directions."
        ),
    ] = "none"
    flank: Annotated[
        int,
        typer.Option(
            help="Bases of the genome read as context on each side, as far as the contig and the model go.",
            min=0,
        ),
    ] = 512
    max_length: Annotated[
        int,
        typer.Option(help="Longer records get the status TOO_LONG: cost grows with the square.", min=1),
    ] = 1000
    influence: Annotated[
        Path | None,
        typer.Option(
            help="Track of each base's influence, the mean of its row: .bw, .bedgraph or .bedgraph.gz.",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a picture of each map, made if it is missing.",
            metavar="FOLDER",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    plot_type: Annotated[
        Literal["svg", "png"], typer.Option(help="Type of the pictures.", rich_help_panel=options.OUTPUT)
    ] = "svg"
