"""Settings of `hyena score-variants`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyenacli import options

SCORING, CHECKS = "What is scored", "Checks"
# Names of `variants.scores.SCORES`, which imports torch.
SCORES = ("llr", "site", "jsd", "cosine", "l2")


@dataclass(frozen=True, kw_only=True)
class ScoreVariantsSettings(
    options.ModelOptions,
    options.RecordTableOptions,
    options.ContigNameOptions,
    options.CircularOptions,
    options.ShardOptions,
):
    """Score variants: how likely the ALT haplotype is to the model, compared with the REF haplotype.

    Each line is copied, with HYENA_LLR and HYENA_STATUS added to INFO, one value per ALT. HYENA_LLR is the
    sum of log p(ALT) - log p(REF) in nats, from the first base that differs, p over A C G T, mean of both
    strands. Negative: ALT is less likely than REF. It is not a pathogenicity score: zero-shot, HyenaDNA is
    near chance on disease variants.

    INPUT is VCF, BCF, or a table with the columns chrom, pos, ref and alt; plain, gzip or bgzip; - is stdin;
    or variants themselves: 'chr1:12345:A>G chr1:12350:AT>A' (positions count from 1).
    OUT is .vcf, .vcf.gz, .bcf, .tsv, .csv or .parquet. Under torchrun each process writes a shard beside
    OUT, and the last to finish joins them.

    Examples:
        hyena score-variants calls.vcf.gz -m run -f genome.fa.gz -o scored.vcf.gz
        hyena score-variants calls.vcf.gz -m run -f genome.fa.gz -o scored.tsv --report scores.html
        hyena score-variants --all-snvs -r chr1:1001-1200 -m run -f genome.fa.gz -o snvs.tsv --heatmap maps
    """

    input: Annotated[
        Path | None,
        typer.Argument(
            help="VCF, BCF or table of variants, - for stdin, or variants such as 'chr1:12345:A>G', "
            "separated by blanks; with --all-snvs a BED.",
            metavar="INPUT",
        ),
    ] = None
    fasta: Annotated[
        Path, typer.Option("-f", "--fasta", help="Genome FASTA (plain, bgzip or gzip).", metavar="FASTA")
    ]
    output: options.TableOutput = Path("-")
    region: options.Regions = None
    regions_file: Annotated[
        Path | None,
        typer.Option("-R", "--regions-file", help="Only the regions of this BED (0-based).", metavar="BED"),
    ] = None
    all_snvs: Annotated[
        bool,
        typer.Option(
            "--all-snvs",
            help="Score every substitution in the regions of a BED, or of -r, instead of the variants of a "
            "file.",
            rich_help_panel=SCORING,
        ),
    ] = False
    heatmap: Annotated[
        Path | None,
        typer.Option(
            help="With --all-snvs: write a heat map of the first score of each region, as SVG, into this "
            "directory.",
            metavar="DIR",
            rich_help_panel=SCORING,
        ),
    ] = None
    score: Annotated[
        str,
        typer.Option(
            help="One or more of llr, site (only the first base that differs), jsd (divergence of the "
            "predictions after it), cosine and l2 (distances of the mean embeddings from it on), "
            "comma-separated. site alone is many times faster.",
            metavar="NAMES",
            autocompletion=options.completing(*SCORES, listed=True),
            rich_help_panel=SCORING,
        ),
    ] = "llr"
    quantile: Annotated[
        str | None,
        typer.Option(
            help="Add a quantile to each score (HYENA_LLR_QUANTILE): the share of N random "
            "substitutions of the genome, or of the alleles of a file, with a lower score.",
            metavar="N|VCF",
            rich_help_panel=SCORING,
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(help="Seed of the random substitutions.", min=0, rich_help_panel=SCORING)
    ] = 0
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Add to each score of a substitution its difference (HYENA_LLR_CALIBRATED) from the mean of "
            "the same substitution in its five-base context; TABLE is from --write-calibration.",
            metavar="TABLE",
            rich_help_panel=SCORING,
        ),
    ] = None
    write_calibration: Annotated[
        Path | None,
        typer.Option(
            help="Write these means, 3,072 of them, of the variants of this run: neutral ones, such as "
            "--all-snvs of neutral regions.",
            metavar="TABLE",
            rich_help_panel=SCORING,
        ),
    ] = None
    phased: Annotated[
        Path | None,
        typer.Option(
            help="Also write a table of haplotypes: variants near each other that a sample has on one "
            "haplotype (GT with |, and PS), scored together and each alone. Variants that are typed are one "
            "haplotype.",
            metavar="TABLE",
            rich_help_panel=SCORING,
        ),
    ] = None
    phase_span: Annotated[
        int | None,
        typer.Option(
            help="With --phased: score variants together that lie within this many bases; default "
            "--downstream, at most window/8.",
            min=2,
            rich_help_panel=SCORING,
        ),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page: distribution and extremes of the first score, by kind, and statuses.",
            metavar="FILE",
            rich_help_panel=SCORING,
        ),
    ] = None
    rc: Annotated[
        Literal["mean", "none"],
        typer.Option(
            help="mean: the mean of both strands; none: the forward strand only.",
            rich_help_panel=SCORING,
        ),
    ] = "mean"
    window: Annotated[
        int | None,
        typer.Option(
            help="Bases of each haplotype to read; default the model's length, at most 8192.",
            min=2,
            rich_help_panel=SCORING,
        ),
    ] = None
    grid: Annotated[
        int | None,
        typer.Option(
            help="Windows start at multiples of this, and variants in one window share most of the work: a "
            "site lies window/2 to window/2 + grid bases into it. 1 centres each variant. Default window/2 - "
            "downstream, at least window/8.",
            min=1,
            rich_help_panel=SCORING,
        ),
    ] = None
    downstream: Annotated[
        int | None,
        typer.Option(
            help="Score this many bases from the site on; fewer are faster. Default 512, at most window/4. "
            "With the size of the window or more, all to its end.",
            min=1,
            rich_help_panel=SCORING,
        ),
    ] = None
    max_allele: Annotated[
        int | None,
        typer.Option(
            help="Longest allele to score, in bases, not counting the bases that REF and ALT share; default "
            "window/4.",
            min=1,
            rich_help_panel=CHECKS,
        ),
    ] = None
    check_ref: Annotated[
        Literal["w", "x", "e"],
        typer.Option(
            help="If REF differs from the genome: w keeps the record unscored and warns, x drops the record, "
            "e stops with an error.",
            rich_help_panel=CHECKS,
        ),
    ] = "w"
    no_version: Annotated[
        bool, typer.Option("--no-version", help="Do not add version, command and model to the header.")
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted run from the scores it left beside OUT.",
        ),
    ] = False
