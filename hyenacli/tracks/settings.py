"""Settings of `hyena dependency-map`, `hyena track` and `hyena attribute`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class DependencyMapSettings(
    options.ModelOptions,
    options.GenomeOptions,
    options.CircularOptions,
    options.ColumnOptions,
    options.ShardOptions,
):
    """Map which bases of a region a model's predictions depend on.

    Every base is substituted by the three others. Row i, column j of a map is the largest change that this
    makes in the predicted odds of a base at j. Both strands are read: the forward one gives what lies after
    the substitution, the reverse one what lies before it.

    INPUT is a BED (with -f), a FASTA, a table with sequences or - for stdin; -r gives regions of -f instead.
    OUT is .npz or .h5.

    Examples:
        hyena dependency-map -r chr1:1001-1200 -f genome.fa -m run -o maps.npz --plot maps
        hyena dependency-map sites.bed -f genome.fa -m run -o maps.h5
        hyena dependency-map rnas.fa -m run -o maps.npz --plot maps
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
    decay: Annotated[
        Path | None,
        typer.Option(
            help="Table of the mean change by distance, over all maps: .tsv, .csv, .parquet or .npz.",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    decay_plot: Annotated[
        Path | None,
        typer.Option(
            help="Picture (SVG) of the share of the change within a distance, beside that of the filters.",
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


@dataclass(frozen=True, kw_only=True)
class TrackSettings(options.ModelOptions, options.ContigNameOptions, options.ShardOptions):
    """Write a number for every base: how probable a model finds it, or how sure the model is.

    INPUT is a BED; -r gives regions, --all the whole genome. Every base gets one number, read on both
    strands, with at least --context bases before it unless the contig ends. N have none.

    OUT is .bw, .bedgraph, .bedgraph.gz or .npz; a logo makes four tracks, OUT.A.bw and so on.

    Examples:
        hyena track --all -f genome.fa -m run -o logp.bw
        hyena track genes.bed -f genome.fa -m run -o entropy.bedgraph --value entropy
        hyena track -r chr1:1001-2000 -f genome.fa -m run -o logo.bw --value logo
    """

    input: Annotated[Path | None, typer.Argument(help="BED (plain or gzip), - for stdin.", metavar="BED")] = (
        None
    )
    fasta: Annotated[
        Path, typer.Option("-f", "--fasta", help="Genome FASTA (plain, bgzip or gzip).", metavar="FASTA")
    ]
    region: options.Regions = None
    output: Annotated[Path, typer.Option("-o", "--output", help="File of the track.", metavar="OUT")]
    all_contigs: Annotated[bool, typer.Option("--all", help="Read all contigs of the genome.")] = False
    value: Annotated[
        Literal["logp", "entropy", "information", "logo"],
        typer.Option(
            help="logp: log p of the base, in nats; entropy: of A, C, G and T, in bits; information: 2 less "
            "the entropy; logo: probability times information of each letter."
        ),
    ] = "logp"
    strand: Annotated[
        Literal["mean", "forward", "reverse"],
        typer.Option(help="Predict from the bases before it (forward), after it (reverse), or both."),
    ] = "mean"
    window: Annotated[
        int | None,
        typer.Option(
            help="Bases read at once; default what the model takes, at most 8,192.", min=2, metavar="BASES"
        ),
    ] = None
    context: Annotated[
        int | None,
        typer.Option(
            help="Bases of a window that are read as context only; default window / 8.",
            min=1,
            metavar="BASES",
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with what an interrupted run has left.", rich_help_panel=options.OUTPUT
        ),
    ] = False
    hub: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a UCSC track hub that shows the bigWigs.",
            metavar="FOLDER",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    assembly: Annotated[
        str | None,
        typer.Option(
            help="UCSC's name of the genome, as hg38, for the hub.",
            metavar="NAME",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class AttributeSettings(options.ModelOptions, options.RegionOptions, options.ColumnOptions):
    """Show which bases a prediction, or the likelihood of a region, rests on.

    A fine-tuned model is attributed by a class, a label or a number it predicts; any other model by the
    likelihood it gives the region, as it is with --target likelihood.

    ism substitutes every base by the three others. gradient is input x gradient, which takes one pass. Both
    are relative to the mean of the four bases. integrated sums gradients on the way from shuffled sequences.

    INPUT is a BED (with -f), a FASTA, a table with sequences or - for stdin; -r gives regions of -f instead.
    OUT is .npz or .h5, with the arrays one_hot and attributions, (N, 4, L).

    Examples:
        hyena attribute peaks.bed -f genome.fa -m run --target enhancer -o attributions.npz
        hyena attribute peaks.bed -f genome.fa -m run -o attributions.h5 --method ism
        hyena attribute sequences.fa -m run -o attributions.npz --seqlets seqlets.bed
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="BED, FASTA or table (plain or gzip), - for stdin.", metavar="INPUT"),
    ] = None
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File of the attributions, .npz or .h5.", metavar="OUT")
    ]
    target: Annotated[
        str | None,
        typer.Option(
            help="Class, label or output to attribute, or likelihood; default the only one, the second of "
            "two classes, or the predicted one of several.",
            metavar="NAME",
        ),
    ] = None
    method: Annotated[
        Literal["ism", "gradient", "integrated"],
        typer.Option(help="In-silico mutagenesis, input x gradient, or integrated gradients."),
    ] = "ism"
    rc: Annotated[
        Literal["auto", "none", "mean"],
        typer.Option(
            help="Attribute the prediction from the forward strand, or the mean of both; auto: as the model "
            "was trained for, of a likelihood both."
        ),
    ] = "auto"
    max_length: Annotated[
        int,
        typer.Option(
            help="Longer records get the status TOO_LONG, and so do those above the model's window with "
            "gradients and of a likelihood.",
            min=1,
        ),
    ] = 2000
    flank: Annotated[
        int | None,
        typer.Option(
            help="Bases of the genome read as context on each side for a likelihood, as far as the contig "
            "and the model go; default 512.",
            min=0,
            metavar="BASES",
        ),
    ] = None
    references: Annotated[
        int, typer.Option(help="Shuffled sequences of each record for integrated gradients.", min=1)
    ] = 20
    seed: Annotated[int, typer.Option(help="Seed of the shuffled sequences.", min=0)] = 0
    seqlets: Annotated[
        Path | None,
        typer.Option(
            help="BED (.bed) of the spans whose attributions stand out from those of shuffled sequences.",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    fdr: Annotated[
        float,
        typer.Option(
            help="Highest false-discovery rate of seqlets.", min=0, max=1, rich_help_panel=options.OUTPUT
        ),
    ] = 0.1
    null: Annotated[
        int,
        typer.Option(
            help="Shuffled sequences of each record that are attributed as well, to tell which seqlets "
            "chance gives.",
            min=1,
            rich_help_panel=options.OUTPUT,
        ),
    ] = 2
    track: Annotated[
        Path | None,
        typer.Option(
            help="Track of the attribution of the base that stands there: .bw, .bedgraph or .bedgraph.gz.",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    modisco: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the two files that TF-MoDISco reads, ohe.npz and attr.npz.",
            metavar="FOLDER",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
