"""Settings of `hyena score-variants`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options

SCORING, CHECKS = "What is scored", "Checks"


@dataclass(frozen=True, kw_only=True)
class ScoreVariantsSettings:
    """Score variants: how much less, or more, the model expects the ALT haplotype than the REF haplotype.

    Each line passes through with HYENA_LLR (the sum of log p(ALT) - log p(REF), in nats, from the first base
    that differs on, p over A C G T, mean of both strands) and HYENA_STATUS in INFO, one value per ALT.
    Negative: ALT is the less likely. This is no pathogenicity score: zero-shot, HyenaDNA is near chance on
    disease variants.

    INPUT is VCF, BCF, or a table with the columns chrom, pos, ref and alt; plain, gzip or bgzip; - is stdin.
    OUT is .vcf, .vcf.gz, .bcf, .tsv or .parquet. Under torchrun each process writes its own shard beside OUT,
    and the one that ends last joins them.

    Example: hyena score-variants calls.vcf.gz -m run -f genome.fa.gz -o scored.vcf.gz
    """

    input: Annotated[
        Path | None,
        typer.Argument(
            help="VCF, BCF or table of variants, - for stdin; with --all-snvs a BED.", metavar="INPUT"
        ),
    ] = None
    model: options.Model
    fasta: Annotated[
        Path, typer.Option("-f", "--fasta", help="Genome FASTA (plain, bgzip or gzip).", metavar="FASTA")
    ]
    output: options.TableOutput = Path("-")
    output_type: options.OutputType = None
    region: options.Regions = None
    regions_file: options.RegionsFile = None
    all_snvs: Annotated[
        bool,
        typer.Option(
            "--all-snvs",
            help="Score every substitution in the regions of a BED, or of -r, instead of a file's variants.",
            rich_help_panel=SCORING,
        ),
    ] = False
    heatmap: Annotated[
        Path | None,
        typer.Option(
            help="With --all-snvs: draw the first score of every region, as an SVG, into this directory.",
            metavar="DIR",
            rich_help_panel=SCORING,
        ),
    ] = None
    score: Annotated[
        str,
        typer.Option(
            help="Some of llr, site (the first base that differs alone), cosine and l2 (distances of the "
            "mean embeddings from there on), comma-separated. site alone is many times faster.",
            metavar="NAMES",
            rich_help_panel=SCORING,
        ),
    ] = "llr"
    rc: Annotated[
        str,
        typer.Option(
            help="mean of both strands, or none: the forward strand alone.",
            metavar="mean|none",
            rich_help_panel=SCORING,
        ),
    ] = "mean"
    window: Annotated[
        int | None,
        typer.Option(
            help="Bases of a haplotype that are read; default the model's length, at most 8192.",
            min=2,
            rich_help_panel=SCORING,
        ),
    ] = None
    grid: Annotated[
        int | None,
        typer.Option(
            help="Windows start at multiples of this, and variants of one window share most of the work: a "
            "site lies window/2 to window/2 + grid bases into it. 1 centres each. Default window/8.",
            min=1,
            rich_help_panel=SCORING,
        ),
    ] = None
    downstream: Annotated[
        int | None,
        typer.Option(
            help="Score only so many bases from the site on: faster, whatever the window. Default: to the "
            "window's end.",
            min=1,
            rich_help_panel=SCORING,
        ),
    ] = None
    max_allele: Annotated[
        int | None,
        typer.Option(
            help="Longest allele that is scored, in bases without what REF and ALT share; default window/4.",
            min=1,
            rich_help_panel=CHECKS,
        ),
    ] = None
    check_ref: Annotated[
        str,
        typer.Option(
            help="REF that is not the genome's: w keeps the record unscored and warns, x leaves it out, e "
            "is an error.",
            metavar="w|x|e",
            rich_help_panel=CHECKS,
        ),
    ] = "w"
    contig_style: options.ContigStyle = "auto"
    contig_aliases: options.ContigAliases = None
    no_version: Annotated[
        bool, typer.Option("--no-version", help="Leave version, command and model out of the header.")
    ] = False
    shard: options.Shard = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted run, whose scores so far lie beside OUT, if there is one.",
        ),
    ] = False
    batch_size: Annotated[
        str,
        typer.Option("-b", "--batch-size", help="Windows per forward pass, or auto.", metavar="N|auto"),
    ] = "auto"
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
